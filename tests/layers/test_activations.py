"""Activations by name."""

import math

import numpy as np
import pytest

from vit_tf.layers import get_activation


def test_both_forms_of_gelu_and_quick_gelu():
    x = 1.5
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    expected = {
        "gelu": 0.5 * x * (1 + math.erf(x / math.sqrt(2))),
        "gelu_tanh": 0.5 * x * (1 + math.tanh(inner)),
        "quick_gelu": x / (1 + math.exp(-1.702 * x)),
    }
    for name, value in expected.items():
        assert float(get_activation(name)(np.float32(x))) == pytest.approx(value, abs=2e-6)


def test_misspelt_activation_answers_with_the_closest():
    with pytest.raises(
        ValueError, match=r"Unknown activation 'gelu_tahn'. Did you mean 'gelu_tanh'"
    ):
        get_activation("gelu_tahn")
