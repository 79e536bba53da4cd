"""Dropout, stochastic depth and mixing as functions of (seed, step, replica), not of hidden state.

Keras layers draw from `keras.random.SeedGenerator`s, variables that count calls. A run that is
killed and resumed, or that is spread over replicas, then needs those counters saved, restored and
made different on every replica. Here each step puts its own seeds in their place instead: the
randomness of a step follows from its number alone.
"""

from collections.abc import Iterable

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
    return fold_in(replica_key(seed, step), _AUGMENTATION)


def step_key(seed: int, step: tf.Tensor) -> tf.Tensor:
    """The seed of what a step draws once for all replicas: int32 [2]."""
    return tf.stack([tf.cast(seed, tf.int32), tf.cast(step, tf.int32)])


def replica_key(seed: int, step: tf.Tensor) -> tf.Tensor:
    """The seed of a replica's forward pass in a step: int32 [2], another one on each replica."""
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    return fold_in(step_key(seed, step), tf.cast(replica, tf.int32))


def seeded(
    model: keras.Model,
    key: tf.Tensor,
    values: Iterable[tuple[keras.Variable, tf.Tensor]] = (),
) -> keras.StatelessScope:
    """A scope in which a model draws from seeds that follow from a key.

    What layers assign inside (batch statistics) does not reach the variables; the scope's
    `get_current_value` tells it.

    Args:
      model: the model that is called inside the scope.
      key: int32 [2], such as `replica_key`.
      values: variables with the values that they are to have inside.

    Returns:
      The scope, to be entered.
    """
    generators = [v for v in model.non_trainable_variables if _is_seed(v)]
    seeds = [
        (generator, tf.cast(fold_in(key, index), generator.dtype))
        for index, generator in enumerate(generators)
    ]
    return keras.StatelessScope(state_mapping=[*seeds, *values])


def batch_statistics(
    model: keras.Model, frozen: Iterable[keras.Variable] = ()
) -> list[keras.Variable]:
    """What training changes without a gradient: moving averages, but no seeds and no `frozen`."""
    frozen = {id(variable) for variable in frozen}
    return [v for v in model.non_trainable_variables if not _is_seed(v) and id(v) not in frozen]


def fold_in(key: tf.Tensor, number: tf.Tensor | int) -> tf.Tensor:
    """A key out of a key and a number, the same compiled or not."""
    return tf.random.experimental.stateless_fold_in(key, number, alg="philox")


def _is_seed(variable: keras.Variable) -> bool:
    return variable.path.endswith("seed_generator_state")
