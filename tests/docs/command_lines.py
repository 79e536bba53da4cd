"""Shell commands as pages show them: found, taken apart, and held against what there is."""

import argparse
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest import mock

import gin
import pytest
from tools_in_process import loaded, parsed

from vit_tf.checkpoints.public.catalogue import find
from vit_tf.models import resolve_name
from vit_tf.training import configuration, run  # noqa: F401  (makes itself known to gin)

ROOT = Path(__file__).resolve().parents[2]
# `python tools/x.py ...` in a block, or in a line of prose between backticks.
_SHOWN = re.compile(r"(?:^|[\s/`])python ((?:tools|benchmarks)/\w+\.py)([^`\n]*)", re.MULTILINE)
# What a reader is to fill in: a name in angle brackets, or all that is left out.
_PLACEHOLDER, _LEFT_OUT = (
    re.compile(r"<[A-Za-z_ /]+>"),
    re.compile(r"^(?:\.\.\.|…)$|=(?:\.\.\.|…)$"),
)


def joined(text: str) -> str:
    """Text whose continued lines are one."""
    return re.sub(r"\\\n\s*", " ", text)


def lines(text: str) -> list[list[str]]:
    """The words of each command of a shell block."""
    words = [shlex.split(line, comments=True) for line in joined(text).splitlines()]
    return [line for line in words if line]


def shown(text: str) -> list[tuple[str, ...]]:
    """Tool and arguments of each call of a tool or a benchmark that a page shows."""
    calls = []
    for tool, rest in _SHOWN.findall(joined(text)):
        rest = _PLACEHOLDER.sub("PLACEHOLDER", rest.rstrip(" )&"))
        words = shlex.split(re.split(r" \| |   +\(|   +or  ", rest)[0], comments=True)
        left = (word for word in words if not _LEFT_OUT.search(word))
        calls.append((tool, *(word for word in left if word != "--gin_file=PLACEHOLDER")))
    return calls


def check(words: list[str]) -> None:
    """Fails unless a line of a shell block is a command that can be given.

    Raises:
        AssertionError: The program is none that pages may show.
    """
    program = Path(words[0]).name
    assert program in PROGRAMS, f"{program}: pages show {', '.join(PROGRAMS)} alone"
    PROGRAMS[program](words[1:])


def check_call(tool: str, *arguments: str) -> None:
    """Fails unless a tool exists, knows the flags, and gin the files and bindings.

    Public weights must be in the catalogue. A tool that is only named is only looked for.
    """
    assert (ROOT / tool).exists(), f"there is no {tool}"
    if not set(arguments) - {"--help"}:
        return
    source = (ROOT / tool).read_text(encoding="utf-8")
    if "argparse" in source:
        _check_argparse(tool, arguments)
    else:
        with loaded(ROOT / tool) as module:
            values = parsed(module, arguments)
            _check_gin(values)
            _check_weights(values)


def _check_argparse(tool: str, arguments: tuple[str, ...]) -> None:
    """Parses the arguments by the tool's own parser, and goes no further."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(parser: argparse.ArgumentParser, *_: object) -> None:
        original(parser, list(arguments))
        raise _Parsed

    patch = mock.patch.object(argparse.ArgumentParser, "parse_args", parse_args)
    with loaded(ROOT / tool) as module, patch, pytest.raises(_Parsed):
        module.main()


class _Parsed(Exception):
    """The arguments were parsed."""


def _check_gin(values: Mapping[str, object]) -> None:
    """Reads the gin files and bindings that flags name; recipes that are not named are none."""
    for prefix in ("", "compare_"):
        files = values.get(f"{prefix}gin_file") or (values.get("gin_file") if prefix else [])
        bindings = [*(values.get("gin_param") or ()), *(values.get(f"{prefix}gin_param") or ())]
        if files:
            try:
                configuration.parse(files, bindings)
            finally:
                gin.clear_config()


def _check_weights(values: Mapping[str, object]) -> None:
    """Finds the tags of `--weights` for `--model`; files and `none` are none."""
    models, weights = (_listed(values.get(name)) for name in ("model", "weights"))
    if len(weights) == 1:
        weights *= len(models)
    for model, tag in zip(models, weights, strict=False):
        if tag != "none" and "." not in tag:
            find(resolve_name(model), tag)


def _listed(value: object) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    assert {word for word in words if "=" not in word} <= targets


def _check_pip(words: list[str]) -> None:
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    (wanted,) = (word for word in words if word.startswith(".["))
    extras = set(re.findall(r'^ {4}"(\w+)": \[', setup, re.MULTILINE))
    assert set(wanted[2:-1].split(",")) <= extras | {"dev"}


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "make": _check_make,
    "pip": _check_pip,
    "python": lambda words: check_call(*words),
}
