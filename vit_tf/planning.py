"""Planning a run: the files that a configuration names are looked for, and not needed.

Sources of data and functions that load weights ask here whether anybody plans. If so, they note
whether their files are there and make do without them. Every room may import this one file; it
imports none.
"""

import contextlib
import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class NamedFile:
    """A file or folder that a configuration names.

    Attributes:
      role: what it is for, such as `"data"` or `"weights"`.
      name: path, or what else it is called.
      problem: what is missing and how to get it; None if all is there.
    """

    role: str
    name: str
    problem: str | None = None


# The list of the plan that is being made, if any; plans are made one at a time.
_noted: list[NamedFile] | None = None


@contextlib.contextmanager
def planning() -> Iterator[list[NamedFile]]:
    """Within it nothing is loaded or downloaded; yields the list that named files are noted in."""
    global _noted
    before, _noted = _noted, []
    try:
        yield _noted
    finally:
        _noted = before


def is_planned() -> bool:
    """Whether files are to be noted instead of read."""
    return _noted is not None


def note(role: str, name: str, problem: str | None = None) -> None:
    """Notes a file while a run is planned, each once; otherwise does nothing."""
    named = NamedFile(role, str(name), problem)
    if _noted is not None and named not in _noted:
        _noted.append(named)
