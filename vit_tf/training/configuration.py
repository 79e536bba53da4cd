"""gin: which names can be bound, and reading files and bindings with errors that help.

Only this file knows gin. Classes and functions stay plain Python: code that calls them directly
is not touched by a gin file; `run` (what the tools call) uses the bound versions.
"""

import difflib
import inspect
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import gin
import keras

from vit_tf import data
from vit_tf.models import create_model
from vit_tf.training import schedules
from vit_tf.training.optimization import Optimization
from vit_tf.training.run_config import RunConfig
from vit_tf.training.tasks import Classification

_CONFIGURABLE: dict[str, Callable] = {
    "AdamW": keras.optimizers.AdamW,
    "Classification": Classification,
    "Input": data.Input,
    "Optimization": Optimization,
    "RunConfig": RunConfig,
    "SGD": keras.optimizers.SGD,
    "TFDSSource": data.TFDSSource,
    "TFRecordSource": data.TFRecordSource,
    "constant": schedules.constant,
    "create_model": create_model,
    "warmup_cosine": schedules.warmup_cosine,
}
_BOUND = {
    name: gin.external_configurable(function, name) for name, function in _CONFIGURABLE.items()
}

_ROOT = Path(__file__).resolve().parents[2]


def bound(name: str) -> Callable:
    """The version of a configurable whose missing arguments come from gin."""
    return _BOUND[name]


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
      ValueError: for what gin cannot read and for names that do not exist, with the closest ones.
    """
    gin.clear_config()
    gin.add_config_file_search_path(str(_ROOT))
    for file in files:
        if not any(os.path.exists(os.path.join(folder, file)) for folder in ("", _ROOT)):
            folder = _ROOT / "gin"
            found = sorted(str(path.relative_to(_ROOT)) for path in folder.rglob("*.gin"))
            close = difflib.get_close_matches(file, found, n=3) or found
            raise FileNotFoundError(f"no gin file {file!r}; there are {', '.join(close)}")
    try:
        gin.parse_config_files_and_bindings(files, bindings, finalize_config=False)
    except (ValueError, SyntaxError, NameError) as error:
        raise ValueError(_explain(str(error))) from error


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


def unused_bindings() -> list[str]:
    """Bindings of the files and the command line that nothing has asked for so far."""
    used = _selectors(gin.operative_config_str())
    return sorted(_selectors(gin.config_str()) - used)


def _selectors(config: str) -> set[str]:
    """`scope/name.parameter` of every binding in a gin text."""
    return set(re.findall(r"^([\w./]+\.\w+) =", config, flags=re.MULTILINE))


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
        return f"{message}\n{_suggest(name, _parameters(selector.rpartition('.')[2]))}"
    return message


def _suggest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}Known names: {', '.join(sorted(known))}"


def _parameters(name: str) -> list[str]:
    return list(inspect.signature(_CONFIGURABLE[name]).parameters) if name in _CONFIGURABLE else []
