"""Asked to stop: by a signal, by a person, or by Compute Engine's metadata server."""

import contextlib
import http.server
import os
import signal
import threading

import numpy as np
import pytest
import tensorflow as tf

from vit_tf.training import maintenance
from vit_tf.training.preemption import StopRequest, catch_stop_requests
from vit_tf.training.strategies import create_strategy


class MetadataServer(http.server.ThreadingHTTPServer):
    """Answers as Compute Engine's does: only to its header, 404 for what it does not know."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.values = {"maintenance-event": "NONE", "preempted": "FALSE"}
        self.asked = threading.Semaphore(0)


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        flavored = self.headers["Metadata-Flavor"] == "Google"
        folder, _, key = self.path.rpartition("/")
        known = folder == "/computeMetadata/v1/instance" and key in self.server.values
        self.send_response(403 if not flavored else 200 if known else 404)
        self.end_headers()
        if flavored and known:
            self.wfile.write(self.server.values[key].encode())
        self.server.asked.release()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    server = MetadataServer()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.server_port}")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # must not be asked
    monkeypatch.setattr(maintenance, "_POLL_SECONDS", 0.01)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "key, value, notice",
    [
        ("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE", "TERMINATE_ON_HOST_MAINTENANCE"),
        ("maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE", None),  # the machine moves, it lives
        ("preempted", "TRUE", "PREEMPTED"),
    ],
)
def test_notices_that_end_the_machine(server, key, value, notice):
    assert maintenance.current_notice() is None
    server.values[key] = value
    assert maintenance.current_notice() == notice


def test_a_server_that_does_not_know_preemption_still_tells_of_maintenance(server):
    del server.values["preempted"]
    assert maintenance.current_notice() is None
    server.values["maintenance-event"] = "TERMINATE_ON_HOST_MAINTENANCE"
    assert maintenance.current_notice() == "TERMINATE_ON_HOST_MAINTENANCE"


def test_a_notice_in_the_midst_of_training_saves_and_asks_to_be_started_again(
    server, make_estimator, tmp_path, capsys
):
    def input_fn(announce=True):
        def batches():
            for step in range(10**6):
                if announce and step == 3:
                    server.values["maintenance-event"] = "TERMINATE_ON_HOST_MAINTENANCE"
                yield np.zeros((4, 8, 8, 3), np.float32), np.arange(4)

        spec = (tf.TensorSpec([4, 8, 8, 3]), tf.TensorSpec([4], tf.int64))
        return tf.data.Dataset.from_generator(batches, output_signature=spec)

    settings = dict(steps=10**6, steps_per_loop=10, checkpoint_interval=10**5)
    with pytest.raises(SystemExit) as stopped:
        make_estimator(tmp_path / "run", **settings).train(input_fn)
    assert stopped.value.code == os.EX_TEMPFAIL
    said = capsys.readouterr().out
    assert "TERMINATE_ON_HOST_MAINTENANCE: saving after the steps under way" in said
    assert tf.train.latest_checkpoint(str(tmp_path / "run" / "checkpoints")) in said


def test_errors_of_a_server_that_answered_once_do_not_end_the_watch(server):
    seen = threading.Event()
    with maintenance.watch_for_maintenance(lambda notice: seen.set(), tpu=False):
        for _ in range(4):
            assert server.asked.acquire(timeout=10)
        host = os.environ.pop("GCE_METADATA_HOST")
        os.environ["GCE_METADATA_HOST"] = "127.0.0.1:9"  # nobody there
        assert not seen.wait(0.1)
        server.values["preempted"] = "TRUE"
        os.environ["GCE_METADATA_HOST"] = host
        assert seen.wait(10)


@pytest.mark.parametrize("tpu, product", [(True, ""), (False, "Google Compute Engine\n")])
def test_where_no_server_answers_the_watch_ends_without_a_word(
    monkeypatch, tmp_path, capsys, tpu, product
):
    asked = []

    def refuse(host, key):
        asked.append(host)
        raise ConnectionRefusedError

    (tmp_path / "product_name").write_text(product)
    monkeypatch.setattr(maintenance, "_PRODUCT_NAME", tmp_path / "product_name")
    monkeypatch.setattr(maintenance, "_metadata", refuse)
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    before = threading.active_count()
    with maintenance.watch_for_maintenance(pytest.fail, tpu):
        while threading.active_count() > before:
            pass
    assert asked == ["metadata.google.internal"]
    assert capsys.readouterr().out == ""


def test_elsewhere_the_network_is_not_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(maintenance, "_PRODUCT_NAME", tmp_path / "not there")
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    monkeypatch.setattr(maintenance, "_metadata", lambda *args: pytest.fail("asked"))
    before = threading.active_count()
    with maintenance.watch_for_maintenance(pytest.fail, tpu=False):
        assert threading.active_count() == before


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, os.EX_TEMPFAIL), (signal.SIGINT, 130)])
def test_a_signal_says_with_what_to_leave(number, status):
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with catch_stop_requests() as request:
        assert request.exit_status(create_strategy("cpu")) is None
        os.kill(os.getpid(), number)
        assert request.exit_status(create_strategy("cpu")) == status
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers


def test_a_second_ctrl_c_interrupts():
    with contextlib.suppress(KeyboardInterrupt), catch_stop_requests():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second one was swallowed")


@pytest.mark.parametrize(
    "sums, status",
    [((0.0, 0.0), None), ((2.0, 0.0), os.EX_TEMPFAIL), ((4.0, 2.0), 130)],
)
def test_workers_leave_with_the_same_status(monkeypatch, sums, status):
    # The sum over all replicas of what each worker was asked stands in for the other workers.
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", type(create_strategy("cpu")))
    monkeypatch.setattr(
        "vit_tf.training.preemption.sum_over_replicas", lambda strategy, own: tf.constant(sums)
    )
    assert StopRequest().exit_status(create_strategy("cpu")) == status
