"""Logits and every named intermediate agree with the reference implementations."""

import golden
import numpy as np
import pytest

from vit_tf.models import extract_features

CASES = [
    "vision_transformer/vit_token",
    "vision_transformer/vit_token_prelogits",
    "vision_transformer/vit_gap",
    "big_vision/vit_tok_rep",
    "big_vision/vit_map",
    "big_vision/vit_gap_sincos2d_rep",
    "big_vision/vit_gap_bf16",
    "big_vision/vit_gap_scan",
]


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_reference(shared, case):
    model, stored, meta = golden.load_case(shared / "golden" / case)
    images = stored.pop("image")
    tolerance = meta["tolerance"]["atol"]

    assert model.count_params() == meta["parameter_count"]
    features = extract_features(model, images, stored)
    assert set(features) == set(stored)
    for name, expected in stored.items():
        difference = np.abs(np.asarray(features[name]) - expected).max()
        bound = tolerance["other_keys_times_max_abs_of_the_key"] * np.abs(expected).max()
        if name.endswith("logits"):
            bound = tolerance["logits"]
        assert features[name].shape == expected.shape, name
        assert difference <= bound, f"{name}: {difference} > {bound}"
    np.testing.assert_array_equal(model(images), features["logits"])
