"""What changed between the configuration that a run began with and the one it is to go on with."""

import dataclasses
import inspect
import re
import tokenize
from collections.abc import Collection
from typing import Any

from gin import config_parser

from vit_tf.training import configuration

# What may change without a word of permission: where a run computes, how fast its input is, what
# is kept and logged of it. None of it says what is learned.
_FREE = {
    "run": {
        "checkpoint",
        "export_dir",
        "export_options",
        "continuous_eval_timeout",
        "allow_config_change",
        "evaluators",
    },
    "RunConfig": {
        "strategy",
        "tpu",
        "tpu_zone",
        "tpu_project",
        "virtual_cpus",
        "keep_checkpoints",
        "keep_every",
        "async_checkpoints",
        "histogram_interval",
        "image_interval",
        "profile_steps",
        "remat",
    },
    "Ema": {"evaluate"},
    "ProbeEvaluator": {"probe", "train_input", "test_input", "name", "every", "cache_dir"},
    "Input": {"cache", "num_parallel_calls", "prefetch", "service"},
}


@dataclasses.dataclass(frozen=True)
class Change:
    """A binding that differs.

    Attributes:
      name: such as `"train/Input.batch_size"`.
      before: its value as gin has it, or None if it was not bound.
      now: likewise.
      free: whether it says nothing of what is learned, and may change.
    """

    name: str
    before: str | None
    now: str | None
    free: bool

    def __str__(self) -> str:
        lines = (("-", self.before), ("+", self.now))
        return "\n".join(f"{sign}{self.name} = {v}" for sign, v in lines if v is not None)


def changes(before: str, now: str) -> list[Change]:
    """Compares two operative configurations.

    What only one of them made (another mode needs other parts) is no change, nor is a parameter
    that only one of them knows and that has its default there (the library grew), nor the order of
    lines, nor whether a value stands in a macro.

    Args:
      before: gin text.
      now: gin text.

    Returns:
      By name, what differs.

    Raises:
      ValueError: for a text that gin cannot read.
    """
    old, new = _made(before), _made(now)
    found = []
    for scoped in sorted(old.keys() & new.keys()):
        name = scoped.rpartition("/")[2]
        for parameter in sorted(old[scoped].keys() | new[scoped].keys()):
            values = [made[scoped].get(parameter) for made in (old, new)]
            if None in values:
                values = [_default(name, parameter) if v is None else v for v in values]
            if values[0] != values[1]:
                free = parameter in _FREE.get(name, ())
                found.append(Change(f"{scoped}.{parameter}", *values, free))
    return found


def statements(text: str) -> list[tuple[str, Any]]:
    """The bindings in a gin text.

    Args:
      text: such as `"train/Input.batch_size = 512"`; without includes and imports.

    Returns:
      Name and value of each. References and macros stay what they are called: `repr` of a value is
      what gin has.

    Raises:
      ValueError: for a text that gin cannot read.
    """
    found = []
    for statement in _read(text):
        if not isinstance(statement, config_parser.BindingStatement):
            raise ValueError(f"only bindings are expected here, such as a.b = 1; given:\n{text}")
        name = "/".join(filter(None, (statement.scope, statement.selector)))
        name += f".{statement.arg_name}" if statement.arg_name else ""
        found.append((name, statement.value))
    return found


def without(text: str, names: Collection[str]) -> str:
    """A gin text that gin printed, without some of its bindings and macros.

    Args:
      text: the text.
      names: such as `"train/Input.batch_size"`.
    """
    parts = re.split(r"^(?=[\w./]+ =)", text, flags=re.MULTILINE)
    return "".join(part for part in parts if part.partition(" =")[0] not in names)


class _Names(config_parser.ParserDelegate):
    """Leaves references and macros as the names that they are."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        return _Name(f"@{scoped_configurable_name}{'()' if evaluate else ''}")

    def macro(self, macro_name: str) -> Any:
        return _Name(f"%{macro_name}")


class _Name(str):
    """A reference or a macro, unlike a string not in quotes."""

    def __repr__(self) -> str:
        return str(self)


def _made(text: str) -> dict[str, dict[str, str]]:
    """Scoped name of each configurable -> parameter -> value, macros replaced by theirs."""
    made: dict[str, dict[str, Any]] = {}
    macros: dict[str, Any] = {}
    for statement in _read(text):
        name = "/".join(filter(None, (statement.scope, statement.selector)))
        if statement.arg_name:
            made.setdefault(name, {})[statement.arg_name] = statement.value
        else:
            macros[f"%{name}"] = statement.value
    return {
        name: {parameter: repr(_resolve(value, macros)) for parameter, value in bindings.items()}
        for name, bindings in made.items()
    }


def _read(text: str) -> list[Any]:
    try:
        return list(config_parser.ConfigParser(text, _Names()))
    except (SyntaxError, ValueError, tokenize.TokenError) as error:
        raise ValueError(f"gin cannot read this configuration: {error}\n{text}") from error


def _resolve(value: Any, macros: dict[str, Any]) -> Any:
    if isinstance(value, _Name):
        return _resolve(macros[value], macros) if value in macros else value
    if isinstance(value, dict):
        return {key: _resolve(part, macros) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_resolve(part, macros) for part in value)
    return value


def _default(name: str, parameter: str) -> str | None:
    """The default of a parameter as gin would print it, or None if it has none."""
    known = configuration.parameters(name)
    default = known[parameter].default if parameter in known else inspect.Parameter.empty
    return None if default is inspect.Parameter.empty else repr(default)
