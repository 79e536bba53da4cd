"""scikit-learn's bundled handwritten digits: 1,797 real images that need no network."""

import numpy as np
import tensorflow as tf

from vit_tf.data.image_files import ImageCollection, ImageRecord


def digits_collection() -> ImageCollection:
    """Returns the digits as 8x8 greyscale PNGs, 1,437 for training and 360 for testing.

    The pixels' 0..16 become 0..255. The split is scikit-learn's usual 80/20, stratified by class
    and the same every time. The images are the test part of UCI's "Optical Recognition of
    Handwritten Digits" (Alpaydin and Kaynak, 1998).

    Raises:
      ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError(
            "the digits come with scikit-learn; install it: pip install 'vit_tf[quickstart]'"
        ) from error
    images, labels = load_digits(return_X_y=True)
    images = np.round(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels
    )

    def records(indices: np.ndarray) -> list[ImageRecord]:
        return [
            ImageRecord(f"digit-{index:04d}.png", int(labels[index]), _encode_png(images[index]))
            for index in sorted(indices)
        ]

    return ImageCollection(
        class_names=tuple("0123456789"), splits={"train": records(train), "test": records(test)}
    )


def _encode_png(image: np.ndarray) -> bytes:
    return tf.io.encode_png(image).numpy()
