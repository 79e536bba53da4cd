"""What holds for every family alike: shapes, policies, saving, XLA, gradients, freezing, heads."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_tf.models import create_model, extract_features

BODY = {"image_size": 16, "width": 16, "depth": 2, "num_classes": 5}
VIT = {**BODY, "num_heads": 2, "mlp_dim": 24}
PATCHES = {**VIT, "patch_size": 8}
MIXER = {**BODY, "patch_size": 8, "tokens_mlp_dim": 6, "channels_mlp_dim": 24}
RESNET = {"resnet_width_factor": 0.5, "image_size": 32, "num_classes": 5}
HYBRID = {**VIT, **RESNET, "depth": 2}
CVT = {"image_size": 16, "width": (8, 12), "depth": 2, "num_heads": (1, 2), "num_classes": 5}
LEVIT = {"image_size": 32, "width": (8, 12), "depth": (1, 2), "num_heads": (2, 1), "key_dim": 4}
LEVIT |= {"stem_widths": (2, 4, 8), "num_classes": 5}
CMT = {**CVT, "image_size": 24, "stem_width": 4, "key_value_reduction": (2, 1)}
FAMILIES = {
    "vit": ("vit", PATCHES),
    "hybrid": ("hybrid", {**HYBRID, "resnet_stages": (2, 1)}),
    "bit": ("bit", {**RESNET, "resnet_stages": (2, 1)}),
    "deit": ("deit", PATCHES),
    "deit_distilled": ("deit_distilled", PATCHES),
    "deit3": ("deit3", PATCHES),
    "mixer": ("mixer", MIXER),
    "vit_c": ("vit_c", {**VIT, "stem_widths": (4, 4, 6, 8)}),
    "flexivit": ("flexivit", {**PATCHES, "position_grid_size": 3}),
    "dynamic_vit": ("dynamic_vit", {**PATCHES, "pruning_blocks": (1,), "keep_ratios": (0.5,)}),
    "cct": ("cct", {**VIT, "tokenizer_layers": 2, "stochastic_depth": 0.0}),
    "compact_vit": ("compact_vit", {**PATCHES, "stochastic_depth": 0.0}),
    "vit_lite": ("vit_lite", {**PATCHES, "stochastic_depth": 0.0}),
    "cvt": ("cvt", CVT),
    "cmt": ("cmt", CMT),
    "levit": ("levit", LEVIT),
}
WIDE = {"image_size": (16, 24)}
VARIATIONS = {
    **FAMILIES,
    "vit, gap, representation": (
        "vit",
        {**PATCHES, "pool": "gap", "representation_size": 12},
    ),
    "vit, map, registers": ("vit", {**PATCHES, "pool": "map", "num_registers": 2}),
    "vit, all patches": ("vit", {**PATCHES, "pool": "none"}),
    "vit, position before class token": (
        "vit",
        {**PATCHES, "position_includes_class_token": False},
    ),
    "vit, sincos2d, registers": (
        "vit",
        {**PATCHES, "position_embedding": "sincos2d", "num_registers": 3},
    ),
    "vit, no position, layer scale": (
        "vit",
        {**PATCHES, "position_embedding": "none", "layer_scale_init": 0.1},
    ),
    "vit, non-square": (
        "vit",
        {**PATCHES, "image_size": (16, 24), "patch_size": (8, 4), "activation": "gelu"},
    ),
    "vit, no head": ("vit", {**PATCHES, "num_classes": 0}),
    "vit, grey": ("vit", {**PATCHES, "channels": 1}),
    "hybrid, root only": ("hybrid", {**HYBRID, "resnet_stages": (), "patch_size": (4, 2)}),
    "hybrid, non-square, gap": (
        "hybrid",
        {**HYBRID, "resnet_stages": (1,), "image_size": (32, 45), "pool": "gap"},
    ),
    "hybrid, no head": ("hybrid", {**HYBRID, "resnet_stages": (1,), "num_classes": 0}),
    "bit, non-square, grey": (
        "bit",
        {**RESNET, "resnet_stages": (1,), "image_size": (33, 48), "channels": 1},
    ),
    "bit, no head": ("bit", {**RESNET, "resnet_stages": (1,), "num_classes": 0}),
    "deit_distilled, non-square, registers": (
        "deit_distilled",
        {**PATCHES, **WIDE, "num_registers": 2},
    ),
    "deit_distilled, no position for its tokens": (
        "deit_distilled",
        {**PATCHES, "position_includes_class_token": False},
    ),
    "deit_distilled, no heads": ("deit_distilled", {**PATCHES, "num_classes": 0}),
    "deit3, gap": ("deit3", {**PATCHES, "pool": "gap"}),
    "mixer, non-square, grey": ("mixer", {**MIXER, **WIDE, "channels": 1}),
    "mixer, no head": ("mixer", {**MIXER, "num_classes": 0}),
    "vit_c, patches": ("vit_c", VIT),
    "vit_c, non-square, strides": (
        "vit_c",
        {**VIT, "image_size": (17, 24), "stem_widths": (4, 4), "stem_strides": (2, 4)},
    ),
    "vit_c, no head": ("vit_c", {**VIT, "stem_widths": (4,), "num_classes": 0}),
    "cvt, non-square, grey, mean": (
        "cvt",
        {**CVT, "image_size": (17, 28), "channels": 1, "pool": "gap", "key_value_stride": (3, 1)},
    ),
    "cmt, non-square, grey": ("cmt", {**CMT, "image_size": (25, 40), "channels": 1}),
    "cmt, no head": ("cmt", {**CMT, "num_classes": 0, "stem_strides": (2, 1)}),
    "cvt, no head": ("cvt", {**CVT, "num_classes": 0, "patch_size": (3, 2)}),
    "levit, one head, non-square, grey": (
        "levit",
        {**LEVIT, "image_size": (33, 50), "channels": 1, "distillation_head": False},
    ),
    "levit, one stage without MLPs, no head": (
        "levit",
        {**LEVIT, "width": (8,), "depth": 1, "num_heads": 3, "mlp_ratio": 0, "num_classes": 0},
    ),
    "levit, stem of stride 4, steps of stride 3": (
        "levit",
        {
            **LEVIT,
            "stem_widths": (4, 8),
            "value_dim": 5,
            "down_stride": 3,
            "down_num_heads": 3,
            "down_value_dim": 7,
            "down_mlp_ratio": 1.5,
            "activation": "silu",
        },
    ),
    "cct, non-square, strides, sines": (
        "cct",
        {
            **VIT,
            "image_size": (17, 30),
            "tokenizer_kernel_size": 5,
            "tokenizer_stride": 2,
            "tokenizer_padding": 0,
            "position_embedding": "sincos1d",
            "stochastic_depth": 0.0,
        },
    ),
    "cct, class token, no head": (
        "cct",
        {**VIT, "pool": "token", "num_classes": 0, "stochastic_depth": 0.0},
    ),
    "compact_vit, one head, no position, grey": (
        "compact_vit",
        {
            **PATCHES,
            **WIDE,
            "num_heads": 1,
            "position_embedding": "none",
            "channels": 1,
            "stochastic_depth": 0.0,
        },
    ),
    "compact_vit, mean": ("compact_vit", {**PATCHES, "pool": "gap", "stochastic_depth": 0.0}),
    "vit_lite, sines": (
        "vit_lite",
        {**PATCHES, "position_embedding": "sincos1d", "stochastic_depth": 0.0},
    ),
    "flexivit, non-square, map": ("flexivit", {**PATCHES, **WIDE, "pool": "map"}),
    "flexivit, another patch, no head": (
        "flexivit",
        {**PATCHES, "default_patch_size": (4, 2), "num_classes": 0},
    ),
}


def is_unread(model, weight):
    """Of CvT's last block the class token alone is read, and it passes the convolutions by."""
    parts = [f"cvt/stage1/block01/attention/query_{part}/" for part in ("conv", "norm")]
    return weight.path.startswith(tuple(parts)) and model.pool == "token"


def images_for(model, batch=3):
    shape = (batch, *model.image_size, model.channels)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def randomize(model):
    """Gives every weight a value, so that no zero or one hides a path."""
    random = np.random.default_rng(1)
    for weight in model.weights:
        value = random.normal(scale=0.3, size=weight.shape)
        weight.assign(np.abs(value) if weight.path.endswith("variance") else value)
    return model


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=FAMILIES)
def family(request):
    """(name, configuration, model with random weights)."""
    name, config = request.param
    return name, config, randomize(create_model(name, **config))


@pytest.fixture(scope="module", params=VARIATIONS.values(), ids=VARIATIONS)
def variation(request):
    name, config = request.param
    return randomize(create_model(name, **config))


@pytest.fixture(scope="module")
def bfloat16(family):
    name, config, model = family
    half = create_model(name, **config, dtype="mixed_bfloat16")
    half.set_weights(model.get_weights())
    return half


def test_output_shape_is_what_is_announced(variation):
    images = images_for(variation)
    assert variation(images).shape == variation.compute_output_shape(images.shape)


def test_configuration_round_trips(variation):
    clone = type(variation).from_config(variation.get_config())
    assert clone.get_config() == variation.get_config()
    assert [w.path for w in clone.weights] == [w.path for w in variation.weights]


def test_saved_model_gives_the_same_outputs(variation, tmp_path):
    variation.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    images = images_for(variation)
    np.testing.assert_array_equal(loaded(images), variation(images))
    assert loaded.get_config() == variation.get_config()


def test_every_weight_gets_a_finite_gradient(variation):
    with tf.GradientTape() as tape:
        outputs = tf.nest.flatten(variation(images_for(variation), training=True))
        loss = tf.add_n([tf.reduce_sum(output**2) for output in outputs])
    gradients = tape.gradient(loss, [weight.value for weight in variation.trainable_variables])
    for weight, gradient in zip(variation.trainable_variables, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.isfinite(gradient).all(), weight.path
        assert np.any(gradient) or is_unread(variation, weight), weight.path


def test_fresh_weights_have_finite_gradients(family):
    name, config, _ = family
    model = create_model(name, **config)
    with tf.GradientTape() as tape:
        outputs = tf.nest.flatten(model(images_for(model), training=True))
        loss = tf.add_n([tf.reduce_sum((output - 1) ** 2) for output in outputs])
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_variables])
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_a_frozen_body_leaves_the_heads_to_train(family):
    name, config, _ = family
    model = create_model(name, **config)
    for layer in model.layers:
        layer.trainable = layer.name in model.heads
    assert {weight.path.split("/")[1] for weight in model.trainable_weights} == set(model.heads)
    weights = 4 if name == "levit" else 2  # its heads have batch norms
    assert len(model.trainable_weights) == weights * len(model.heads)


def test_every_named_intermediate_is_there(variation):
    names = variation.intermediate_names
    features = extract_features(variation, images_for(variation), names)
    assert list(features) == names


def test_xla_gives_the_same_logits(family):
    _, _, model = family
    images = images_for(model)
    compiled = tf.function(lambda x: model(x, training=False), jit_compile=True, autograph=False)
    expected = np.asarray(model(images))
    atol = 1e-5 * max(1, np.abs(expected).max())
    np.testing.assert_allclose(compiled(images), expected, atol=atol)


def test_batch_size_may_be_unknown(family):
    _, _, model = family
    spec = tf.TensorSpec((None, *model.image_size, 3), tf.float32)
    traced = tf.function(lambda x: model(x), autograph=False).get_concrete_function(spec)
    assert traced.output_shapes.as_list() == [None, 5]
    for batch in (1, 3):
        images = images_for(model, batch)
        expected = np.asarray(model(images))
        atol = 1e-5 * max(1, np.abs(expected).max())
        np.testing.assert_allclose(traced(tf.constant(images)), expected, atol=atol)


def test_summary_lists_the_parts(family):
    lines = []
    family[-1].summary(print_fn=lines.append)
    text = "\n".join(lines)
    assert any(part in text for part in ("block01", "block2", "stage1"))
    assert "?" not in text


def test_images_of_integers_are_refused(family):
    _, _, model = family
    with pytest.raises(ValueError, match="Floating-point images are expected, got uint8"):
        model(np.zeros((1, *model.image_size, 3), np.uint8))


def test_a_fresh_model_predicts_the_bias_of_its_head(family):
    name, config, _ = family
    model = create_model(name, **config, head_bias_init=-6.9)
    if model.head_kernel_initializer == "zeros":
        np.testing.assert_allclose(model(images_for(model)), np.full((3, 5), -6.9), rtol=1e-6)
    np.testing.assert_array_equal(model.head.bias, np.full(5, np.float32(-6.9)))


class TestMixedPrecision:
    def test_weights_and_logits_are_float32_and_the_rest_bfloat16(self, bfloat16):
        names = bfloat16.intermediate_names
        features = extract_features(bfloat16, images_for(bfloat16), names)
        for name, tensor in features.items():
            if tensor.dtype.is_integer:
                continue
            is_wide = "logits" in name[:6] or name.startswith("predictor")
            assert tensor.dtype == (tf.float32 if is_wide else tf.bfloat16), name
        assert {weight.dtype for weight in bfloat16.weights} == {"float32"}

    def test_logits_stay_close_to_float32(self, bfloat16, family):
        _, _, model = family
        images = images_for(model)
        expected = np.asarray(model(images))
        np.testing.assert_allclose(bfloat16(images), expected, atol=0.05 * np.abs(expected).max())


class TestResetHead:
    def test_body_stays(self, family):
        name, config, _ = family
        model = randomize(create_model(name, **config))
        before = extract_features(model, images_for(model), ["pre_logits"])["pre_logits"]
        model.reset_head(7)
        features = extract_features(model, images_for(model), ["pre_logits", "logits"])
        np.testing.assert_array_equal(features["pre_logits"], before)
        assert features["logits"].shape == (3, 7)

    def test_paths_of_weights_are_those_of_a_model_made_that_way(self, family):
        name, config, _ = family
        model = create_model(name, **config)
        for classes in (7, 0, 2):
            model.reset_head(classes)
            made = create_model(name, **{**config, "num_classes": classes})
            assert [w.path for w in model.weights] == [w.path for w in made.weights]
            assert [w.shape for w in model.weights] == [w.shape for w in made.weights]
            assert model(images_for(model)).shape == made(images_for(model)).shape

    def test_a_number_that_cannot_be_leaves_the_model_as_it_was(self, family):
        name, config, _ = family
        model = create_model(name, **config)
        for wrong in (-1, 2.5, "x", True):
            with pytest.raises(ValueError, match="num_classes is a whole number"):
                model.reset_head(wrong)
        assert model.get_config()["num_classes"] == 5
        assert model(images_for(model)).shape == (3, 5)
