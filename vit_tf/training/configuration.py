"""gin: which names can be bound, and reading files and bindings with errors that help.

Only this file knows gin, and `configuration_change` its syntax. Classes and functions stay plain
Python: code that calls them directly is not touched by a gin file; `run` (what the tools call) uses
the bound versions.
"""

import difflib
import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gin
import keras
from gin import config

from vit_tf import data
from vit_tf.checkpoints import create_model
from vit_tf.evaluation import probes
from vit_tf.evaluation.evaluator import ProbeEvaluator
from vit_tf.models import LoRA
from vit_tf.suggestions import did_you_mean
from vit_tf.training import hyper_rule, optimizers, schedules, tables
from vit_tf.training.bad_steps import BadSteps
from vit_tf.training.ema import Ema
from vit_tf.training.optimization import Optimization
from vit_tf.training.run_config import RunConfig
from vit_tf.training.tasks import (
    Classification,
    Cosub,
    FlexiClassification,
    KnowledgeDistillation,
    TokenDistillation,
    TokenPruning,
)
from vit_tf.training.teachers import CachedTeacher, Teacher

_CONFIGURABLE: dict[str, Callable] = {
    "BadSteps": BadSteps,
    "CachedTeacher": CachedTeacher,
    "Classification": Classification,
    "Cosub": Cosub,
    "Ema": Ema,
    "FewShotProbe": probes.FewShotProbe,
    "FewShotSource": data.FewShotSource,
    "FlexiClassification": FlexiClassification,
    "Input": data.Input,
    "KNNProbe": probes.KNNProbe,
    "KnowledgeDistillation": KnowledgeDistillation,
    "LayerProbes": probes.LayerProbes,
    "LinearProbe": probes.LinearProbe,
    "LogisticProbe": probes.LogisticProbe,
    "LoRA": LoRA,
    "Mixing": data.Mixing,
    "MixtureSource": data.MixtureSource,
    "Optimization": Optimization,
    "ProbeEvaluator": ProbeEvaluator,
    "RelabelledSource": data.RelabelledSource,
    "RunConfig": RunConfig,
    "TFDSSource": data.TFDSSource,
    "TFRecordSource": data.TFRecordSource,
    "VTABSource": data.VTABSource,
    "Teacher": Teacher,
    "TokenDistillation": TokenDistillation,
    "TokenPruning": TokenPruning,
    "create_model": create_model,
    "hyper_rule_mixing": hyper_rule.hyper_rule_mixing,
    "hyper_rule_preprocess": hyper_rule.hyper_rule_preprocess,
    "hyper_rule_schedule": hyper_rule.hyper_rule_schedule,
    "hyper_rule_size": hyper_rule.hyper_rule_size,
    "hyper_rule_steps": hyper_rule.hyper_rule_steps,
    "layerwise_decay": tables.layerwise_decay,
}
_OPTIMIZERS = (
    optimizers.LAMB,
    optimizers.LARS,
    optimizers.LowMemoryAdam,
    optimizers.MomentumSGD,
    optimizers.ScalingAdafactor,
    keras.optimizers.Adafactor,
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.Lion,
    keras.optimizers.Muon,
    keras.optimizers.Nadam,
    keras.optimizers.RMSprop,
    keras.optimizers.SGD,
)
_SCHEDULES = (
    schedules.constant,
    schedules.cosine,
    schedules.epoch_cosine,
    schedules.linear,
    schedules.polynomial,
    schedules.rsqrt,
    schedules.staircase,
)
_LOSSES = (
    keras.losses.BinaryCrossentropy,
    keras.losses.BinaryFocalCrossentropy,
    keras.losses.CategoricalCrossentropy,
    keras.losses.CategoricalFocalCrossentropy,
)
_CONFIGURABLE |= {part.__name__: part for part in (*_OPTIMIZERS, *_SCHEDULES, *_LOSSES)}


def _without_module(function: types.FunctionType) -> types.FunctionType:
    """A copy that belongs to no module, so that its name is the whole of what gin knows it by.

    gin prefers that to names of which it is only the end, such as its own `gin.constant`.
    """
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__
    )
    copy.__module__ = None
    copy.__doc__ = function.__doc__
    copy.__wrapped__ = function
    return copy


_CONFIGURABLE["constant"] = _without_module(schedules.constant)
_BOUND = {
    name: gin.external_configurable(function, name) for name, function in _CONFIGURABLE.items()
}

_ROOT = Path(__file__).resolve().parents[2]
# What `vit_tf.training.run` makes itself, in no scope; all else is made where gin refers to it.
_ROOTS = frozenset({("", "run"), ("", "RunConfig")})
_SCOPED_NAME = r"(?:([\w./]+)/)?([\w.]+)"
# The files and bindings as they were written, including what a later line replaced.
_written: list[str] = []


def bound(name: str) -> Callable:
    """The version of a configurable whose missing arguments come from gin."""
    return _BOUND[name]


def bound_value(binding: str) -> Any:
    """What the parsed configuration binds to a parameter.

    Args:
      binding: scope, name and parameter, such as `"eval/Input.preprocess"`.

    Returns:
      The value, with functions for the `@references` in it and macros replaced; None if there is
      no such binding.
    """
    try:
        value = gin.query_parameter(binding)
    except ValueError:
        return None

    def resolve(part: Any) -> Any:
        if isinstance(part, (list, tuple)):
            return type(part)(map(resolve, part))
        if isinstance(part, config.ConfigurableReference):
            return part.scoped_configurable_fn() if part.evaluate else part.scoped_configurable_fn
        return part

    return resolve(value)


def configurables() -> dict[str, Callable]:
    """What a gin file can bind: name -> class or function, sorted by name."""
    return {name: inspect.unwrap(_CONFIGURABLE[name]) for name in sorted(_CONFIGURABLE)}


def configurable(function: Callable) -> Callable:
    """Makes a function one that gin can bind, under its own name; returns the bound version."""
    name = function.__name__
    _CONFIGURABLE[name] = function
    _BOUND[name] = gin.external_configurable(function, name)
    return _BOUND[name]


def parse(files: Sequence[str], bindings: Sequence[str] = ()) -> None:
    """Reads gin files, then bindings, which win.

    Files are looked for as they are named, in the working folder and beside the project; so are
    the files they include.

    Args:
      files: paths of gin files.
      bindings: such as `"RunConfig.steps = 100"`.

    Raises:
      FileNotFoundError: if a file is not there.
      ValueError: for what gin cannot read, for names that do not exist, and for macros and scopes
        that nothing refers to, with the closest ones.
    """
    gin.clear_config()
    gin.add_config_file_search_path(str(_ROOT))
    for file in files:
        if _find(file) is None:
            folder = _ROOT / "gin"
            found = sorted(str(path.relative_to(_ROOT)) for path in folder.rglob("*.gin"))
            close = difflib.get_close_matches(file, found, n=3) or found
            raise FileNotFoundError(f"no gin file {file!r}; there are {', '.join(close)}")
    try:
        read = gin.parse_config_files_and_bindings(files, bindings, finalize_config=False)
    except (ValueError, SyntaxError, NameError) as error:
        raise ValueError(_explain(str(error))) from error
    _written[:] = [*_texts(read), *bindings]
    _check_references(gin.config_str())


def readable(error: Exception) -> str:
    """An error's message, with gin's notes about where it was called cut down to the names."""
    note = r"\n\s*In call to configurable '([\w.]+)' \(<.*>\)(?: in scope '([\w./]+)')?"

    def name_only(match: re.Match) -> str:
        name, scope = match.groups()
        return "" if name == "run" else f"\n  (in {scope + '/' if scope else ''}{name})"

    return re.sub(note, name_only, str(error))


def operative_text() -> str:
    """The bindings that were used so far, those by default included."""
    return gin.operative_config_str()


def parsed_text() -> str:
    """The bindings that were parsed, as gin text; those by default not included."""
    return gin.config_str()


def unused_bindings() -> list[str]:
    """Bindings without effect so far, though all that could have used them was made.

    So a part that the mode does not need (an optimizer in evaluation), or that another one
    replaced, is not listed; what nothing refers to is, and what code or a binding in a scope
    overrules.

    Returns:
      Sorted, such as `"SGD.momentum"` or `"train/Input.batch_size"`.
    """
    operative = gin.operative_config_str()
    bindings = _bindings(gin.config_str())
    used = {_strongest(bindings, binding) for binding in _bindings(operative)}
    made = set(re.findall(rf"^# Parameters for {_SCOPED_NAME}:$", operative, flags=re.MULTILINE))
    users = _references() | _ROOTS

    def could_come(scope: str, name: str) -> bool:
        return any(
            name == user and _inside(place, scope) and not _is_made(made, place, name)
            for place, user in users
        )

    unused = [b for b in bindings - used if not could_come(b[0], b[1])]
    return sorted(f"{s}/{name}.{p}" if s else f"{name}.{p}" for s, name, p in unused)


def _find(file: str) -> Path | None:
    """The path that gin reads for the name of a file."""
    paths = [Path(folder, file) for folder in ("", _ROOT)]
    return next((path for path in paths if path.exists()), None)


def _texts(read: Sequence) -> list[str]:
    """Texts of the files that gin has read, and of those that they include."""
    texts = []
    for file in read:
        text = _find(file.filename).read_text(encoding="utf-8")
        texts += [re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE), *_texts(file.includes)]
    return texts


def _check_references(config: str) -> None:
    """Finds macros that are not set, and macros and scopes that are set and not used.

    Either is misspelt, nearly always.
    """
    macros = re.findall(r"^([\w/]+) =", config, flags=re.MULTILINE)
    outside_strings = re.sub(r"""'(\\.|[^'\\])*'|"(\\.|[^"\\])*\"""", "", config)
    for macro in re.findall(r"%([\w/]+)\b(?!\.)", outside_strings):
        if macro not in macros:
            raise ValueError(f"the macro %{macro} is not set.\n{_suggest(macro, macros)}")
    known = sorted(set(re.findall(r"%([\w./]+)", "\n".join(_written))))
    for macro in macros:
        if macro not in known:
            raise ValueError(
                f"nothing refers to the macro {macro} (as %{macro}).\n{_suggest(macro, known)}"
            )
    known = sorted({place for place, _ in _references()} - {""})
    for scope, name, parameter in sorted(_bindings(config)):
        if scope and not any(_inside(place, scope) for place in known):
            raise ValueError(
                f"nothing refers to the scope {scope!r} of {scope}/{name}.{parameter} (as "
                f"@{scope}/{name}).\n{_suggest(scope, known)}"
            )


def _references() -> set[tuple[str, str]]:
    """Scope and name of every `@scope/name` that was written."""
    found = re.findall(rf"@{_SCOPED_NAME}", "\n".join(_written))
    return {(scope, name.rpartition(".")[2]) for scope, name in found}


def _bindings(config: str) -> set[tuple[str, str, str]]:
    """Scope, name and parameter of every binding in a text that gin printed."""
    return set(re.findall(rf"^{_SCOPED_NAME}\.(\w+) =", config, flags=re.MULTILINE))


def _inside(place: str, scope: str) -> bool:
    """Whether what happens in the scope `place` sees the bindings of `scope`."""
    return not scope or place == scope or place.startswith(f"{scope}/")


def _is_made(made: set[tuple[str, str]], scope: str, name: str) -> bool:
    return any(name == other and _inside(place, scope) for place, other in made)


def _strongest(bindings: set[tuple[str, str, str]], use: tuple) -> tuple | None:
    """The binding that a use took its value from: that of the innermost scope."""
    seen = [b for b in bindings if b[1:] == use[1:] and _inside(use[0], b[0])]
    return max(seen, default=None)


def _explain(message: str) -> str:
    """Adds the closest names to gin's message about a name that does not exist."""
    message = message.strip()
    unknown = re.search(r"No configurable matching (?:reference )?'@?([\w./]+)'?", message)
    if unknown:
        name = unknown.group(1).rpartition("/")[2].partition(".")[0]
        return f"{message}\n{_suggest(name, _CONFIGURABLE)}"
    parameter = re.search(
        r"Configurable '([\w.]+)' doesn't have a parameter named '(\w+)'", message
    )
    if parameter:
        selector, name = parameter.groups()
        return f"{message}\n{_suggest(name, parameters(selector.rpartition('.')[2]))}"
    return message


def _suggest(name: str, known: Sequence[str]) -> str:
    names = ", ".join(sorted(known)) or "none"
    return f"{did_you_mean(name, known)} Known names: {names}".lstrip()


def parameters(name: str) -> Mapping[str, inspect.Parameter]:
    """Parameters of a configurable by name; none if there is no such configurable."""
    return inspect.signature(_CONFIGURABLE[name]).parameters if name in _CONFIGURABLE else {}
