"""The servers of a tf.data service: starting them, and asking which there are."""

import socket
from collections.abc import Sequence

import grpc
import tensorflow as tf

from vit_tf.data.memory import keep_trimmed

# A file in each worker's own memory that says which worker it is; datasets that it runs read it.
# TensorFlow would tell workers apart only by a list that the dispatcher is started with.
WORKER_ADDRESS_FILE = "ram://vit_tf/address_of_this_data_service_worker"
ANSWER_SECONDS = 20

_CONNECT_SECONDS = 5
_HEARTBEAT_MS = 5_000
# Every start of training has jobs of its own, so one that nobody reads is of no use any more.
_JOB_GC_MS = 10_000


def start_dispatcher(
    port: int, work_dir: str | None = None
) -> tf.data.experimental.service.DispatchServer:
    """Starts a dispatcher in this process.

    Args:
      port: where it listens.
      work_dir: where it keeps its state, to go on after a restart; None keeps none.
    """
    service = tf.data.experimental.service
    return service.DispatchServer(
        service.DispatcherConfig(
            port=port,
            work_dir=work_dir,
            fault_tolerant_mode=work_dir is not None,
            job_gc_check_interval_ms=_JOB_GC_MS,
            job_gc_timeout_ms=_JOB_GC_MS,
        )
    )


def start_worker(
    dispatcher: str, host: str, port: int
) -> tf.data.experimental.service.WorkerServer:
    """Starts a worker in this process, which can be one only.

    Args:
      dispatcher: `host:port` of the dispatcher.
      host: name or address under which training processes reach this machine.
      port: where it listens.

    Raises:
      ConnectionError: no dispatcher answers there within 20 seconds.
    """
    known_workers(dispatcher)  # TensorFlow would wait for an hour
    keep_trimmed()
    with tf.io.gfile.GFile(WORKER_ADDRESS_FILE, "w") as file:
        file.write(f"{host}:{port}")
    service = tf.data.experimental.service
    return service.WorkerServer(
        service.WorkerConfig(
            dispatcher_address=dispatcher,
            worker_address=f"{host}:{port}",
            port=port,
            heartbeat_interval_ms=_HEARTBEAT_MS,
            data_transfer_address=f"{host}:%dts_port%",
        )
    )


def known_workers(dispatcher: str) -> list[str]:
    """Addresses (`host:port`) of all workers that a dispatcher has ever seen.

    Raises:
      ConnectionError: no dispatcher answers there within 20 seconds.
    """
    # TensorFlow has no Python function for this. `GetWorkersResponse` is a list of messages whose
    # first field is the address (core/data/service/dispatcher.proto), on the wire the same as a
    # list of byte strings.
    with grpc.insecure_channel(dispatcher) as channel:
        ask = channel.unary_unary("/tensorflow.data.DispatcherService/GetWorkers")
        try:
            answer = ask(b"", timeout=ANSWER_SECONDS, wait_for_ready=True)
        except grpc.RpcError as error:
            raise ConnectionError(
                f"no tf.data service answers at grpc://{dispatcher} within {ANSWER_SECONDS} s "
                f"({error.code().name}). Start it on that host: python tools/data_service.py "
                f"--mode=dispatcher --port={dispatcher.rpartition(':')[2]}"
            ) from error
    messages = tf.train.BytesList.FromString(answer).value
    return [tf.train.BytesList.FromString(message).value[0].decode() for message in messages]


def reachable(addresses: Sequence[str]) -> list[str]:
    """Those of some addresses (`host:port`) where something listens."""
    return [address for address in addresses if _listens(address)]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("", 0))
        return free.getsockname()[1]


def check_port(port: int) -> None:
    """Raises OSError if somebody listens on a port; gRPC would share it without a word."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as after a restart
        trial.bind(("", port))


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
