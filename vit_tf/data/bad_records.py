"""Says in words what is wrong with a record that could not be turned into an example."""

import re

import tensorflow as tf
from google.protobuf import message

from vit_tf.data.decode import MAX_PIXELS, decode_image, is_misnamed_gif
from vit_tf.data.sources import Source

_FORMATS = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"RIFF": "WebP",
}
_REQUIRED = "StringToNumberOp could not correctly convert string: "
_END_MARKS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}


def describe(source: Source, index: int, serialized: bytes, error: Exception) -> str:
    """What is wrong with a record.

    Args:
      source: the source that the record came from.
      index: the record's, in that source.
      serialized: the record.
      error: what preprocessing it raised; its words are used where nothing better is found.
    """
    if not serialized:
        return "the record is empty or missing (the file ends before it)"
    try:
        parsed = source.parse(tf.constant(serialized), index)
    except tf.errors.OpError:
        return _describe_unparsed(source, serialized)
    labels, encoded = parsed["label"].numpy().reshape(-1), parsed["image"].numpy()
    filename = parsed["filename"].numpy().decode(errors="replace")
    for label in labels[(labels < 0) | (labels >= source.num_classes)]:
        return f"label {label} is outside 0..{source.num_classes - 1}"
    under_name = f" ({filename})" if filename else ""
    if is_misnamed_gif(parsed["image"], parsed["filename"]):
        return f"a GIF under the name {filename}"
    if problem := _describe_image(encoded):
        return problem + under_name
    return _own_words(error) + under_name


def _describe_unparsed(source: Source, serialized: bytes) -> str:
    try:
        present = tf.train.Example.FromString(serialized).features.feature
    except message.DecodeError:
        return "not a tf.train.Example"
    found = ", ".join(f"{key} ({present[key].WhichOneof('kind')})" for key in sorted(present))
    of_label = "int64_list" if source.multi_label else "one int64_list"
    wanted = f"{source.features['image']} (one bytes_list), {source.features['label']} ({of_label})"
    label = present.get(source.features["label"])
    several = label and len(label.int64_list.value) > 1 and not source.multi_label
    hint = f"; {len(label.int64_list.value)} labels need multi_label = True" if several else ""
    return f"features do not fit: needs {wanted}, has {found or 'none'}{hint}"


def _describe_image(encoded: bytes) -> str | None:
    """What is wrong with encoded bytes, or None if they decode."""
    size = len(encoded)
    if not size:
        return "the image is empty"
    found = next((name for magic, name in _FORMATS.items() if encoded.startswith(magic)), None)
    if found is None:
        if _is_text(encoded):
            return f"not an image: text beginning {encoded[:40].decode()!r}"
        return f"not a JPEG, PNG, WebP, BMP or GIF: {size} bytes beginning 0x{encoded[:8].hex()}"
    try:
        decode_image(tf.constant(encoded))
    except tf.errors.OpError as error:
        if _REQUIRED in str(error):
            return _own_words(error)
        if found == "JPEG" and (claim := _refused_size(encoded)):
            return claim
        end_mark = _END_MARKS.get(found)
        if end_mark and end_mark not in encoded[-16:]:
            return f"truncated {found} ({size} bytes, no end-of-image marker)"
        return f"corrupt {found} ({size} bytes)"
    return None


def _refused_size(encoded: bytes) -> str | None:
    """What TensorFlow's JPEG decoder does not say: that it refuses a size."""
    try:
        height, width, _ = tf.io.extract_jpeg_shape(encoded).numpy().tolist()
    except tf.errors.OpError:
        return None
    if height * width <= MAX_PIXELS:
        return None
    return f"the header claims {height}x{width} pixels, more than max_pixels={MAX_PIXELS}"


def _own_words(error: Exception) -> str:
    """A message without TensorFlow's words around it: names of nodes, and how `require` fails."""
    required = re.search(rf"{_REQUIRED}(.*)", str(error))
    text = required[1] if required else str(error).split("\n")[0]
    return re.sub(r"^\{\{.*?\}\} |\s*\[(Op:|\[).*", "", text)


def _is_text(encoded: bytes) -> bool:
    try:
        return encoded[:200].decode("ascii").isprintable() or encoded[:200].decode().split() != []
    except UnicodeDecodeError:
        return False
