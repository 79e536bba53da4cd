"""The names under which preprocessing strings find their ops."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Sequence

import tensorflow as tf

from vit_tf.suggestions import did_you_mean

Features = dict[str, tf.Tensor]
FeaturesFn = Callable[[Features], Features]
BatchFn = Callable[[tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Op:
    """A registered op: `factory(*args, **kwargs)` returns a function from features to features."""

    name: str
    factory: Callable[..., FeaturesFn]
    random: bool
    batched: Callable[..., BatchFn] | None

    @property
    def signature(self) -> str:
        """How the op is written in a preprocessing string, with its defaults."""
        signature = inspect.signature(self.factory)
        text = str(signature.replace(return_annotation=inspect.Signature.empty))
        return self.name + text.replace("collections.abc.", "")

    def make(self, *args, **kwargs) -> FeaturesFn:
        """Builds the op's function; `ValueError` with the signature if the arguments do not fit."""
        try:
            bound = inspect.signature(self.factory).bind(*args, **kwargs)
            hints = typing.get_type_hints(self.factory)
            for name, value in bound.arguments.items():
                is_list = bound.signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
                for item in value if is_list else [value]:
                    if not _fits(item, hints.get(name)):
                        raise ValueError(f"{name} cannot be {item!r}")
            return self.factory(*args, **kwargs)
        except (TypeError, ValueError) as error:
            given = [repr(arg) for arg in args] + [f"{k}={v!r}" for k, v in kwargs.items()]
            raise ValueError(
                f"Preprocessing op {self.name}({', '.join(given)}): {error}. "
                f"Its signature is {self.signature}"
            ) from error


_OPS: dict[str, Op] = {}


def _fits(value: object, hint: object) -> bool:
    """Whether a literal is of a hinted type; hints of other kinds fit everything."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is tuple:
        of_length = isinstance(value, tuple | list) and len(value) == len(arguments)
        return of_length and all(map(_fits, value, arguments))
    if origin is Sequence:
        is_sequence = isinstance(value, tuple | list)
        return is_sequence and all(_fits(item, arguments[0]) for item in value)
    if hint in (int, float):
        return is_number and (hint is float or isinstance(value, int))
    return not isinstance(hint, type) or isinstance(value, hint)


def register_op(
    name: str, random: bool = False, batched: Callable[..., BatchFn] | None = None
) -> Callable[[Callable], Callable]:
    """Decorator that makes an op factory available to preprocessing strings.

    The factory's function takes and returns a dict of tensors. `image` is uint8 `[h, w, c]` after
    `decode`. A `random` op finds a stateless seed, int64 `[2]`, in `features["seed"]`: all it draws
    must come from there. The seed differs for each example, epoch and place of the op in the
    string.

    Args:
      name: in preprocessing strings.
      random: whether the op draws random numbers.
      batched: a factory with the same arguments, of a function that does the same to the bit to a
        batch of uint8 images `[b, h, w, c]`. Input pipelines use it where the op is the last one:
        until then images are a quarter of the size.

    Raises:
      ValueError: the name is taken.
    """

    def register(factory: Callable[..., FeaturesFn]) -> Callable[..., FeaturesFn]:
        if name in _OPS:
            raise ValueError(f"A preprocessing op {name!r} is registered already")
        _OPS[name] = Op(name, factory, random, batched)
        return factory

    return register


def get_op(name: str) -> Op:
    """The op of that name; `ValueError` with the closest names if there is none."""
    if name not in _OPS:
        hint = did_you_mean(name, _OPS, cutoff=0.5) or f" There are {', '.join(list_ops())}."
        raise ValueError(f"No preprocessing op {name!r}.{hint}")
    return _OPS[name]


def list_ops() -> list[str]:
    """Sorted names of all registered ops."""
    return sorted(_OPS)


def draw(shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """Uniform random float32 in [0, 1): those of `tf.random.stateless_uniform`, by a fifth the ops.

    Args:
      shape: of the result.
      seed: int64 `[2]`.
    """
    return tf.raw_ops.StatelessRandomUniform(shape=shape, seed=seed)


def require(condition: tf.Tensor, message: str) -> tf.Tensor:
    """Returns the int32 scalar 1 if a condition holds, else fails (TensorFlow graph code).

    The result must be used, for instance as a factor, or the check is optimised away. It fails by
    reading the message as a number: an Assert would be an op with an effect of its own, and
    deterministic TensorFlow runs dataset functions with effects one element at a time.
    """
    return tf.strings.to_number(tf.where(condition, "1", message), tf.int32)
