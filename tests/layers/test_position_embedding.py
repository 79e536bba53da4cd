"""Fixed sine/cosine positions."""

import numpy as np
import pytest

from vit_tf.layers import SinCos2DPositionEmbedding, sincos2d


def test_first_half_encodes_columns_and_second_half_rows():
    table = sincos2d((2, 3), 8).reshape(2, 3, 8)
    frequencies = np.array([1, 1 / 10_000])
    for row in range(2):
        for column in range(3):
            x, y = column * frequencies, row * frequencies
            expected = np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)])
            np.testing.assert_allclose(table[row, column], expected, atol=1e-6)


def test_smallest_width_is_finite():
    assert np.isfinite(sincos2d((3, 3), 4)).all()


def test_width_that_is_no_multiple_of_four_is_an_error():
    with pytest.raises(ValueError, match="multiple of 4, got 10; the nearest are 8 and 12"):
        sincos2d((2, 2), 10)


def test_class_token_has_no_position_and_nothing_is_a_weight():
    layer = SinCos2DPositionEmbedding((2, 3))
    outputs = np.asarray(layer(np.zeros((1, 7, 8), np.float32)))[0]
    np.testing.assert_array_equal(outputs[0], np.zeros(8))
    np.testing.assert_array_equal(outputs[1:], sincos2d((2, 3), 8))
    assert layer.weights == []


def test_grid_larger_than_the_sequence_is_an_error():
    with pytest.raises(ValueError, match=r"grid of \(2, 3\) patches does not fit 5 tokens"):
        SinCos2DPositionEmbedding((2, 3)).build((None, 5, 8))
