"""Input over a tf.data service whose dispatcher and workers are processes of their own."""

import signal
import threading
import time

import numpy as np
import pytest
import service_processes
import tensorflow as tf
import tiny_records
from tiny_records import assert_same

from vit_tf.data import service_servers
from vit_tf.data.input import Input
from vit_tf.data.tfrecord_source import TFRecordSource

PREPROCESS = "decode|random_crop(8, padding=2)|flip_lr|value_range(-1, 1)"
SHARDS = [5, 4, 6, 8]
BATCH = 4
TWO_EPOCHS = -(-2 * sum(SHARDS) // BATCH)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> TFRecordSource:
    pattern = tiny_records.write_foreign(tmp_path_factory.mktemp("foreign"), SHARDS)
    return TFRecordSource(pattern, num_classes=5, features=tiny_records.FOREIGN_FEATURES)


@pytest.fixture(scope="module")
def service():
    running = service_processes.Service(num_workers=2)
    yield running
    running.stop()


@pytest.fixture
def own_service():
    """One that a test may break."""
    running = service_processes.Service(num_workers=1)
    yield running
    running.stop()


def make(source, **arguments) -> Input:
    return Input(source, PREPROCESS, **{"batch_size": BATCH, "training": True} | arguments)


def take(dataset: tf.data.Dataset, count: int) -> list[dict[str, np.ndarray]]:
    return list(dataset.take(count).as_numpy_iterator())


# The batches


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampling",
    [{}, {"shuffle_window": 7}, {"shuffle": "global"}, {"shuffle": "global", "repeats": 3}],
    ids=["window", "small window", "global", "repeats"],
)
def test_batches_are_those_made_here(source, service, sampling):
    here = make(source, **sampling)
    there = make(source, service=service.address, **sampling)
    assert there().element_spec == here().element_spec
    assert_same(take(there(), TWO_EPOCHS), take(here(), TWO_EPOCHS))


@pytest.mark.slow
@pytest.mark.parametrize("start_step", [1, 4, 7])
@pytest.mark.parametrize("shuffle", ["window", "global"])
def test_resume_continues_the_very_stream(source, service, shuffle, start_step):
    whole = take(make(source, shuffle=shuffle)(), start_step + 4)
    there = make(source, shuffle=shuffle, service=service.address)
    assert_same(take(there(start_step=start_step), 4), whole[start_step:])


@pytest.mark.slow
def test_every_pass_over_the_dataset_begins_anew(source, service):
    dataset = make(source, service=service.address)()
    assert_same(take(dataset, 3), take(dataset, 3))


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [{}, {"repeats": 2}], ids=["once", "repeats"])
def test_consumers_get_their_shares_of_every_step(source, service, sampling):
    """Two training workers of two replicas each, which read at the same time."""
    here = make(source, batch_size=8, **sampling)
    there = make(source, batch_size=8, service=service.address, **sampling)
    contexts = [tf.distribute.InputContext(2, worker, 4) for worker in range(2)]
    got = [None, None]
    job = f"two consumers {sampling}"

    def read(worker: int) -> None:
        dataset = there(contexts[worker], start_step=3, job=job)
        got[worker] = []
        for batch in dataset.take(10).as_numpy_iterator():
            got[worker].append(batch)
            time.sleep(0.05 * worker)  # one of them is slower

    threads = [threading.Thread(target=read, args=[worker], daemon=True) for worker in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for worker in range(2):
        assert_same(got[worker], take(here(contexts[worker], start_step=3), 10))
    if not sampling:  # without repeats the replicas' batches follow each other
        of_steps = [got[worker][step : step + 2] for step in range(0, 10, 2) for worker in range(2)]
        union = np.concatenate([batch["index"] for batches in of_steps for batch in batches])
        whole = [batch["index"] for batch in take(here(start_step=3), 5)]
        np.testing.assert_array_equal(union, np.concatenate(whole))


# Faults


@pytest.mark.slow
def test_corrupt_record_is_named(service, tmp_path):
    records = [tiny_records.foreign_example(tiny_records.png(i), 0) for i in range(12)]
    records[7] = tiny_records.foreign_example(b"\xff\xd8 no JPEG", 0)
    path = tiny_records.write_records(tmp_path / "records", records)
    source = TFRecordSource(path, 1)
    data = make(source, service=service.address, shuffle_window=1)
    with pytest.raises(tf.errors.InvalidArgumentError):
        take(data(), 3)
    assert f"{path} record 7" in data.diagnose()


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_lost_worker_is_an_error_and_not_a_silent_gap(source, own_service, num_workers):
    own_service.add_workers(num_workers - 1)
    data = make(source, service=own_service.address)
    iterator = data().as_numpy_iterator()
    expected = iter(make(source)().as_numpy_iterator())
    for _ in range(5):
        assert_same([next(iterator)], [next(expected)])
    own_service.workers[0].send_signal(signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(tf.errors.InvalidArgumentError, match="service worker was lost"):
        while True:  # what is under way still comes, in order
            assert_same([next(iterator)], [next(expected)])
    assert time.monotonic() - began < 60
    message = data.diagnose()
    assert f"the tf.data service {own_service.address} lost localhost:" in message
    assert "Start training again" in message


@pytest.mark.slow
def test_after_a_loss_the_next_start_goes_on_with_those_that_are_left(source, own_service):
    own_service.add_workers(1)
    own_service.workers[0].send_signal(signal.SIGKILL)
    own_service.workers[0].wait()
    data = make(source, service=own_service.address)
    assert_same(take(data(start_step=2), 5), take(make(source)(start_step=2), 5))


@pytest.mark.slow
def test_late_worker_changes_nothing(source, own_service):
    dataset = make(source, service=own_service.address, prefetch=1)()
    iterator = dataset.as_numpy_iterator()
    seen = [next(iterator) for _ in range(3)]
    own_service.add_workers(1)
    for _ in range(20):
        seen.append(next(iterator))
        time.sleep(0.5)  # a worker reports, and is made known to readers, in seconds
    assert_same(seen, take(make(source)(), 23))


def test_dispatcher_that_is_not_there(source, monkeypatch):
    monkeypatch.setattr(service_servers, "ANSWER_SECONDS", 1)
    port = service_servers.free_port()
    with pytest.raises(ConnectionError, match=rf"no .* answers at grpc://localhost:{port} within"):
        make(source, service=f"grpc://localhost:{port}")()


def test_dispatcher_without_workers(source, monkeypatch):
    monkeypatch.setattr("vit_tf.data.service.ANSWER_SECONDS", 1)
    port = service_servers.free_port()
    dispatcher = service_servers.start_dispatcher(port)
    with pytest.raises(ConnectionError, match="has no worker. Start some: .*--mode=worker"):
        make(source, service=f"grpc://localhost:{port}")()
    dispatcher.stop()


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"training": False, "preprocess": "decode|resize(8)"}, "evaluation reads here"),
        ({"on_bad_record": "skip"}, "on_bad_record = 'skip' cannot count"),
        ({"cache": True}, "cache = True keeps the records in this process"),
        ({"shard_by": "files"}, "leave shard_by = 'examples'"),
        ({"service": "head:5050"}, "written grpc://host:port, got 'head:5050'"),
    ],
)
def test_what_a_service_cannot_do_is_refused(source, arguments, message):
    arguments = {"service": "grpc://localhost:1", "preprocess": PREPROCESS} | arguments
    with pytest.raises(ValueError, match=message):
        Input(source, **{"batch_size": BATCH, "training": True} | arguments)


def test_several_consumers_need_a_common_job(source):
    data = make(source, service="grpc://localhost:1")
    with pytest.raises(ValueError, match="2 training workers .* give all of them the same job"):
        data(tf.distribute.InputContext(2, 0, 2))


# The tool


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_parts_stop_cleanly_when_asked(number):
    running = service_processes.Service(num_workers=1)
    for process in (running.workers[0], running.dispatcher):
        process.send_signal(number)
        output, error = process.communicate(timeout=30)
        assert process.returncode == 0, error
        assert "stopped" in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mode=worker"], "--mode=worker needs --dispatcher=host:port"),
        (["--mode=dispatcher", "--dispatcher=a:1"], "--dispatcher is for --mode=worker"),
        (["--mode=dispatcher", "grpc://a:1"], "unknown arguments: grpc://a:1"),
        (
            ["--mode=worker", "--dispatcher=localhost:1"],
            "no tf.data service answers at grpc://localhost:1",
        ),
    ],
)
def test_flags_that_do_not_go_together(flags, message):
    process = service_processes.start(*flags)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1 and f"error: {message}" in error
    assert "Traceback" not in error


@pytest.mark.slow
def test_port_in_use(own_service):
    port = own_service.address.rpartition(":")[2]
    process = service_processes.start("--mode=dispatcher", f"--port={port}")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1 and f"cannot listen on port {port}" in error
