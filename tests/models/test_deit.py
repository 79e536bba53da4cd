"""DeiT: two tokens and two heads, the defaults of the paper, DeiT-III."""

import numpy as np
import pytest

from vit_tf.layers import StochasticDepth
from vit_tf.models import create_model, extract_features, list_models, without_allocation

TINY = {
    "image_size": 16,
    "patch_size": 8,
    "width": 16,
    "depth": 3,
    "num_heads": 2,
    "mlp_dim": 24,
    "num_classes": 5,
}
IMAGES = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def distilled():
    model = create_model("deit_distilled", **TINY)
    random = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(random.normal(scale=0.3, size=weight.shape))
    return model


@pytest.mark.parametrize("name", list_models("deit*"))
@pytest.mark.parametrize("size", [(224, 224), (384, 384), (96, 160)])
def test_published_variants_have_their_tokens_and_outputs(name, size):
    if name == "deit3_h14":
        size = tuple(side // 16 * 14 for side in size)

    def facts():
        model = create_model(name, image_size=size, depth=1)
        return model.grid_size, model.positions.table.shape, model.compute_output_shape((2, *size))

    grid, positions, logits = without_allocation(facts)
    patch = 14 if name == "deit3_h14" else 16
    assert grid == (size[0] // patch, size[1] // patch)
    slots = 0 if "deit3" in name else 2 if "distilled" in name else 1
    assert positions == (1, grid[0] * grid[1] + slots, positions[-1])
    assert logits == (2, 1000)


@pytest.mark.parametrize(
    ("notation", "name"),
    [
        ("DeiT-Ti", "deit_ti16"),
        ("DeiT-B", "deit_b16"),
        ("DeiT-S-distilled", "deit_s16_distilled"),
        ("DeiT-III-H", "deit3_h14"),
    ],
)
def test_notations(notation, name):
    assert without_allocation(lambda: create_model(notation).variant) == name


class TestDistilled:
    def test_inference_answers_the_mean_of_what_training_returns(self, distilled):
        logits_class, logits_dist = distilled(IMAGES, training=True)
        assert not np.allclose(logits_class, logits_dist)
        np.testing.assert_allclose(
            distilled(IMAGES), (logits_class + logits_dist) / 2, rtol=1e-5, atol=1e-6
        )

    def test_class_token_comes_first_and_the_distillation_token_second(self, distilled):
        names = ["tokens", "encoded", "pre_logits", "pre_logits_dist", "logits_dist"]
        features = extract_features(distilled, IMAGES, names)
        table = np.asarray(distilled.positions.table)
        for row, token in enumerate((distilled.class_token, distilled.distillation_token)):
            expected = np.asarray(token.token)[0, 0] + table[0, row]
            np.testing.assert_allclose(features["tokens"][0, row], expected, rtol=1e-6)
        np.testing.assert_array_equal(features["pre_logits"], features["encoded"][:, 0])
        np.testing.assert_array_equal(features["pre_logits_dist"], features["encoded"][:, 1])
        np.testing.assert_allclose(
            features["logits_dist"], distilled.head_dist(features["pre_logits_dist"]), atol=1e-6
        )

    def test_backbone_returns_the_mean_of_both_vectors(self):
        model = create_model("deit_distilled", **{**TINY, "num_classes": 0})
        features = extract_features(model, IMAGES, ["pre_logits", "pre_logits_dist"])
        mean = (features["pre_logits"] + features["pre_logits_dist"]) / 2
        np.testing.assert_array_equal(model(IMAGES), mean)
        np.testing.assert_array_equal(model(IMAGES, training=True), mean)

    def test_reset_head_replaces_both(self):
        model = create_model("deit_distilled", **TINY)
        model.reset_head(7)
        assert [output.shape for output in model(IMAGES, training=True)] == [(3, 7), (3, 7)]
        model.reset_head(0)
        assert model.head is None
        assert model.head_dist is None

    def test_registers_stand_behind_both_tokens(self):
        model = create_model("deit_distilled", **TINY, num_registers=3)
        model.registers.registers.assign(np.full((1, 3, 16), 9.0))
        tokens = extract_features(model, IMAGES, ["tokens"])["tokens"]
        np.testing.assert_array_equal(tokens[:, 2:5], np.full((3, 3, 16), 9))

    def test_pool_is_no_choice(self):
        with pytest.raises(TypeError, match="'deit_distilled' has no parameter 'pool'"):
            create_model("deit_distilled", **TINY, pool="gap")


class TestDefaults:
    @pytest.mark.parametrize("name", ["deit", "deit_distilled", "deit3"])
    def test_input_is_normalised_as_imagenet(self, name):
        facts = create_model(name, **TINY).preprocessing
        assert facts.mean == (0.485, 0.456, 0.406)
        assert facts.std == (0.229, 0.224, 0.225)
        assert facts.interpolation == "bicubic" and facts.antialias
        assert facts.crop_ratio == (1.0 if name == "deit3" else 0.875)

    @pytest.mark.parametrize(("name", "ratio"), [("deit_b16", "0.875"), ("deit3_b16", "1.0")])
    def test_published_preprocessing_keeps_the_aspect_and_crops(self, name, ratio):
        ops = without_allocation(lambda: create_model(name).preprocessing.ops)
        assert ops.startswith(f"decode|crop_ratio(224, {ratio})|standardize(")

    def test_layer_scale_of_deit3_starts_at_1e_4(self):
        for block in create_model("deit3", **TINY).blocks:
            np.testing.assert_allclose(block.mlp_scale.gamma, np.full(16, 1e-4))

    @pytest.mark.parametrize(
        ("name", "rates"), [("deit", [0, 0.2, 0.4]), ("deit3", [0.4, 0.4, 0.4])]
    )
    def test_stochastic_depth_grows_in_deit_and_is_constant_in_deit3(self, name, rates):
        model = create_model(name, **TINY, stochastic_depth=0.4)
        for branch in ("attention_depth", "mlp_depth"):
            layers = [getattr(block, branch) for block in model.blocks]
            assert all(isinstance(layer, StochasticDepth) for layer in layers)
            np.testing.assert_allclose([layer.rate for layer in layers], rates)

    def test_heads_start_small_and_not_at_zero(self):
        model = create_model("deit_distilled", **{**TINY, "num_classes": 500})
        for head in (model.head, model.head_dist):
            np.testing.assert_allclose(np.std(head.kernel), 0.02, rtol=0.1)
            assert not np.any(head.bias)

    def test_schedule_of_another_name_is_refused(self):
        with pytest.raises(ValueError, match="='cosine' is not one of 'linear', 'constant'"):
            create_model("deit", **TINY, stochastic_depth_schedule="cosine")
