r"""Runs a part of a tf.data service: machines that decode and augment for training.

One dispatcher, and a worker on every machine that is to work; each part runs until SIGTERM or
Ctrl-C. An example with two machines, `head` and `helper`:

  on head:    python tools/data_service.py --mode=dispatcher --port=5050
  on head:    python tools/data_service.py --mode=worker --dispatcher=head:5050 --port=5051
  on helper:  python tools/data_service.py --mode=worker --dispatcher=head:5050 --port=5051
  training:   python tools/train.py ... --gin_param='train/Input.service = "grpc://head:5050"'

The batches are, bit for bit, those that training would have made itself. Workers read the files
under the paths that training names them by, so both need the same shared storage. Start the workers
before training: those that come later are used from its next start on. When a worker is lost,
training stops with an error that names it, and started again goes on with those that are left.
One service may serve several trainings. Nothing is encrypted: keep it inside your own network.
"""

import os
import signal
import socket
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # training needs the accelerators

from absl import app, flags

_MODE = flags.DEFINE_enum("mode", None, ["dispatcher", "worker"], "which part", required=True)
_PORT = flags.DEFINE_integer(
    "port", 0, "where it listens [a free port]", lower_bound=0, upper_bound=65535
)
_HOST = flags.DEFINE_string("host", None, "how others reach this machine [its name]")
_DISPATCHER = flags.DEFINE_string("dispatcher", None, "for a worker: the dispatcher's host:port")
_WORK_DIR = flags.DEFINE_string(
    "work_dir", None, "for a dispatcher: folder of its state, to go on after a restart [none]"
)


def main(argv: list[str]) -> None:
    """Starts what the flags say and waits for the signal to stop."""
    if len(argv) > 1:
        _fail(f"unknown arguments: {' '.join(argv[1:])}; see --help")
    is_worker = _MODE.value == "worker"
    if is_worker and not _DISPATCHER.value:
        _fail("--mode=worker needs --dispatcher=host:port, as the dispatcher printed it")
    if is_worker and _WORK_DIR.value:
        _fail("--work_dir is the dispatcher's; a worker keeps no state")
    if not is_worker and _DISPATCHER.value:
        _fail("--dispatcher is for --mode=worker; there is one dispatcher only")
    # Before any thread starts: they all inherit it, and the signal waits until it is asked for.
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    import tensorflow as tf

    from vit_tf.data import service_servers

    host, port = _HOST.value or socket.gethostname(), _PORT.value or service_servers.free_port()
    try:
        service_servers.check_port(port)
        if is_worker:
            server = service_servers.start_worker(_DISPATCHER.value, host, port)
        else:
            server = service_servers.start_dispatcher(port, _WORK_DIR.value)
    except ConnectionError as error:
        _fail(str(error))
    except (OSError, RuntimeError, tf.errors.OpError) as error:
        _fail(f"the {_MODE.value} cannot listen on port {port}: {error}")
    if is_worker:
        print(f"worker {host}:{port} of {_DISPATCHER.value}", flush=True)
    else:
        print(f'dispatcher: train/Input.service = "grpc://{host}:{port}"', flush=True)
    signal.sigwait(signals)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)  # a second one ends it at once
    server.stop()
    print(f"{_MODE.value} stopped", flush=True)


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    app.run(main)
