"""Many results of one random op, in one graph."""

import numpy as np
import tensorflow as tf

from vit_tf.data.op_registry import get_op


def run_many(op: str, *args, image: np.ndarray, seeds: int = 200, **kwargs) -> np.ndarray:
    """What the op makes of the image with seeds [5, 0], [5, 1], ...: `[seeds, ...]`."""
    function = get_op(op).make(*args, **kwargs)

    @tf.function(autograph=False)
    def run(seed):
        return function({"image": tf.constant(image), "seed": seed})["image"]

    dataset = tf.data.Dataset.range(seeds).map(lambda i: run(tf.stack([5, i])))
    return next(dataset.batch(seeds).as_numpy_iterator())
