"""Which workers a run has and which one this process is: from TF_CONFIG, or from SLURM."""

import collections
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

_HELP = (
    "strategy 'multi_worker' needs the environment variable TF_CONFIG on every worker, e.g. "
    '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, "task": {"type": "worker", '
    '"index": 0}}; '
)
_KINDS = ("chief", "worker", "evaluator", "ps")
# SLURM_JOB_ID modulo _PORTS is added, so that two jobs on a node have ports of their own.
_FIRST_PORT, _PORTS = 20000, 10000
_STEP_VARIABLES = ("JOB_ID", "PROCID", "LOCALID", "STEP_NODELIST", "STEP_TASKS_PER_NODE")


def cluster_size() -> int:
    """How many workers, the chief among them, `TF_CONFIG` names; 0 where it is not set."""
    return len(workers())


def workers() -> list[str]:
    """Addresses of the workers that `TF_CONFIG` names, the chief first.

    Raises:
      ValueError: if it is not of TensorFlow's form.
    """
    cluster = _config().get("cluster", {})
    if not isinstance(cluster, dict) or not all(isinstance(x, list) for x in cluster.values()):
        raise ValueError(_HELP + f"its cluster must name lists of addresses: {cluster!r}")
    unknown = sorted(set(cluster) - set(_KINDS))
    if unknown:
        raise ValueError(_HELP + f"its cluster names {unknown[0]!r}; write it 'worker'")
    return [address for kind in ("chief", "worker") for address in cluster.get(kind, [])]


def check_cluster() -> None:
    """Refuses a `TF_CONFIG` with which workers would wait for each other for ever.

    Raises:
      ValueError: that says what is wrong with it.
    """
    addresses = workers()
    if not addresses:
        raise ValueError(_HELP + f"it is {os.environ.get('TF_CONFIG', 'not set')}")
    for address in addresses:
        if not re.fullmatch(r".+:\d+", str(address)):
            raise ValueError(_HELP + f"{address!r} has no port (host:port)")
    twice = [address for address, n in collections.Counter(addresses).items() if n > 1]
    if twice:
        raise ValueError(_HELP + f"it names {twice[0]} twice; each worker has a port of its own")
    config = _config()
    task = config.get("task") or {}
    kind, index = task.get("type"), task.get("index")
    if kind not in ("chief", "worker"):
        raise ValueError(
            _HELP + f"its task must be of type 'worker' or 'chief'; it is {task or 'not there'}"
        )
    count = len(config["cluster"].get(kind, []))
    if not str(index).isdigit() or int(index) >= count:
        raise ValueError(
            _HELP + f"the task's index is {index!r}, and there are {count} of type {kind!r}: "
            f"0 to {count - 1}"
        )


def _config() -> dict[str, Any]:
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ValueError(_HELP + f"it is no such JSON: {text}") from error
    if not isinstance(config, dict):
        raise ValueError(_HELP + f"it is no such JSON: {text}")
    return config


def slurm_cluster(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """The `TF_CONFIG` of a task of a SLURM job step.

    TensorFlow's own `SlurmClusterResolver` sorts the hosts as text, so that n10 comes before n9 and
    no worker is where the others look for it, and it fails where there is no nvidia-smi.

    Args:
      environment: with the variables that `srun` sets.

    Returns:
      None outside of a job step.

    Raises:
      ValueError: if the tasks are not numbered node by node, as `srun --distribution=block` does.
    """
    step = {name: environment.get(f"SLURM_{name}") for name in _STEP_VARIABLES}
    if None in step.values():
        return None
    hosts = list(_expanded(step["STEP_NODELIST"]))
    counts = list(_tasks_per_node(step["STEP_TASKS_PER_NODE"]))
    first = _FIRST_PORT + int(step["JOB_ID"]) % _PORTS
    places = [(h, task) for h, n in zip(hosts, counts, strict=True) for task in range(n)]
    index = int(step["PROCID"])
    if places[index][1] != int(step["LOCALID"]):
        raise ValueError(
            f"this is task {step['LOCALID']} of its node and number {index} of the job, which "
            f"should be task {places[index][1]} of {places[index][0]}: number the tasks node by "
            "node (srun --distribution=block), or start one a node (--ntasks-per-node=1)"
        )
    addresses = [f"{host}:{first + task}" for host, task in places]
    return {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}


def _expanded(hosts: str) -> Iterator[str]:
    """The hosts of SLURM's notation, such as `n[08-10,12],login`, in its order."""
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", hosts):
        match = re.search(r"\[([^\]]*)\]", part)
        if match is None:
            yield part
            continue
        for span in match[1].split(","):
            low, _, high = span.partition("-")
            for number in range(int(low), int(high or low) + 1):
                host = f"{part[: match.start()]}{number:0{len(low)}d}{part[match.end() :]}"
                yield from _expanded(host)  # of several brackets the next one


def _tasks_per_node(counts: str) -> Iterator[int]:
    """The numbers of SLURM's notation, such as `2(x3),1` for 2, 2, 2, 1."""
    for part in counts.split(","):
        count, _, times = part.partition("(x")
        yield from [int(count)] * int(times.rstrip(")") or 1)
