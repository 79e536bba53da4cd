"""FLOPs counted in the traced graph."""

import keras
import pytest
import tensorflow as tf

from vit_tf.analysis.flops import count_flops
from vit_tf.models import Preprocessing, create_model, without_allocation


@pytest.fixture(scope="module")
def tiny():
    return create_model("vit_mu16", image_size=64, channels=1)


class Wrapped(keras.Model):
    """A model whose forward pass is any function of images [1, 4, 4, 2]."""

    preprocessing = Preprocessing((4, 4), channels=2)

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, images, training=None):
        return self.function(images)


# Scaling ViT, table 2, and the sizes' usual figures: 10^9 multiply-adds at 224 pixels.
@pytest.mark.parametrize(
    ("name", "giga_multiply_adds"),
    [("vit_ti16", 1.26), ("vit_s16", 4.6), ("vit_b16", 17.6), ("vit_g14", 533.1 / 2)],
)
def test_published_sizes_have_their_published_cost(name, giga_multiply_adds):
    flops = without_allocation(lambda: count_flops(create_model(name)))
    assert flops == pytest.approx(2e9 * giga_multiply_adds, rel=0.01)


def test_count_is_exact(tiny):
    width, mlp_dim, patches, classes = 32, 128, 16, 1000
    embedding = patches * 16 * 16 * width
    attention = patches * 4 * width**2 + 2 * patches**2 * width
    mlp = patches * 2 * width * mlp_dim
    probe = width**2 + patches * 2 * width**2 + 2 * patches * width + width**2
    head = probe + 2 * width * mlp_dim + width * classes
    assert count_flops(tiny) == 2 * (embedding + attention + mlp + head)


def test_another_image_size_is_counted_without_another_model(tiny):
    assert count_flops(tiny, 32) == count_flops(create_model("vit_mu16", image_size=32, channels=1))
    assert count_flops(tiny, (32, 64)) < count_flops(tiny, 64) == count_flops(tiny)


def test_functions_that_the_graph_calls_are_counted():
    product = tf.function(lambda x: tf.matmul(x, tf.ones((2, 5))))
    assert count_flops(Wrapped(lambda images: product(images) + product(images))) == 2 * 2 * 16 * 10


def test_convolutions_and_einsums_are_counted():
    kernel = tf.ones((3, 3, 2, 7))
    assert count_flops(Wrapped(lambda x: tf.nn.conv2d(x, kernel, 1, "SAME"))) == 2 * 16 * 9 * 2 * 7
    depthwise = tf.ones((3, 3, 2, 1))
    flops = count_flops(Wrapped(lambda x: tf.nn.depthwise_conv2d(x, depthwise, [1] * 4, "SAME")))
    assert flops == 2 * 16 * 9 * 2
    product = tf.ones((2, 5))
    assert count_flops(Wrapped(lambda x: tf.einsum("bhwc,cd->bhwd", x, product))) == 2 * 16 * 10


def test_loop_is_an_error():
    def turn(images):
        return tf.while_loop(lambda x: tf.reduce_sum(x) > 0, lambda x: x - 1, [images])[0]

    with pytest.raises(ValueError, match=r"FLOPs of the loop .* are unknown"):
        count_flops(Wrapped(turn))


def test_nothing_is_printed(tiny, capfd):
    count_flops(tiny)
    assert capfd.readouterr() == ("", "")
