"""The names under which preprocessing strings find their ops."""

import dataclasses
import difflib
import inspect
from collections.abc import Callable

import tensorflow as tf

Features = dict[str, tf.Tensor]
FeaturesFn = Callable[[Features], Features]


@dataclasses.dataclass(frozen=True)
class Op:
    """A registered op: `factory(*args, **kwargs)` returns a function from features to features."""

    name: str
    factory: Callable[..., FeaturesFn]
    random: bool

    @property
    def signature(self) -> str:
        """How the op is written in a preprocessing string, with its defaults."""
        signature = inspect.signature(self.factory)
        return f"{self.name}{signature.replace(return_annotation=inspect.Signature.empty)}"

    def make(self, *args, **kwargs) -> FeaturesFn:
        """Builds the op's function; `ValueError` with the signature if the arguments do not fit."""
        try:
            return self.factory(*args, **kwargs)
        except (TypeError, ValueError) as error:
            given = [repr(arg) for arg in args] + [f"{k}={v!r}" for k, v in kwargs.items()]
            raise ValueError(
                f"Preprocessing op {self.name}({', '.join(given)}): {error}. "
                f"Its signature is {self.signature}"
            ) from error


_OPS: dict[str, Op] = {}


def register_op(name: str, random: bool = False) -> Callable[[Callable], Callable]:
    """Decorator that makes an op factory available to preprocessing strings.

    The factory's function takes and returns a dict of tensors. `image` is uint8 `[h, w, c]` after
    `decode`. A `random` op finds a stateless seed, int64 `[2]`, in `features["seed"]`: all it draws
    must come from there. The seed differs for each example, epoch and place of the op in the
    string.

    Raises:
      ValueError: the name is taken.
    """

    def register(factory: Callable[..., FeaturesFn]) -> Callable[..., FeaturesFn]:
        if name in _OPS:
            raise ValueError(f"A preprocessing op {name!r} is registered already")
        _OPS[name] = Op(name, factory, random)
        return factory

    return register


def get_op(name: str) -> Op:
    """The op of that name; `ValueError` with the closest names if there is none."""
    if name not in _OPS:
        close = difflib.get_close_matches(name, _OPS, n=3, cutoff=0.5)
        hint = (
            f"did you mean {' or '.join(close)}?"
            if close
            else f"there are {', '.join(list_ops())}."
        )
        raise ValueError(f"No preprocessing op {name!r}; {hint}")
    return _OPS[name]


def list_ops() -> list[str]:
    """Sorted names of all registered ops."""
    return sorted(_OPS)


def require(condition: tf.Tensor, message: str) -> tf.Tensor:
    """Returns the int32 scalar 1 if a condition holds, else fails (TensorFlow graph code).

    The result must be used, for instance as a factor, or the check is optimised away. It fails by
    reading the message as a number: an Assert would be an op with an effect of its own, and
    deterministic TensorFlow runs dataset functions with effects one element at a time.
    """
    return tf.strings.to_number(tf.where(condition, "1", message), tf.int32)
