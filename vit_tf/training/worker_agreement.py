"""Whether all workers of a run were started alike."""

import hashlib
from importlib import metadata
from pathlib import Path

import numpy as np
import tensorflow as tf

from vit_tf.training import configuration
from vit_tf.training.cluster import workers
from vit_tf.training.strategies import num_workers

_PACKAGE = Path(__file__).parents[1]
_LIBRARIES = ("tensorflow", "keras", "tf-models-official", "numpy")


def check_workers_agree(strategy: tf.distribute.Strategy) -> None:
    """Compares what each worker was given with what the chief was given.

    Workers with other bindings or other code would train something that nobody asked for, or wait
    for each other for ever. With one worker there is nothing to compare.

    Args:
      strategy: of the run; all its workers call this at the same point.

    Raises:
      ValueError: in all workers, with the addresses of those that differ, and in what.
    """
    if num_workers(strategy) > 1:
        given = _given()
        seen = _gathered(strategy, [_digest(text) for text in given.values()])
        problem = difference(list(given), seen, workers())
        if problem:
            raise ValueError(problem)


def difference(names: list[str], digests: np.ndarray, addresses: list[str]) -> str | None:
    """Says which workers differ from the chief.

    Args:
      names: of what is compared.
      digests: int64 [workers, names], the chief first.
      addresses: of the workers.

    Returns:
      A sentence a name, or None if all are alike.
    """
    sentences = []
    for name, column in zip(names, digests.T, strict=True):
        others = [a for a, digest in zip(addresses, column, strict=True) if digest != column[0]]
        if others:
            sentences.append(f"{', '.join(others)}: not the {name} of the chief {addresses[0]}")
    if not sentences:
        return None
    return "; ".join(sentences) + ". Start the same command from the same checkout on every worker."


def _given() -> dict[str, str]:
    """What makes a worker's part of the run, by what it is called."""
    code = "".join(
        f"{file.relative_to(_PACKAGE)} {hashlib.sha256(file.read_bytes()).hexdigest()}"
        for file in sorted(_PACKAGE.rglob("*.py"))
    )
    versions = " ".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES)
    return {
        "gin files and bindings": configuration.parsed_text(),
        "code of vit_tf": code,
        f"versions of {', '.join(_LIBRARIES)}": versions,
    }


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])


def _gathered(strategy: tf.distribute.Strategy, digests: list[int]) -> np.ndarray:
    """Each worker's digests, int64 [workers, digests]."""
    own = strategy.run(lambda: tf.constant([digests], tf.int64))
    rows = strategy.gather(own, axis=0).numpy()  # a row a replica, worker by worker
    return rows[:: strategy.num_replicas_in_sync // num_workers(strategy)]
