"""Data sets as a command line names them: `flowers=data/flowers5:train:test`."""

import dataclasses
import os
import re

_SPLIT = r"[^\W\d]\w*(?:\[[^\[\]]*\])?"
_SPLITS = rf"{_SPLIT}(?:\+{_SPLIT})*"
# The name is free of what paths hold; the folder may hold colons, as gs://bucket does.
_PATTERN = re.compile(rf"(?:([^=/\\:\[]+)=)?(.+?)((?::{_SPLITS})*)")


@dataclasses.dataclass(frozen=True)
class NamedData:
    """A data set and splits of it.

    Args:
      name: what tables call it.
      data_dir: folder of the data set, see `TFDSSource`.
      splits: TFDS split expressions, in the order in which a tool asks for them.
    """

    name: str
    data_dir: str
    splits: tuple[str, ...]


def parse_data(text: str, defaults: tuple[str, ...] = ("test",)) -> NamedData:
    """Reads `[NAME=]DATA_DIR[:SPLIT ...]`.

    Args:
      text: such as `"cifar10=data/cifar10:train[:98%]:test"`. The name is by default that of the
        data set's folder, without the folder of its version.
      defaults: the splits that a tool needs, taken where the text names none.

    Returns:
      The data set, with as many splits as `defaults` has.

    Raises:
      ValueError: for another form, or another number of splits.
    """
    match = _PATTERN.fullmatch(text.strip())
    form = f"NAME=DATA_DIR{''.join(f':{split}' for split in defaults)}"
    if not match:
        raise ValueError(f"a data set is written {form}; given {text!r}")
    name, folder, named = match.groups()
    splits = tuple(re.findall(rf":({_SPLITS})", named))  # not at the colons in brackets
    if splits and len(splits) != len(defaults):
        raise ValueError(
            f"a data set is written {form}, with {len(defaults)} split"
            f"{'s' * (len(defaults) != 1)} or none; given {text!r} with {', '.join(splits)}"
        )
    return NamedData(name or _name_of(folder), folder, splits or defaults)


def _name_of(folder: str) -> str:
    parts = [part for part in os.path.normpath(folder).split(os.sep) if part]
    while len(parts) > 1 and re.fullmatch(r"\d+\.\d+\.\d+", parts[-1]):
        parts.pop()
    return parts[-1] if parts else folder
