"""Rematerialisation (Chen et al. 2016): activations that are computed again rather than kept.

`keras.RematScope` wraps `tf.recompute_grad`, where the second computation happens outside of the
scope that gives the step its seeds and weights: dropout would draw another mask, and weights that
are tensors (sharpness-aware minimisation) would get no gradient. Here both are part of what is
computed again. Nor does `tf.recompute_grad` hold under XLA, which finds the second computation to
be the first one and keeps the activations after all.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

from vit_tf import layers

# Policy -> layers that keep only their input.
POLICIES: dict[str, tuple[type[keras.layers.Layer], ...]] = {
    "none": (),
    "blocks": (
        layers.EncoderBlock,
        layers.MixerBlock,
        layers.BottleneckUnit,
        layers.PreactivationUnit,
        layers.OffsetAttention,
        layers.NormedMLP,
    ),
    "attention": (
        layers.MultiHeadSelfAttention,
        layers.ConvProjectionAttention,
        layers.OffsetAttention,
    ),
    "mlp": (layers.MLP, layers.InvertedResidualMLP, layers.NormedMLP),
}


class Remat:
    """Makes layers of a model compute their activations again in the backward pass.

    Args:
      model: built; outside of `active` it computes as ever.
      policy: `"none"`, `"blocks"` (every block), `"attention"` (the attention within blocks) or
        `"mlp"` (the MLPs within blocks).

    Raises:
      ValueError: if the model has no such layers.
    """

    def __init__(self, model: keras.Model, policy: str):
        # Each replica is traced in a thread of its own, and where replicas exchange something in
        # the forward pass these take turns.
        self._of_thread = threading.local()
        found = [x for x in model._flatten_layers() if isinstance(x, POLICIES[policy])]
        if policy != "none" and not found:
            raise ValueError(
                f"RunConfig.remat = {policy!r} finds no "
                f"{' or '.join(kind.__name__ for kind in POLICIES[policy])} in this model; take "
                "'none' or another of " + ", ".join(POLICIES)
            )
        for layer in found:
            layer.call = self._again(layer)

    @contextlib.contextmanager
    def active(self, scope: keras.StatelessScope) -> Iterator[None]:
        """Inside, the layers rematerialise.

        Args:
          scope: entered already; holds values of the layers' weights and seeds.
        """
        self._of_thread.scope = scope
        try:
            yield
        finally:
            self._of_thread.scope = None

    def _again(self, layer: keras.layers.Layer) -> Callable:
        original = functools.partial(type(layer).call, layer)

        @functools.wraps(type(layer).call)
        def call(inputs, *args, **kwargs):
            scope = getattr(self._of_thread, "scope", None)
            if scope is None:
                return original(inputs, *args, **kwargs)
            weights = layer.trainable_variables
            seeds = [(v, scope.get_current_value(v)) for v in layer.non_trainable_variables]
            seeds = [(variable, value) for variable, value in seeds if value is not None]
            changed = {}

            def compute(inputs, *values):
                inner = keras.StatelessScope([*zip(weights, values, strict=True), *seeds])
                with inner:
                    outputs = original(inputs, *args, **kwargs)
                for variable, _ in seeds:  # those of the first time; the second gives the same
                    changed.setdefault(id(variable), inner.get_current_value(variable))
                return outputs

            values = [scope.get_current_value(weight) for weight in weights]
            outputs = _computed_again(compute)(inputs, *values)
            for variable, _ in seeds:
                scope.add_update((variable, changed[id(variable)]))
            return outputs

        return call


def _computed_again(compute: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """A function of tensors that keeps its arguments alone for its gradient."""

    @tf.custom_gradient
    def run(*args):
        def gradient(upstream, variables=()):
            again = _only_after(upstream, args)
            with tf.GradientTape() as tape:
                tape.watch(again)
                outputs = compute(*again)
            found = tape.gradient(
                outputs, again, output_gradients=upstream, unconnected_gradients="zero"
            )
            return (found, [None] * len(variables)) if variables else found

        return compute(*args), gradient

    return run


def _only_after(upstream: tf.Tensor, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Values of which nothing is computed before the backward pass has come to `upstream`."""
    if layers.is_compiled_by_xla():
        *values, _ = gen_xla_ops.xla_optimization_barrier([*values, upstream])
        return values
    with tf.control_dependencies([upstream]):
        return [tf.identity(value) for value in values]
