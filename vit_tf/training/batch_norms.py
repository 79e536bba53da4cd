"""Batch norms in training: over which examples they normalise, and which of them stand still."""

from collections.abc import Iterator

import keras


def prepare_batch_norms(model: keras.Model, synchronized: bool) -> bool:
    """Sets how a model's batch norms behave in training.

    A norm of which no weight is trained any more normalises by its statistics as in inference, and
    leaves them alone: a frozen backbone then computes in training what it computes in evaluation.

    Args:
        model: Built, and its weights frozen that are to be.
        synchronized: The others normalise by the batch of all replicas; else each replica's by the
            examples of its own.

    Returns:
        Whether there are norms that are synchronized.
    """
    norms = list(_norms(model))
    for norm in norms:
        norm.synchronized = synchronized
        learnt = [weight for weight in (norm.gamma, norm.beta) if weight is not None]
        trained = [weight.trainable for weight in learnt]
        if learnt and norm.trainable != any(trained):
            norm.trainable = any(trained)
            for weight, is_trained in zip(learnt, trained, strict=True):
                weight.trainable = is_trained  # the line above made them all alike
    return synchronized and any(norm.trainable for norm in norms)


def check_synchronized(replicas_are_compiled: bool, forms: int) -> None:
    """Raises a ValueError where replicas cannot exchange statistics within a step.

    Args:
        replicas_are_compiled: Each replica's forward and backward pass is one XLA program, and
            they are several, not on TPUs.
        forms: The task's `Task.forms`.
    """
    if replicas_are_compiled:
        raise ValueError(
            "RunConfig.sync_batch_norm needs RunConfig.jit_compile = False on several CPUs or "
            "GPUs: their XLA programs cannot exchange statistics"
        )
    if forms > 1:
        raise ValueError(
            "RunConfig.sync_batch_norm cannot be had with a task whose steps take one of several "
            f"forms ({forms}): replicas exchange statistics in no branch"
        )


def _norms(model: keras.Model) -> Iterator[keras.layers.BatchNormalization]:
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            yield layer
