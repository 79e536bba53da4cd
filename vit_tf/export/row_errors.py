"""Work on the rows of a batch of which some fail: those are told by a sentence, the others served.

TensorFlow has no exceptions within a graph, but `tf.data` passes over elements that fail; so each
row is one element of a small dataset.
"""

from collections.abc import Callable

import tensorflow as tf

from vit_tf.data.decode import MAX_PIXELS, decode_image, if_jpeg, without_calls
from vit_tf.data.image_head import ImageHead

_EXAMPLE_FEATURE = "image/encoded"


def map_rows(
    function: Callable[[tf.Tensor], tf.Tensor], rows: tf.Tensor, result: tf.TensorSpec
) -> tuple[tf.Tensor, tf.Tensor]:
    """Like `tf.map_fn`, in parallel, but a row for which the function fails costs only itself.

    Args:
      function: of a row.
      rows: [batch, ...], any batch size.
      result: what the function returns; the shape is fully known.

    Returns:
      The results [batch, ...], zeros (`""` of strings) for rows that failed, and which rows those
      are, bool [batch].
    """
    count = tf.shape(rows, tf.int64)[0]
    results = tf.data.Dataset.from_tensor_slices((tf.range(count), rows)).map(
        lambda index, row: (index, tf.ensure_shape(function(row), result.shape)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    # A last result that is always there stands for all that are missing.
    missing = tf.data.Dataset.from_tensors((count, tf.zeros(result.shape, result.dtype)))
    results = results.ignore_errors().concatenate(missing)
    indices, values = results.batch(count + 1).get_single_element()
    read = tf.size(indices, tf.int64) - 1
    places = tf.tensor_scatter_nd_update(
        tf.fill([count + 1], read), indices[:, None], tf.range(read + 1)
    )[:count]
    # The first rows are no copy, unlike gathered ones.
    values = tf.cond(read == count, lambda: values[:count], lambda: tf.gather(values, places))
    return tf.ensure_shape(values, [None, *result.shape]), places == read


def blank_failed(
    outputs: dict[str, tf.Tensor], failed: tf.Tensor, describe: Callable[[], tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Adds `"error"`, and blanks the rows that have one.

    Where no row failed, as mostly, this costs next to nothing.

    Args:
      outputs: tensors [batch, ...] by name.
      failed: which rows did, bool [batch].
      describe: gives a sentence for each of these, [failed rows].

    Returns:
      The outputs, with zeros, ids -1 and names `""` in failed rows, and `"error"`, string [batch],
      `""` in all others.
    """
    nothing = tf.fill(tf.shape(failed), "")

    @tf.function(autograph=False, experimental_attributes={"_noinline": True})
    def blanked() -> dict[str, tf.Tensor]:
        changed = {name: _blank(values, failed) for name, values in outputs.items()}
        error = tf.tensor_scatter_nd_update(nothing, tf.where(failed), describe())
        return {**changed, "error": error}

    return tf.cond(tf.reduce_any(failed), blanked, lambda: {**outputs, "error": nothing})


def describe_images(encoded: tf.Tensor, preprocess: str) -> tf.Tensor:
    """Says why images could not be read.

    Args:
      encoded: string [count], each of which failed.
      preprocess: what did.

    Returns:
      A sentence each, string [count].
    """
    shape = tf.TensorSpec([3], tf.int32)
    with without_calls():
        decoded, _ = map_rows(lambda image: tf.shape(decode_image(image)), encoded, shape)
    jpeg, _ = map_rows(_jpeg_shape, encoded, shape)
    return tf.map_fn(
        lambda row: _describe_image(*row, preprocess),
        (encoded, decoded, jpeg),
        fn_output_signature=tf.TensorSpec([], tf.string),
    )


def encoded_example(image: bytes) -> bytes:
    """A serialized `tf.train.Example` with an encoded image, as `parse_example` reads it."""
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
    features = tf.train.Features(feature={_EXAMPLE_FEATURE: feature})
    return tf.train.Example(features=features).SerializeToString()


def parse_example(serialized: tf.Tensor) -> tf.Tensor:
    """The encoded image of a serialized `tf.train.Example`; fails where there is not just one."""
    feature = {_EXAMPLE_FEATURE: tf.io.FixedLenFeature([], tf.string)}
    return tf.io.parse_single_example(serialized, feature)[_EXAMPLE_FEATURE]


def describe_examples(
    serialized: tf.Tensor, unparsed: tf.Tensor, image_problem: tf.Tensor
) -> tf.Tensor:
    """Says why serialized examples could not be read: `image_problem`, or that there is no image.

    Args:
      serialized: string [count], each of which failed.
      unparsed: for which of them `parse_example` did, bool [count].
      image_problem: what is wrong with the image of the others, string [count].

    Returns:
      A sentence each, string [count].
    """
    wanted = tf.constant(f"not a tf.train.Example with one bytes value as {_EXAMPLE_FEATURE}")
    sentence = tf.strings.join([wanted, _bytes_of(serialized)])
    return tf.where(unparsed, sentence, image_problem)


def _blank(values: tf.Tensor, failed: tf.Tensor) -> tf.Tensor:
    blank = "" if values.dtype == tf.string else -1 if values.dtype.is_integer else 0
    failed = tf.reshape(failed, [-1] + [1] * (values.shape.rank - 1))
    return tf.where(failed, tf.constant(blank, values.dtype), values)


def _jpeg_shape(encoded: tf.Tensor) -> tf.Tensor:
    """Height, width and channels in a JPEG's header; zeros for other formats."""
    nothing = tf.zeros([3], tf.int32)
    return if_jpeg(encoded, lambda: tf.io.extract_jpeg_shape(encoded), lambda other: nothing)


def _describe_image(
    encoded: tf.Tensor, decoded: tf.Tensor, jpeg: tf.Tensor, preprocess: str
) -> tf.Tensor:
    """Why an image failed, given its shape if it can be decoded, and what a JPEG's header says."""
    head = ImageHead(encoded)
    is_jpeg = tf.strings.substr(encoded, 0, 2) == b"\xff\xd8"
    is_known = tf.stack([is_jpeg, head.is_png, head.is_webp, head.is_gif, head.is_bmp])
    formats = tf.constant(["JPEG", "PNG", "WebP", "GIF", "BMP"])
    found = tf.gather(formats, tf.argmax(is_known))
    size = tf.where(is_jpeg, tf.cast(jpeg[:2], tf.int64), tf.stack([head.height, head.width]))
    cases = [  # the first that holds is said
        (
            tf.reduce_prod(decoded) > 0,
            ["an image of ", _by(decoded[:2]), f" pixels, which does not go through {preprocess}"],
        ),
        (tf.strings.length(encoded) == 0, ["the image is empty"]),
        (
            ~tf.reduce_any(is_known),
            ["not a JPEG, PNG, WebP, GIF or BMP", _bytes_of(encoded)],
        ),
        (
            tf.reduce_prod(size) > MAX_PIXELS,
            ["the header claims ", _by(size), f" pixels, more than {MAX_PIXELS}"],
        ),
        (head.is_webp & ~head.is_still_webp, ["an animated WebP; one frame of it can be read"]),
        (head.is_bmp & ~head.is_plain_bmp, ["a BMP that is not uncompressed and 24- or 32-bit"]),
        (tf.constant(True), ["damaged or truncated ", found, _bytes_of(encoded)]),
    ]
    first = tf.argmax(tf.stack([holds for holds, _ in cases]))
    return tf.gather([tf.strings.join(sentence) for _, sentence in cases], first)


def _by(size: tf.Tensor) -> tf.Tensor:
    """Height and width as text."""
    return tf.strings.reduce_join(tf.strings.as_string(size), separator="x")


def _bytes_of(encoded: tf.Tensor) -> tf.Tensor:
    count = tf.strings.as_string(tf.strings.length(encoded))
    return tf.strings.join([" (", count, " bytes)"])
