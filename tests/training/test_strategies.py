"""Which strategy a name means, and what follows from it."""

import json

import pytest
import tensorflow as tf

from vit_tf.training import RunConfig, strategies
from vit_tf.training.strategies import create_strategy


def test_auto_takes_the_cpu_where_there_is_nothing_else(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert isinstance(create_strategy("auto"), tf.distribute.OneDeviceStrategy)


def test_mirrored_takes_all_cpu_devices_where_there_is_no_gpu():
    strategy = create_strategy("mirrored")
    assert strategy.num_replicas_in_sync == 2
    # Two of them in one process would mix up their all-reduces.
    assert create_strategy("mirrored") is strategy


def test_unknown_names_and_missing_clusters_say_what_to_do(monkeypatch):
    with pytest.raises(ValueError, match="strategy must be one of auto, cpu, mirrored"):
        create_strategy("gpus")
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="needs the environment variable TF_CONFIG"):
        create_strategy("multi_worker")
    monkeypatch.setenv("TF_CONFIG", "{bad")
    with pytest.raises(ValueError, match="TF_CONFIG .*it is no such JSON: {bad"):
        create_strategy("multi_worker")


def test_virtual_devices_come_too_late_once_tensorflow_runs():
    tf.constant(0)
    with pytest.raises(RuntimeError, match="must be set before TensorFlow starts"):
        create_strategy("cpu", virtual_cpus=3)


def test_a_tpu_that_does_not_answer():
    with pytest.raises(ValueError, match="no TPU answers at 'local'.*RunConfig.strategy = 'auto'"):
        create_strategy("tpu")


@pytest.mark.parametrize(
    "place, asked",
    [({}, {}), ({"tpu_zone": "eu-1"}, {"zone": "eu-1"}), ({"tpu_project": "p"}, {"project": "p"})],
)
def test_a_remote_tpu_is_connected_and_initialised_before_its_strategy_is_made(
    monkeypatch, place, asked
):
    # No TPU can be had here; this pins the order of the calls that one needs.
    calls = []

    def note(name, result=None):
        return lambda *args, **kwargs: calls.append((name, args, kwargs)) or result

    resolvers = tf.distribute.cluster_resolver
    monkeypatch.setattr(resolvers, "TPUClusterResolver", note("resolve", "resolver"))
    monkeypatch.setattr(tf.config, "experimental_connect_to_cluster", note("connect"))
    monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", note("initialise"))
    monkeypatch.setattr(tf.distribute, "TPUStrategy", note("strategy", "the strategy"))
    assert create_strategy("tpu", tpu="grpc://10.0.0.2:8470", **place) == "the strategy"
    assert calls == [
        ("resolve", (), {"tpu": "grpc://10.0.0.2:8470", **asked}),
        ("connect", ("resolver",), {}),
        ("initialise", ("resolver",), {}),
        ("strategy", ("resolver",), {}),
    ]


def test_a_zone_without_a_tpu_is_an_error(monkeypatch):
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(ValueError, match="RunConfig.tpu_zone says where .* name it in RunConfig"):
        create_strategy("auto", tpu_zone="eu-1")


@pytest.mark.parametrize(
    "tpus, gpus, workers, kind",
    [
        (1, 2, 2, "tpu"),
        (0, 2, 2, "multi_worker"),
        (0, 2, 1, "mirrored"),
        (0, 1, 1, "gpu"),
        (0, 0, 1, "cpu"),
    ],
)
def test_auto_takes_the_best_that_is_there(monkeypatch, tpus, gpus, workers, kind):
    there = {"TPU": tpus, "GPU": gpus}
    monkeypatch.delenv("TPU_NAME", raising=False)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind] * there[kind])
    cluster = {"worker": [f"host{number}:1" for number in range(workers)]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster}))
    assert strategies._detect(None) == kind


def test_a_cluster_of_one_worker_is_this_machine(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["host0:1"]}}))
    strategy = create_strategy("multi_worker")
    assert strategy.num_replicas_in_sync == strategies.num_workers(strategy) == 1
    assert not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def test_bfloat16_is_the_default_on_tpus_alone():
    assert RunConfig().dtype_policy(tpu=True) == "mixed_bfloat16"
    assert RunConfig().dtype_policy(tpu=False) == "float32"
    assert RunConfig(precision="float32").dtype_policy(tpu=True) == "float32"


@pytest.mark.parametrize(
    "cluster, task, number",
    [
        ({"worker": ["a:1", "b:1"]}, ("worker", 1), 1),
        ({"chief": ["a:1"], "worker": ["b:1"]}, ("chief", 0), 0),
        ({"chief": ["a:1"], "worker": ["b:1"]}, ("worker", 0), 1),
    ],
)
def test_processes_are_numbered_with_the_chief_as_zero(monkeypatch, cluster, task, number):
    class Resolver:
        task_type, task_id = task

        def cluster_spec(self):
            return tf.train.ClusterSpec(cluster)

    class Strategy:
        cluster_resolver = Resolver()

    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster}))
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", Strategy)
    assert strategies.worker_number(Strategy()) == number
    assert strategies.is_chief(Strategy()) == (number == 0)
