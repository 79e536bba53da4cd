"""Images through a function, batch by batch."""

import numpy as np
import pytest
import tensorflow as tf

from vit_tf.analysis.in_batches import in_batches

IMAGES = np.random.default_rng(0).normal(size=(7, 2, 2, 3)).astype(np.float32)


def summary(images):
    return {"mean": tf.reduce_mean(images, axis=(1, 2)), "square": images**2}


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_the_batch_size_does_not_matter(batch_size):
    found = in_batches(summary, IMAGES, batch_size)
    assert set(found) == {"mean", "square"}
    np.testing.assert_allclose(found["mean"], IMAGES.mean(axis=(1, 2)), atol=1e-6)
    np.testing.assert_allclose(found["square"], IMAGES**2, atol=1e-6)


def test_it_is_traced_once_and_never_sees_more_than_a_batch():
    seen = []

    def traced(images):
        seen.append(images.shape)
        return {"images": images}

    in_batches(traced, IMAGES, 3)
    assert seen == [(3, 2, 2, 3)]


def test_progress_is_told_of_every_batch():
    batches = []

    def progress(firsts):
        for first in firsts:
            batches.append((first, len(firsts)))
            yield first

    in_batches(summary, IMAGES, 3, progress)
    assert batches == [(0, 3), (3, 3), (6, 3)]


def test_nothing_to_do_is_an_error():
    with pytest.raises(ValueError, match="given 0 images and batch_size=8"):
        in_batches(summary, IMAGES[:0])
    with pytest.raises(ValueError, match="given 7 images and batch_size=0"):
        in_batches(summary, IMAGES, 0)
