"""The fenced blocks of a Markdown page, each with the note that stands above it.

A note is a comment, invisible to readers: `<!-- run -->` for blocks that are executed as they
stand, `<!-- after FILE -->` for gin that is given after a file, `<!-- file NAME -->` for a file
that later commands name.
"""

import dataclasses
import re
from pathlib import Path

_FENCED = re.compile(
    r"^(?:<!-- (?P<note>.*?) -->\n)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block.

    Args:
        language: What stands behind the opening fence, or "".
        text: What stands between the fences.
        verb: First word of the note, or "".
        subject: The rest of the note.
        line: Of the page, from 1, where the text begins.
    """

    language: str
    text: str
    verb: str
    subject: str
    line: int


def blocks(page: Path) -> list[Block]:
    """Returns the fenced blocks of a page in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            found["language"],
            found["text"],
            *(found["note"] or "").partition(" ")[::2],
            line=text.count("\n", 0, found.start("text")) + 1,
        )
        for found in _FENCED.finditer(text)
    ]
