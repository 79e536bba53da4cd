"""A file's names and shapes tell which model it is of."""

import golden
import numpy as np
import pytest

import vit_tf
from vit_tf.checkpoints.describe import describe_checkpoint

FILES = [
    pytest.param(case, path, id=f"{case.folder.name}/{path.name}")
    for case in golden.find_cases()
    for path in case.checkpoints
    if "logits" in case.arrays
]


@pytest.mark.parametrize(("case", "path"), FILES)
def test_the_model_that_is_inferred_gives_the_logits(case, path):
    (call,) = describe_checkpoint(str(path)).calls
    images = case.arrays["image"]
    # What no name or shape tells: torch's heads, the size of an image without a stored table.
    told = {"image_size": images.shape[1:3]}
    if path.suffix == ".pth":
        told["num_heads"] = case.meta["config"]["heads"]
    model = vit_tf.create_model(call.name, **call.keywords | told)
    vit_tf.load_checkpoint(model, str(path), strict=True)
    case.check("logits", model(images))


@pytest.mark.parametrize(
    ("name", "extension", "keywords", "call"),
    [
        ("vit_ti16", "npz", {}, "vit_tf.create_model('vit_ti16')"),
        (
            "vit_ti16",
            "npz",
            {"num_classes": 7, "image_size": 64, "representation_size": 12},
            "vit_tf.create_model('vit_ti16', num_classes=7, representation_size=12, image_size=64)",
        ),
        ("vit_xs28", "npz", {}, "vit_tf.create_model('vit_xs28')"),
        (
            "vit_r_ti16",
            "npz",
            {"num_classes": 0},
            "vit_tf.create_model('vit_r_ti16', num_classes=0)",
        ),
        ("deit_ti16_distilled", "pth", {}, "vit_tf.create_model('deit_ti16_distilled')"),
        ("deit3_ti16", "safetensors", {}, "vit_tf.create_model('deit3_ti16')"),
        ("vit_c_1gf", "pth", {}, "vit_tf.create_model('vit_c_1gf')"),
        ("cct_7_3x1", "pth", {}, "vit_tf.create_model('cct_7_3x1')"),
        (
            "cct_2_3x2",
            "pth",
            {"num_classes": 100, "image_size": 64},
            "vit_tf.create_model('cct_2_3x2', num_classes=100, image_size=64)",
        ),
        ("cvt_6_4", "pth", {"num_classes": 0}, "vit_tf.create_model('cvt_6_4', num_classes=0)"),
        ("vit_lite_7_4", "safetensors", {}, "vit_tf.create_model('vit_lite_7_4')"),
        ("cmt_ti", "pth", {}, "vit_tf.create_model('cmt_ti')"),
        ("cvt_13", "safetensors", {}, "vit_tf.create_model('cvt_13')"),
        ("levit_128s", "pth", {}, "vit_tf.create_model('levit_128s')"),
        (
            "levit_192",
            "safetensors",
            {"num_classes": 10, "image_size": 96, "distillation_head": False},
            "vit_tf.create_model('levit_192', num_classes=10, image_size=96, "
            "distillation_head=False)",
        ),
    ],
)
def test_a_registered_variant_is_named(name, extension, keywords, call, tmp_path):
    path = str(tmp_path / f"file.{extension}")
    vit_tf.save_checkpoint(vit_tf.create_model(name, **keywords), path, dtype="float16")
    description = describe_checkpoint(path)
    assert call in [str(found) for found in description.calls]
    assert str(description.calls[0]).startswith(f"vit_tf.create_model('{name}'")


def test_a_keras_file_tells_its_own_configuration(tmp_path):
    keywords = {"depth": 1, "image_size": (32, 64), "num_classes": 3}
    model = vit_tf.create_model("deit_ti16_distilled", **keywords)
    model.save(tmp_path / "model.keras")
    (call,) = describe_checkpoint(str(tmp_path / "model.keras")).calls
    assert (call.name, call.keywords) == ("deit_ti16_distilled", keywords)


def test_a_file_of_nobody_is_listed_all_the_same(tmp_path):
    np.savez(
        tmp_path / "file.npz", **{"layer_0/weight": np.zeros(3), "layer_1/weight": np.zeros(3)}
    )
    description = describe_checkpoint(str(tmp_path / "file.npz"))
    assert description.calls == []
    assert "layer_{0..1}/weight" in str(description)
    assert "none of the known namings" in description.note
