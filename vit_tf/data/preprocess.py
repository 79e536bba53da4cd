"""Preprocessing as a string of named ops: `decode|inception_crop(224)|flip_lr|value_range(-1, 1)`.

The same `Preprocess` object serves training, evaluation and the exported model.
"""

import ast
import functools
from collections.abc import Sequence

import tensorflow as tf

from vit_tf.data import (  # noqa: F401, the modules with ops register them
    augmix,
    autoaugment,
    color_ops,
    eval_crop,
    feature_ops,
    fused_ops,
    op_registry,
    randaugment,
    random_erasing,
    timm_randaugment,
    torchvision_crop,
)
from vit_tf.data import ops as _built_in_ops  # noqa: F401
from vit_tf.data.op_registry import Features, FeaturesFn, Op

_OP_SEED_STEP = 1 << 32  # keeps the draws of a string's ops apart; `fold_in` costs three ops


class Preprocess:
    """Maps a dict with encoded `image` bytes to one with a float32 `image` `[height, width, c]`.

    Args:
      ops: names of registered ops with Python-literal arguments, joined by `|`; the first is
        `decode` (or another op that decodes).

    Attributes:
      random_ops: names of the ops that draw random numbers.
      is_random: whether there are any; such a preprocessing is for training only.

    Raises:
      ValueError: the string cannot be parsed, an op is unknown or its arguments do not fit.
    """

    def __init__(self, ops: str):
        if not isinstance(ops, str):
            raise ValueError(f"preprocessing must be a string of ops, got {ops!r}")
        calls = _parse(ops)
        registered = [op_registry.get_op(name) for name, _, _, _ in calls]
        if [op.name.startswith("decode") for op in registered] != [True] + [False] * len(calls[1:]):
            raise ValueError(f"Preprocessing must begin with decode, and decode once: {ops!r}")
        self.random_ops = [op.name for op in registered if op.random]
        self._canonical = "|".join(text for _, _, _, text in calls)
        self._functions = [
            (op, op.make(*args, **kwargs))
            for op, (_, args, kwargs, _) in zip(registered, calls, strict=True)
        ]
        _, args, kwargs, _ = calls[-1]
        self._last_batched = registered[-1].batched and registered[-1].batched(*args, **kwargs)

    @property
    def is_random(self) -> bool:
        """Whether the result depends on a seed."""
        return bool(self.random_ops)

    def __call__(self, features: Features) -> Features:
        """Runs all ops (TensorFlow graph code).

        Args:
          features: `image`, a scalar string tensor; `seed`, int64 `[2]`, if there are random ops.
            Ops may use and change further entries.

        Returns:
          The features with `image` float32.
        """
        return _as_float(self._run(features, self._functions))

    def on_example(self, features: Features) -> Features:
        """Like calling it, but for what `on_batch` does (TensorFlow graph code).

        Returns:
          The features with `image` uint8 if `on_batch` has something to do, else float32.
        """
        if not self._finishes_batches:
            return self(features)
        return self._run(features, self._functions[:-1])

    @property
    def example_dtype(self) -> tf.DType:
        """Of `image` as `on_example` leaves it."""
        return tf.uint8 if self._finishes_batches else tf.float32

    def on_batch(self, images: tf.Tensor) -> tf.Tensor:
        """Images `[b, h, w, c]` of `on_example` as calling makes each of them, float32."""
        return self._last_batched(images) if self._finishes_batches else images

    def image_from_bytes(self, encoded: tf.Tensor) -> tf.Tensor:
        """Encoded bytes (scalar string) to float32 `[height, width, channels]`, as in evaluation.

        Raises:
          ValueError: the preprocessing has random ops.
        """
        self._require_deterministic()
        return self({"image": tf.convert_to_tensor(encoded)})["image"]

    def image_from_pixels(self, image: tf.Tensor) -> tf.Tensor:
        """Like `image_from_bytes` for a decoded image `[h, w, channels]` of any size.

        Args:
          image: uint8, or float in [0, 255], which is rounded to uint8 as decoding would deliver
            it.

        Raises:
          ValueError: the preprocessing has random ops.
        """
        self._require_deterministic()
        image = tf.convert_to_tensor(image)
        if image.dtype.is_floating:
            image = tf.round(image)
        return self({"image": tf.saturate_cast(image, tf.uint8)})["image"]

    @functools.cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the result.

        Raises:
          ValueError: they depend on the image; models and batches need fixed ones.
        """
        return tuple(self.result_specs()["image"].shape)

    def result_specs(self, **features: tf.TensorSpec) -> dict[str, tf.TensorSpec]:
        """Shapes and dtypes of what the ops make of an example.

        Args:
          **features: what it has besides `image` and `seed`.

        Raises:
          ValueError: the image's shape is not fixed.
        """
        results = dict(self._specs(finished=True, **features))
        shape = results["image"].shape
        if not shape.is_fully_defined():
            raise ValueError(
                f"Images after {str(self)!r} have no fixed size ({shape}). Add resize(height, "
                "width) or resize_small(size)|central_crop(size); in training also "
                "inception_crop(size) or random_crop(size)."
            )
        return results

    def __str__(self) -> str:
        return self._canonical

    def __repr__(self) -> str:
        return f"Preprocess({self._canonical!r})"

    @functools.cached_property
    def _finishes_batches(self) -> bool:
        """Whether the last op runs on batches: it can, and gets uint8."""
        if self._last_batched is None:
            return False
        return self._specs(finished=False)["image"].dtype == tf.uint8

    def _specs(self, finished: bool, **features: tf.TensorSpec) -> dict[str, tf.TensorSpec]:
        return _specs(str(self), tuple(op for op, _ in self._functions), finished, **features)

    def _run(self, features: Features, functions: Sequence[tuple[Op, FeaturesFn]]) -> Features:
        seed = features.get("seed")
        features = dict(features)
        for place, (op, function) in enumerate(functions):
            if op.random:
                if seed is None:
                    raise ValueError(f"{op.name} in {str(self)!r} is random: it needs a seed")
                features["seed"] = seed + tf.constant([place * _OP_SEED_STEP, 0], tf.int64)
            features = function(features)
        return features

    def _require_deterministic(self) -> None:
        if self.is_random:
            raise ValueError(
                f"{str(self)!r} has random ops ({', '.join(self.random_ops)}): evaluation and "
                "serving need a preprocessing without them."
            )


@functools.lru_cache(maxsize=128)
def _specs(
    text: str, ops: tuple[Op, ...], finished: bool, **features: tf.TensorSpec
) -> dict[str, tf.TensorSpec]:
    """Shapes and dtypes of what a preprocessing's ops make of an example.

    A trace takes a good part of a second, and the inputs of a program are often preprocessed alike.

    Args:
      text: of the preprocessing.
      ops: what its names stand for.
      finished: after all ops, as float32, or before the last one.
      **features: what an example has besides `image` and `seed`.
    """
    preprocess = Preprocess(text)

    def run(features: Features) -> Features:
        return preprocess(features) if finished else preprocess._run(features, functions)

    functions = preprocess._functions[:-1]
    spec = {"image": tf.TensorSpec([], tf.string), "seed": tf.TensorSpec([2], tf.int64)}
    traced = tf.function(run, autograph=False).get_concrete_function(spec | features)
    return {
        name: tf.TensorSpec(value.shape, value.dtype)
        for name, value in traced.structured_outputs.items()
    }


def _as_float(features: Features) -> Features:
    return {**features, "image": tf.cast(features["image"], tf.float32)}


def _parse(text: str) -> list[tuple[str, list, dict, str]]:
    """Splits a preprocessing string into (name, args, kwargs, canonical text) per op."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        return [_parse_call(node) for node in _flatten(tree)]
    except (SyntaxError, ValueError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise ValueError(
            f"Cannot read the preprocessing {text!r}: {reason}. "
            "It is written like decode|resize(256)|central_crop(224)|value_range(-1, 1)"
        ) from error


def _flatten(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_flatten(node.left), node.right]
    return [node]


def _parse_call(node: ast.expr) -> tuple[str, list, dict, str]:
    text = ast.unparse(node)
    if isinstance(node, ast.Name):
        return node.id, [], {}, text
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError(f"{text!r} is not an op")
    if any(keyword.arg is None for keyword in node.keywords):
        raise ValueError(f"the arguments of {text!r} must be plain values")
    try:
        args = [ast.literal_eval(arg) for arg in node.args]
        kwargs = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
    except ValueError as error:
        raise ValueError(f"the arguments of {text!r} must be plain values") from error
    return node.func.id, args, kwargs, text if args or kwargs else node.func.id
