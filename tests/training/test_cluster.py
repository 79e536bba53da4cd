"""Who the workers are, said by TF_CONFIG or by SLURM, and what is wrong with what was said."""

import json

import pytest
import tensorflow as tf

from vit_tf.training import strategies
from vit_tf.training.cluster import slurm_cluster
from vit_tf.training.strategies import create_strategy

WORKER = {"type": "worker", "index": 0}


def cluster(*addresses, **kinds):
    return {"worker": list(addresses)} | kinds


@pytest.mark.parametrize(
    "addresses, task, message",
    [
        (cluster("a:1", "b:1"), None, "its task must be of type 'worker' or 'chief'; it is not th"),
        (cluster("a:1", "b:1"), {"type": "ps", "index": 0}, "its task must be of type 'worker' or"),
        (cluster("a:1", "b:1"), {"type": "worker"}, "index is None, and there are 2 of type 'wo"),
        (cluster("a:1", "b:1"), {"type": "worker", "index": 2}, "index is 2, .*: 0 to 1"),
        (cluster("a:1", "b:1", chief=["c:1"]), {"type": "chief", "index": 1}, "is 1, .*: 0 to 0"),
        (cluster("a:1", "a:1"), WORKER, "names a:1 twice; each worker has a port of its own"),
        (cluster("a", "b:1"), WORKER, r"'a' has no port \(host:port\)"),
        ({"worker": "a:1,b:1"}, WORKER, "its cluster must name lists of addresses"),
        ({"workers": ["a:1", "b:1"]}, WORKER, "its cluster names 'workers'; write it 'worker'"),
    ],
)
def test_a_cluster_that_would_wait_for_ever_is_an_error(monkeypatch, addresses, task, message):
    config = {"cluster": addresses} | ({"task": task} if task else {})
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with pytest.raises(ValueError, match=f"needs the environment variable TF_CONFIG .*{message}"):
        create_strategy("multi_worker")


class Extended:
    def _get_variable_creator_initial_value(self, *args, **kwargs):
        raise NotImplementedError


class Strategy:
    """In place of TensorFlow's, which waits for the other workers."""

    def __init__(self):
        self.extended = Extended()


def slurm(number, local, nodes="n[9-10]", tasks="2(x2)", job="4711"):
    values = {"PROCID": number, "LOCALID": local, "STEP_NODELIST": nodes}
    values |= {"STEP_TASKS_PER_NODE": tasks, "JOB_ID": job}
    return {f"SLURM_{name}": str(value) for name, value in values.items()}


def test_tasks_of_a_slurm_step_become_the_workers(monkeypatch, capsys):
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", Strategy)
    monkeypatch.setenv("TF_CONFIG", "")
    for name, value in slurm(number=2, local=0).items():
        monkeypatch.setenv(name, value)
    strategy = create_strategy("multi_worker")
    names = "n9:24711, n9:24712, n10:24711, n10:24712"
    assert capsys.readouterr().out == f"waiting for all workers: {names}\n"
    assert strategies.num_workers(strategy) == 4
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    assert (resolver.task_type, resolver.task_id) == ("worker", 2)
    assert resolver.cluster_spec().as_dict() == {"worker": names.split(", ")}


def test_what_tf_config_says_wins_over_slurm(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster("a:1")}))
    for name, value in slurm(number=0, local=0).items():
        monkeypatch.setenv(name, value)
    assert create_strategy("multi_worker").num_replicas_in_sync == 1


@pytest.mark.parametrize(
    "nodes, tasks, hosts",
    [
        ("login", "1", ["login"]),
        ("n[08-10,12],login", "1(x5)", ["n08", "n09", "n10", "n12", "login"]),
        ("r[1-2]n[1-2]-ib", "1(x4)", ["r1n1-ib", "r1n2-ib", "r2n1-ib", "r2n2-ib"]),
        ("a,b", "2,1", ["a", "a", "b"]),
    ],
)
def test_slurms_lists_of_hosts_are_read_in_their_order(nodes, tasks, hosts):
    found = slurm_cluster(slurm(0, 0, nodes, tasks, job="100000"))["cluster"]["worker"]
    assert [address.partition(":")[0] for address in found] == hosts
    assert len(set(found)) == len(found) and found[0].endswith(":20000")


def test_tasks_that_are_dealt_to_nodes_in_turn_are_an_error():
    with pytest.raises(ValueError, match="should be task 1 of n9: .* --distribution=block"):
        slurm_cluster(slurm(number=1, local=0))


def test_outside_of_a_slurm_step_there_is_no_cluster():
    environment = slurm(0, 0)
    del environment["SLURM_STEP_NODELIST"]  # as in the batch script itself
    assert slurm_cluster(environment) is None
