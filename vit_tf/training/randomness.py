"""Dropout, stochastic depth and mixing as functions of (seed, step, replica), not of hidden state.

Keras layers draw from `keras.random.SeedGenerator`s, variables that count calls. A run that is
killed and resumed, or that is spread over replicas, then needs those counters saved, restored and
made different on every replica. Here each step puts its own seeds in their place instead: the
randomness of a step follows from its number alone.
"""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

# A number that no seed generator of a model has.
_AUGMENTATION = 1 << 30


def augmentation_key(seed: int, step: tf.Tensor) -> tf.Tensor:
    """The seed of what a step does to its batch.

    Args:
      seed: the run's seed.
      step: int64 scalar, number of the training step.

    Returns:
      int32 [2], another one on each replica.
    """
    return _fold_in(_replica_key(seed, step), _AUGMENTATION)


def step_key(seed: int, step: tf.Tensor) -> tf.Tensor:
    """The seed of what a step draws once for all replicas: int32 [2]."""
    return tf.stack([tf.cast(seed, tf.int32), tf.cast(step, tf.int32)])


@contextlib.contextmanager
def seeded_step(model: keras.Model, seed: int, step: tf.Tensor) -> Iterator[None]:
    """Runs a model's forward pass with seeds that follow from `seed`, `step` and the replica.

    Updates that layers make to their other non-trainable weights meanwhile (batch statistics)
    are applied when the block ends.

    Args:
      model: the model that is called inside the block.
      seed: the run's seed.
      step: int64 scalar, number of the training step.

    Yields:
      Nothing.
    """
    generators = [v for v in model.non_trainable_variables if _is_seed(v)]
    key = _replica_key(seed, step)
    seeds = [
        (generator, tf.cast(_fold_in(key, index), generator.dtype))
        for index, generator in enumerate(generators)
    ]
    with keras.StatelessScope(state_mapping=seeds) as scope:
        yield
    for variable in batch_statistics(model):
        value = scope.get_current_value(variable)
        if value is not None:
            variable.assign(value)


def batch_statistics(model: keras.Model) -> list[keras.Variable]:
    """What training changes without a gradient: moving averages, but no seeds."""
    return [v for v in model.non_trainable_variables if not _is_seed(v)]


def _replica_key(seed: int, step: tf.Tensor) -> tf.Tensor:
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    return _fold_in(step_key(seed, step), tf.cast(replica, tf.int32))


def _fold_in(key: tf.Tensor, number: tf.Tensor | int) -> tf.Tensor:
    """A key out of a key and a number, the same compiled or not."""
    return tf.random.experimental.stateless_fold_in(key, number, alg="philox")


def _is_seed(variable: keras.Variable) -> bool:
    return variable.path.endswith("seed_generator_state")
