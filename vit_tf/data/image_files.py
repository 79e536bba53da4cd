"""Image files on disk: what a class-folder tree holds, and whether bytes are a readable image."""

import collections
import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import tensorflow as tf

from vit_tf.suggestions import did_you_mean

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_LISTED = 20

# (offset, signature, format), from each format's specification.
_SIGNATURES = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (8, b"WEBP", "WebP"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIF"),
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (0, b"BM", "BMP"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class ImageRecord:
    """One labelled image that is to be written.

    Attributes:
      filename: Path relative to the source's root, with forward slashes; unique in its split.
        It is stored beside the image and decides the image's place in the shards.
      label: Index into the collection's class names.
      image: Where the encoded image lies, or the encoded bytes themselves.
    """

    filename: str
    label: int
    image: Path | bytes

    def read(self) -> bytes:
        """Returns the encoded image, unchanged."""
        return self.image if isinstance(self.image, bytes) else self.image.read_bytes()


@dataclasses.dataclass(frozen=True)
class ImageCollection:
    """A labelled set of images, not yet read.

    Attributes:
      class_names: One name a label, in label order.
      splits: Records by split name.
      ignored: How many files were passed over, by suffix, because they are no JPEG or PNG.
    """

    class_names: tuple[str, ...]
    splits: dict[str, list[ImageRecord]]
    ignored: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


def list_image_folder(
    root: str | Path, split: str = "train", class_names: Sequence[str] | None = None
) -> ImageCollection:
    """Lists a tree of class folders: `<root>/<class>/*.jpg` or `<root>/<split>/<class>/*.jpg`.

    Args:
      root: The tree's top folder. Names that begin with a dot are passed over.
      split: The split's name where the tree has no split folders.
      class_names: The classes in label order; sorted folder names by default.

    Returns:
      The records of every JPEG and PNG; other files are counted in `ignored`.

    Raises:
      FileNotFoundError: `root` is no folder.
      OSError: a folder in the tree cannot be read.
      ValueError: the tree is empty, images lie outside class folders, or a class is unknown or
        empty.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; give the folder that holds the images")
    ignored: collections.Counter[str] = collections.Counter()
    by_depth: dict[int, list[Path]] = collections.defaultdict(list)
    class_folders: dict[int, set[str]] = collections.defaultdict(set)
    for folder, folders, files in os.walk(root, onerror=_raise, followlinks=True):
        folder = Path(folder)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        depth = len(folder.relative_to(root).parts)
        if depth:
            class_folders[depth].add(folder.name)
        for name in sorted(name for name in files if not name.startswith(".")):
            if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                by_depth[depth].append(folder / name)
            else:
                ignored[Path(name).suffix.lower() or "no suffix"] += 1
    depth = _class_folder_depth(root, by_depth, ignored)
    names = _folder_classes(root, by_depth[depth], class_folders[depth], class_names)
    splits: dict[str, list[ImageRecord]] = {}
    for path in by_depth[depth]:
        relative = path.relative_to(root)
        split_name = split if depth == 1 else relative.parts[0]
        record = ImageRecord(relative.as_posix(), names[path.parent.name], path)
        splits.setdefault(split_name, []).append(record)
    return ImageCollection(tuple(names), splits, ignored)


def _raise(error: OSError) -> None:
    """Makes `os.walk` fail on a folder that it may not read, which it would pass over."""
    raise error


def _class_folder_depth(
    root: Path, by_depth: dict[int, list[Path]], ignored: collections.Counter[str]
) -> int:
    """Returns 1 for `<class>/image`, 2 for `<split>/<class>/image`."""
    layouts = "<class>/<image> or <split>/<class>/<image>"
    if not by_depth:
        found = f"only {describe_ignored(ignored)}" if ignored else "it is empty"
        raise ValueError(f"{root} holds no JPEG or PNG files ({found}); expected {layouts}")
    if set(by_depth) == {0}:
        raise ValueError(
            f"{root} holds {len(by_depth[0])} images but no class folders; expected {layouts}"
        )
    depth = 1 if by_depth.get(1) else 2
    misplaced = [path for other, paths in by_depth.items() if other != depth for path in paths]
    if misplaced:
        listed = list_some(str(path.relative_to(root)) for path in sorted(misplaced))
        raise ValueError(
            f"{root}: {len(misplaced)} images lie outside the class folders; expected {layouts} "
            f"throughout, move or delete these:\n{listed}"
        )
    return depth


def _folder_classes(
    root: Path, paths: list[Path], folders: set[str], class_names: Sequence[str] | None
) -> dict[str, int]:
    """Maps folder names to labels, after checking that every class has images."""
    filled = {path.parent.name for path in paths}
    if empty := sorted(folders - filled):
        raise ValueError(
            f"{root}: class folder {empty[0]!r} holds no JPEG or PNG; fill it or delete it"
        )
    if class_names is not None:
        for name in sorted(filled - set(class_names)):
            raise ValueError(f"{root}: class folder {unknown_class(name, class_names)}")
    return {name: label for label, name in enumerate(class_names or sorted(filled))}


def unknown_class(name: str, class_names: Sequence[str]) -> str:
    """Says that `name` is none of `class_names`, and which of them come closest."""
    hint = did_you_mean(name, class_names) or f" Known: {class_names}"
    return f"{name!r} is not among the {len(class_names)} class names.{hint}"


def describe_ignored(ignored: collections.Counter[str]) -> str:
    """Says how many files of which suffixes were passed over: `3 other files (.csv 1, .txt 2)`."""
    suffixes = ", ".join(f"{suffix} {count}" for suffix, count in sorted(ignored.items()))
    total = ignored.total()
    return f"{total} other {'file' if total == 1 else 'files'} ({suffixes})"


def list_some(lines: Iterable[str]) -> str:
    """Joins up to 20 lines, indented, and says how many more there are."""
    lines = list(lines)
    shown = [f"  {line}" for line in lines[:MAX_LISTED]]
    if len(lines) > MAX_LISTED:
        shown.append(f"  ... and {len(lines) - MAX_LISTED} more")
    return "\n".join(shown)


def image_format(data: bytes) -> str | None:
    """Returns the image format that the first bytes show (`"JPEG"`, `"GIF"`), or None."""
    for offset, signature, name in _SIGNATURES:
        if data[offset : offset + len(signature)] == signature:
            return name
    return None


def image_problem(data: bytes) -> str | None:
    """Says why encoded bytes cannot be trained on, or None where they can.

    The bytes must be a JPEG or PNG by their signature (whatever their name says) and decode in
    full with `tf.io.decode_image`, the decoder that reads the shards later.

    Args:
      data: The encoded image.
    """
    if not data:
        return "is empty (0 bytes); replace it or delete it"
    kind = image_format(data)
    if kind is None and _is_text(data[:512]):
        return "is a text file, not a JPEG or PNG; delete it"
    if kind is None:
        return f"is not a JPEG or PNG (begins with bytes {data[:4].hex(' ')}); delete it"
    if kind not in ("JPEG", "PNG"):
        article = "an" if kind[0] in "AH" else "a"
        return f"is {article} {kind}, not a JPEG or PNG; convert it or delete it"
    try:
        tf.io.decode_image(data, channels=3, expand_animations=False)
    except tf.errors.InvalidArgumentError:
        return f"truncated or corrupt {kind}; replace it or delete it"
    return None


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode("utf-8", errors="strict" if len(start) < 512 else "ignore")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)
