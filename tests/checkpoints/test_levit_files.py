"""LeViT's files: written as the reference writes them, folded or not; other sizes; timm's."""

import numpy as np
import pytest

import vit_tf
from vit_tf.checkpoints.files.opening import open_file, write_file
from vit_tf.models import fold_batch_norms

TINY = {"image_size": 64, "width": (8, 12), "depth": 1, "num_heads": 2, "key_dim": 4}
TINY |= {"num_classes": 5}
CASES = ("levit_distilled", "levit_single_head")


def arrays(path):
    with open_file(str(path)) as file:
        return {key: np.asarray(array.read()) for key, array in file.arrays.items()}


def randomized(model):
    random = np.random.default_rng(1)
    for weight in model.weights:
        value = random.normal(scale=0.3, size=weight.shape)
        weight.assign(np.exp(value) if weight.path.endswith("variance") else value)
    return model


def images(model):
    return np.random.default_rng(0).normal(size=(2, *model.image_size, 3)).astype(np.float32)


@pytest.fixture(params=CASES)
def case(request, shared):
    return shared / "golden/levit" / request.param


def test_a_file_is_written_as_it_was_read(case, tmp_path):
    model = vit_tf.create_model("levit", weights=str(case / "checkpoint.pth"))
    vit_tf.save_checkpoint(model, str(tmp_path / "out.pth"))
    written, given = arrays(tmp_path / "out.pth"), arrays(case / "checkpoint.pth")
    assert written.keys() == given.keys()
    for key, array in given.items():
        assert written[key].dtype == array.dtype, key
        if "num_batches" not in key:
            np.testing.assert_array_equal(written[key], array, err_msg=key)


def test_folding_gives_the_references_own_folded_file(case, tmp_path):
    model = vit_tf.create_model("levit", weights=str(case / "checkpoint.pth"))
    vit_tf.save_checkpoint(fold_batch_norms(model), str(tmp_path / "out.pth"))
    written, given = arrays(tmp_path / "out.pth"), arrays(case / "checkpoint_fused.pth")
    assert written.keys() == given.keys()
    for key, array in given.items():
        bound = 3e-6 * np.abs(array).max()
        np.testing.assert_allclose(written[key], array, rtol=0, atol=bound, err_msg=key)


def test_no_file_is_loaded_into_a_folded_model(case):
    model = vit_tf.create_model("levit", weights=str(case / "checkpoint.pth"))
    with pytest.raises(ValueError, match="batch norms are folded already"):
        vit_tf.load_checkpoint(fold_batch_norms(model), str(case / "checkpoint_fused.pth"))


@pytest.mark.parametrize("extension", ["pth", "safetensors", "keras"])
def test_biases_are_resized_along_their_offsets(extension, tmp_path):
    """A table that grows evenly with the offset still does, between the same first and last."""
    model = randomized(vit_tf.create_model("levit", **TINY))
    ramp = np.arange(4)[:, None, None] + 10 * np.arange(4)[None, :, None] + [0.0, 0.5]
    biases = "stage0/attn00/attention_biases"
    next(w for w in model.weights if w.path.endswith(biases)).assign(ramp)
    path = str(tmp_path / f"model.{extension}")
    vit_tf.save_checkpoint(model, path)

    other = vit_tf.create_model("levit", **{**TINY, "image_size": (112, 32)})
    report = vit_tf.load_checkpoint(other, path, strict=True)
    assert set(report.resized) == {w.path[6:] for w in model.weights if "biases" in w.path}
    assert report.resized[biases] == "4 x 4 -> 7 x 2 places, corner_aligned"
    found = next(w for w in other.weights if w.path.endswith(biases))
    expected = np.linspace(0, 3, 7)[:, None, None] + 10 * np.linspace(0, 3, 2)[:, None] + [0, 0.5]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.isfinite(other(images(other))).all()


def test_a_file_of_one_head_leaves_the_other_out(tmp_path):
    model = randomized(vit_tf.create_model("levit", **TINY, distillation_head=False))
    vit_tf.save_checkpoint(model, str(tmp_path / "one.pth"))
    inferred = vit_tf.create_model("levit", weights=str(tmp_path / "one.pth"))
    assert not inferred.distillation_head
    np.testing.assert_array_equal(inferred(images(model)), model(images(model)))


def test_another_number_of_classes_keeps_the_norms_of_the_heads(tmp_path):
    model = randomized(vit_tf.create_model("levit", **TINY))
    vit_tf.save_checkpoint(model, str(tmp_path / "model.pth"))
    other = vit_tf.create_model("levit", **{**TINY, "num_classes": 3})
    report = vit_tf.load_checkpoint(other, str(tmp_path / "model.pth"), strict=True)
    assert set(report.reset) == {f"head{d}/{w}" for d in ("", "_dist") for w in ("kernel", "bias")}
    np.testing.assert_array_equal(other.head.norm.moving_mean, model.head.norm.moving_mean)


class TestTimm:
    @pytest.fixture
    def written(self, tmp_path):
        model = randomized(vit_tf.create_model("levit", **TINY))
        path = tmp_path / "model.safetensors"
        vit_tf.save_checkpoint(model, str(path))
        return model, arrays(path)

    def test_names(self, written):
        """As `Levit` of timm has them."""
        assert {
            "stem.conv4.linear.weight",
            "stem.conv1.bn.running_var",
            "stages.0.blocks.0.attn.attention_biases",
            "stages.0.blocks.0.attn.qkv.linear.weight",
            "stages.0.blocks.0.attn.proj.ln.bn.weight",
            "stages.0.blocks.0.mlp.ln1.linear.weight",
            "stages.1.downsample.attn_downsample.q.ln.linear.weight",
            "stages.1.downsample.attn_downsample.kv.bn.num_batches_tracked",
            "stages.1.downsample.attn_downsample.proj.ln.linear.weight",
            "stages.1.downsample.mlp.ln2.bn.bias",
            "head.bn.running_mean",
            "head_dist.linear.bias",
        } <= written[1].keys()

    def test_kernels_of_one_pixel_are_matrices(self, written, tmp_path):
        """The weights of timm's `levit_conv_128s` and its like."""
        model, named = written
        as_conv = {
            key: array[:, :, None, None]
            if array.ndim == 2 and "stages" in key and key.endswith("linear.weight")
            else array
            for key, array in named.items()
        }
        path = str(tmp_path / "conv.safetensors")
        write_file(path, as_conv)
        inferred = vit_tf.create_model("levit", weights=path)
        np.testing.assert_array_equal(inferred(images(model)), model(images(model)))
