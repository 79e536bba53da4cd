"""LoRA begins as the model that it adapts, changes only what it may, and merges to the same."""

import keras
import numpy as np
import pytest

from vit_tf.checkpoints import create_model, load_checkpoint, save_checkpoint
from vit_tf.models.lora import LoRA, frozen_weights, merged_model, merged_weights
from vit_tf.models.weight_names import weight_names

TINY = dict(
    image_size=8, patch_size=4, width=16, depth=2, num_heads=2, mlp_dim=32, num_classes=3
)  # fmt: skip
IMAGES = np.random.default_rng(0).uniform(-1, 1, (5, 8, 8, 3)).astype(np.float32)


def randomised(model, weights=None, scale=0.3):
    rng = np.random.default_rng(1)
    for weight in model.weights if weights is None else weights:
        weight.assign(weight + rng.normal(0, scale, weight.shape))
    return model


def logits(model):
    return keras.ops.convert_to_numpy(model(IMAGES))


@pytest.fixture(scope="module")
def plain():
    return randomised(create_model("vit", **TINY))


@pytest.fixture(scope="module")
def path(plain, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("lora") / "plain.npz")
    save_checkpoint(plain, path)
    return path


@pytest.fixture
def adapted(path):
    """From the file of the plain model, as if trained."""
    model = create_model("vit", path, **TINY, lora=LoRA(rank=2, alpha=6))
    return randomised(model, [w for w in model.weights if "lora" in w.name])


def test_an_adapted_model_begins_as_the_one_that_was_loaded(plain, path):
    model = create_model("vit", path, **TINY, lora=LoRA())
    np.testing.assert_array_equal(logits(model), logits(plain))


def test_two_matrices_a_kernel_and_the_head_are_trained(path):
    model = create_model("vit", path, **TINY, lora=LoRA(rank=2))
    trained = {name: tuple(w.shape) for name, w in weight_names(model.trainable_weights).items()}
    sizes = {
        "attention/qkv": (16, 48),  # query, key and value as one
        "attention/out": (16, 16),
        "mlp/dense_in": (16, 32),
        "mlp/dense_out": (32, 16),
    }
    expected = {"head/kernel": (16, 3), "head/bias": (3,)}
    for block in ("block00", "block01"):
        for name, (inputs, outputs) in sizes.items():
            expected[f"{block}/{name}/lora_kernel_a"] = (inputs, 2)
            expected[f"{block}/{name}/lora_kernel_b"] = (2, outputs)
    assert trained == expected
    everything = len(trained) + len(frozen_weights(model))
    assert everything == len(model.weights)


def test_the_first_matrix_starts_within_one_over_the_root_of_the_inputs():
    keras.utils.set_random_seed(0)
    config = {**TINY, "width": 64, "mlp_dim": 256}
    named = weight_names(create_model("vit", **config, lora=LoRA(rank=32)).weights)
    for name, inputs in (("attention/qkv", 64), ("mlp/dense_out", 256)):
        start = np.abs(named[f"block00/{name}/lora_kernel_a"])
        assert 0.97 / inputs**0.5 < start.max() <= 1 / inputs**0.5
        assert not np.any(named[f"block00/{name}/lora_kernel_b"])


def test_a_kernel_acts_as_itself_plus_the_scaled_product(plain, adapted):
    named = weight_names(adapted.weights)
    for name, merged in merged_weights(adapted).items():
        if name.endswith(("qkv/kernel", "out/kernel", "dense_in/kernel")):
            a, b = (
                np.asarray(named[name.replace("kernel", f"lora_kernel_{part}")], np.float64)
                for part in "ab"
            )
            expected = np.asarray(weight_names(plain.weights)[name]) + 6 / 2 * a @ b
            np.testing.assert_allclose(merged, expected, rtol=0, atol=1e-6)


def test_the_merged_model_computes_the_same_and_has_nothing_of_lora(plain, adapted):
    merged = merged_model(adapted)
    np.testing.assert_allclose(logits(merged), logits(adapted), rtol=0, atol=2e-5)
    assert np.abs(logits(adapted) - logits(plain)).max() > 0.1
    assert list(weight_names(merged.weights)) == list(weight_names(plain.weights))
    assert len(merged.trainable_weights) == len(plain.trainable_weights)
    assert merged_model(plain) is plain


@pytest.mark.parametrize("extension", [".npz", ".safetensors", ".keras"])
def test_a_saved_model_is_the_merged_one(adapted, tmp_path, extension):
    path = str(tmp_path / f"adapted{extension}")
    save_checkpoint(adapted, path)
    again = create_model("vit", **TINY)
    assert load_checkpoint(again, path, strict=True).complete
    np.testing.assert_allclose(logits(again), logits(adapted), rtol=0, atol=2e-5)


def test_attention_alone_and_a_bottom_that_is_trained_too():
    lora = LoRA(kernels=r"block\d+/attention/.*kernel", trained="head/.*|positions/table")
    names = list(weight_names(create_model("vit", **TINY, lora=lora).trainable_weights))
    assert sum("lora" in name for name in names) == 2 * 2 * 2
    assert {name for name in names if "lora" not in name} == {
        "head/kernel",
        "head/bias",
        "positions/table",
    }


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("mixer", dict(image_size=8, patch_size=4, width=8, depth=1, tokens_mlp_dim=4,
                       channels_mlp_dim=8, num_classes=2)),
        ("deit_distilled", {**TINY, "depth": 1}),
    ],
)  # fmt: skip
def test_other_families_are_adapted_too(name, config):
    model = create_model(name, **config, lora=LoRA(rank=1))
    names = list(weight_names(model.trainable_weights))
    assert sum("lora_kernel_a" in name for name in names) == 4
    assert all("lora" in name or name.startswith("head") for name in names)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoRA(rank=0), "LoRA.rank is a whole number from 1"),
        (lambda: LoRA(alpha=0), "LoRA.alpha must be positive"),
        (lambda: LoRA(kernels="("), "LoRA.kernels: .* is no expression"),
        (
            lambda: create_model("vit", **TINY, lora=LoRA(kernels="block../kernel")),
            "matches none of the model's dense kernels: block00/attention/qkv/kernel",
        ),
        (
            lambda: create_model("vit", **TINY, lora=LoRA(trained="haed")),
            "matches no weight; the model has .*head",
        ),
        (
            lambda: create_model(
                "bit", image_size=32, resnet_stages=(1,), resnet_width_factor=0.5, lora=LoRA()
            ),
            "matches none of the model's dense kernels: head/kernel",
        ),
    ],
)
def test_what_cannot_be_adapted_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_file_is_loaded_before_and_a_model_adapted_once(adapted, path):
    with pytest.raises(ValueError, match="load a checkpoint before"):
        load_checkpoint(adapted, path)
    with pytest.raises(ValueError, match="adapted by LoRA already"):
        LoRA().adapt(adapted)
