"""Tools in this process: loaded, their flags parsed, run, and forgotten again."""

import contextlib
import importlib.util
import signal
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import app, logging
from absl.flags import FLAGS

_HELPERS = ("model_flags", "predictor_flags")  # of tools/, with flags for several of them


@contextlib.contextmanager
def loaded(path: Path) -> Iterator[types.ModuleType]:
    """The module of a tool, whose flags are the only tool's until the scope ends."""
    spec = importlib.util.spec_from_file_location(f"shown_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    was_parsed, others = FLAGS.is_parsed(), _taken_tool_flags()
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(path.parent))
        for name in _HELPERS:
            sys.modules.pop(name, None)
        _taken_tool_flags()
        for owner, flag in others:
            FLAGS[flag.name] = flag
            FLAGS.register_flag_by_module(owner, flag)
        if was_parsed:
            FLAGS.mark_as_parsed()
        else:
            FLAGS.unparse_flags()


def parsed(module: types.ModuleType, arguments: Sequence[str]) -> dict[str, object]:
    """Flag -> value, of a loaded tool; an unknown flag or a value that does not fit is an error."""
    FLAGS([module.__name__, *arguments])
    return FLAGS.flag_values_dict()


def run(path: Path, arguments: Sequence[str]) -> int:
    """Runs a tool as if it was started with some arguments; returns the exit status."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers, verbosity = [signal.getsignal(number) for number in numbers], logging.get_verbosity()
    own, sys.argv = sys.argv, [str(path), *arguments]
    with loaded(path) as module:
        try:
            module.main(FLAGS(sys.argv))
        except app.UsageError as error:
            print(error, file=sys.stderr)
            return 1
        except SystemExit as leaving:
            if isinstance(leaving.code, str):  # a message, which Python prints
                print(leaving.code, file=sys.stderr)
                return 1
            return leaving.code or 0
        finally:
            sys.argv = own
            logging.set_verbosity(verbosity)
            for number, handler in zip(numbers, handlers, strict=True):
                signal.signal(number, handler)
    return 0


def _taken_tool_flags() -> list[tuple[str, object]]:
    """Takes away the flags that tools defined; they, and no library, are modules of no package."""
    owned = FLAGS.flags_by_module_dict().items()
    taken = [(owner, flag) for owner, flags in owned if "." not in owner for flag in flags]
    for _, flag in taken:
        delattr(FLAGS, flag.name)
    return taken
