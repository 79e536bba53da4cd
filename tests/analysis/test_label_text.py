"""Labels in words."""

import numpy as np

from vit_tf.analysis.label_text import label_set, label_text

NAMES = ["ant", "bee", "cat", "dog"]


def test_a_number_is_one_class():
    assert label_set(np.int32(2)) == [2] and label_text(2, NAMES) == "cat"


def test_a_vector_names_its_set():
    assert label_text(np.array([1.0, 0, 1, 0]), NAMES) == "ant | cat"
    assert label_text(np.array([0.01, 0.9, 0.01, 0.01]), NAMES) == "bee"
    assert label_text(np.zeros(4), NAMES) == "no label"


def test_long_sets_are_cut():
    assert label_text(np.ones(4), NAMES, most=2) == "ant | bee | 2 more"
