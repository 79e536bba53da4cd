"""What people change most in a fine-tuning preset takes one binding each, and trains."""

import functools
import math
import re

import gin
import pytest
import tiny_records
from shrunken import CLASSES, TRANSFORMER, shrinking

from vit_tf.checkpoints import create_model
from vit_tf.models.weight_names import weight_names
from vit_tf.training import configuration
from vit_tf.training.run import run
from vit_tf.training.tasks import Classification

PRESET = "finetune/augreg_oxford_iiit_pet"
FILE = f"gin/{PRESET}.gin"
PROTOCOLS = ("frozen_backbone", "head_then_all", "layerwise_decay", "lora")
CROPS = ("crop_inception", "crop_resize", "crop_resize_small")


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


@pytest.fixture
def small(colour_dir, weights):
    """Bindings that shrink the preset; its weights are of 7 classes at 32 pixels."""
    of_seven = functools.partial(weights, num_classes=7)
    configuration.parse([FILE])
    return shrinking(PRESET, TRANSFORMER, colour_dir, of_seven)


@pytest.fixture
def models(monkeypatch):
    """The models that tasks make."""
    made = []
    build = Classification.build_model

    def keep(task):
        made.append(build(task))
        return made[-1]

    monkeypatch.setattr(Classification, "build_model", keep)
    return made


def fine_tune(tmp_path, small, *more, files=()):
    configuration.parse([FILE, *files], [*small, *more])
    values = run(mode="train_and_eval", model_dir=str(tmp_path / "run"))
    assert math.isfinite(values["loss"])
    return values


def names_of(small, kind):
    return [binding for binding in small if binding.startswith(kind)]


def test_another_number_of_classes_is_one_binding(tmp_path, small, models, capsys):
    assert names_of(small, "NUM_CLASSES") == [f"NUM_CLASSES = {CLASSES}"]
    fine_tune(tmp_path, small)
    (model,) = models
    report = model.load_report  # of a file with 7 classes
    assert model.num_classes == CLASSES == model.head.kernel.shape[1]
    assert {name for name in report.reset} == {"head/kernel", "head/bias"}
    assert not report.missing and not report.mismatched
    assert "does not use" not in capsys.readouterr().out


@pytest.mark.parametrize("size", [pytest.param(64, marks=pytest.mark.slow), (64, 96)])
def test_another_resolution_and_another_shape_are_one_binding(
    tmp_path, small, models, size, capsys
):
    small = [line for line in small if not line.startswith("IMAGE_SIZE")]
    fine_tune(tmp_path, small, f"IMAGE_SIZE = {size}")
    height, width = (size, size) if isinstance(size, int) else size
    (model,) = models
    assert model.image_size == (height, width)
    assert (
        dict(weight_names(model.weights))["positions/table"].shape[1] == 1 + height * width // 16**2
    )
    assert "positions/table" in model.load_report.resized
    text = configuration.operative_text()
    assert "Input.image_size = %IMAGE_SIZE" in text
    assert "does not use" not in capsys.readouterr().out


def test_several_labels_an_image_are_one_binding(tmp_path, small, models):
    folder = tiny_records.write_real(tmp_path, {"train": [12], "test": [8]})
    data = [
        f"DATA_DIR = {folder!r}",
        "NUM_CLASSES = 5",
        "TFDSSource.label_feature = 'real_label'",  # the data has two
        "TFDSSource.image_feature = 'image'",
    ]
    values = fine_tune(tmp_path, small, *data, "Classification.loss = 'sigmoid'")
    assert values["left_out_examples"] > 0  # a third has no label
    # Five binary decisions begin at 5 log 2; a softmax over five classes at log 5.
    assert 2.0 < values["loss"] < 6.0


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_is_one_file_after_a_preset(tmp_path, small, protocol, capsys):
    file = f"gin/protocols/{protocol}.gin"
    configuration.parse([FILE, file], small)
    planned = run(mode="train", model_dir=None, only_plan=True)
    assert "does not use" not in capsys.readouterr().out
    fine_tune(tmp_path, small, files=[file])
    said = capsys.readouterr().out
    assert "does not use" not in said
    head = 17 * CLASSES
    everything = sum(
        w.shape.num_elements()
        for w in create_model("vit", image_size=48, num_classes=CLASSES, **TRANSFORMER).weights
    )
    trained = {"frozen_backbone": head, "lora": head + 2 * 8 * (64 + 32 + 48 + 48)}
    assert planned.parameters == trained.get(protocol, everything)
    assert ("of them trained" in said) == (protocol in trained)
    tells = {"head_then_all": "20%", "layerwise_decay": r"0\.75 +block01", "lora": "lora_kernel_a"}
    assert re.search(tells.get(protocol, r"True +head\.\*"), said)


@pytest.mark.slow
@pytest.mark.parametrize("crop", CROPS)
def test_each_crop_is_one_file_after_a_preset(tmp_path, small, crop, capsys):
    fine_tune(tmp_path, small, files=[f"gin/protocols/{crop}.gin"])
    assert "does not use" not in capsys.readouterr().out
    op = {"crop_inception": "inception_crop", "crop_resize": "resize"}.get(crop, "resize_small")
    assert f"decode|{op}(" in gin.query_parameter("train/Input.preprocess")


def test_head_first_may_be_of_another_length(tmp_path, small):
    configuration.parse(
        [FILE, "gin/protocols/head_then_all.gin"], [*small, "HEAD_ALONE = '1 epoch'"]
    )
    planned = run(mode="train", model_dir=None, only_plan=True)
    assert "1 epoch  .*" in str(planned)
