"""Which outputs a model's layers have, and which of their vectors are of patches."""

import numpy as np
import pytest
from keras import ops

from vit_tf import create_model, extract_features
from vit_tf.analysis.layer_outputs import token_groups, trunk_layers

TINY = {"patch_size": 8, "width": 8, "depth": 2, "num_heads": 2, "mlp_dim": 8}
RESNET = {"resnet_stages": (1, 2), "resnet_width_factor": 0.5}


def tiny(family="vit", **changes):
    config = {**TINY, "image_size": (16, 24), "num_classes": 3, **changes}
    return create_model(family, **{name: value for name, value in config.items() if value})


def tiny_bit():
    return create_model("bit", image_size=(32, 64), num_classes=3, **RESNET)


def tiny_mixer():
    mixer = {"tokens_mlp_dim": 4, "channels_mlp_dim": 8, "mlp_dim": None, "num_heads": None}
    return tiny("mixer", **mixer)


def random_images(model, batch=2):
    pixels = np.random.default_rng(0).uniform(-1, 1, (batch, *model.input_shape[1:]))
    return pixels.astype(np.float32)


def groups(model, name, **arguments):
    images = random_images(model)
    tensor = extract_features(model, images, name, **arguments)[name]
    return tensor, token_groups(model, images, [name], **arguments)[name]


def test_the_trunk_of_a_transformer_is_its_residual_stream():
    assert trunk_layers(tiny()) == ["tokens", "block00/out", "block01/out"]
    assert trunk_layers(tiny_mixer()) == ["tokens", "block00/out", "block01/out"]


def test_the_trunk_of_a_residual_network_is_its_root_and_units():
    units = ["block1/unit01", "block2/unit01", "block2/unit02"]
    assert trunk_layers(tiny_bit()) == ["root/pool", *units]
    hybrid = trunk_layers(tiny("hybrid", patch_size=1, **RESNET))
    assert hybrid[:3] == ["resnet/gn_root", "resnet/block1/unit1", "resnet/block2/unit1"]
    assert hybrid[-3:] == ["tokens", "block00/out", "block01/out"]


@pytest.mark.parametrize(
    ("model", "class_tokens", "registers"),
    [
        (tiny(), 1, 0),
        (tiny(num_registers=3), 1, 3),
        (tiny(pool="gap", num_registers=2), 0, 2),
        (tiny(pool="gap"), 0, 0),
        (tiny("deit_distilled"), 2, 0),
        (tiny_mixer(), 0, 0),
    ],
)
def test_tokens_are_split_as_the_model_joined_them(model, class_tokens, registers):
    tensor, found = groups(model, "block01/out")
    tokens = ops.convert_to_numpy(tensor)
    before = class_tokens + registers
    assert tokens.shape[1] == before + 6
    np.testing.assert_array_equal(found.class_tokens, tokens[:, :class_tokens])
    np.testing.assert_array_equal(found.registers, tokens[:, class_tokens:before])
    np.testing.assert_array_equal(found.patches, tokens[:, before:].reshape(2, 2, 3, 8))


def test_the_patches_are_those_of_the_stem():
    model = tiny(position_embedding="none", num_registers=2)
    stem = groups(model, "stem")[1]
    np.testing.assert_array_equal(stem.patches, groups(model, "tokens")[1].patches)
    np.testing.assert_array_equal(stem.patches, groups(model, "with_posemb")[1].patches)
    assert stem.class_tokens.shape == stem.registers.shape == (2, 0, 8)


def test_a_grid_is_patches_alone():
    tensor, found = groups(tiny_bit(), "block2/unit01")
    assert found.patches.shape == (2, 4, 8, 256)
    np.testing.assert_array_equal(found.patches, tensor)
    assert found.class_tokens.shape == (2, 0, 256)


def test_the_grid_is_that_of_the_call():
    model = tiny("flexivit", image_size=(16, 32))
    _, found = groups(model, "block00/out", patch_size=4)
    assert found.patches.shape == (2, 4, 8, 8)
    assert found.class_tokens.shape == (2, 1, 8)


def test_layers_come_in_the_order_that_was_asked_for():
    model = tiny()
    names = ["block01/out", "stem", "tokens"]
    assert list(token_groups(model, random_images(model), names)) == names


@pytest.mark.parametrize("name", ["block00/attn_weights", "pre_logits"])
def test_what_holds_no_patches_is_named(name):
    with pytest.raises(ValueError, match=rf"'{name}' of the shape \(2, .* take one of"):
        groups(tiny(), name)
