"""Every recipe trains: the same gin file, with bindings that only shrink it.

Recipes that include another one and change no more than the model's size are the same once shrunken
and are left to the dry run.
"""

import math
import re

import gin
import numpy as np
import pytest
import tensorflow as tf

from vit_tf.checkpoints import create_model, save_checkpoint
from vit_tf.data.image_files import ImageCollection, ImageRecord
from vit_tf.data.shards import write_dataset
from vit_tf.training import configuration
from vit_tf.training.run import run

CLASSES = 4
STEPS = 4
# What images of so many pixels are shrunken to, crops and the sides before them.
SIZES = {"154": 32, "160": 34, "192": 32, "224": 32, "256": 36}
SIZES |= {"240": 48, "272": 54, "384": 48, "448": 56}
TRANSFORMER = {
    "width": 16,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 32,
    "patch_size": 16,
}
MIXER = {
    "width": 16,
    "depth": 2,
    "tokens_mlp_dim": 8,
    "channels_mlp_dim": 16,
    "patch_size": 16,
}
RESNET = {"resnet_stages": (1, 1), "resnet_width_factor": 0.5}
FLEXI = {**TRANSFORMER, "position_grid_size": (3, 3), "default_patch_size": 16}
# The file, what makes its model small, and what it must have used.
RECIPES = {
    "recipes/augreg_i1k": (TRANSFORMER, "Classification LowMemoryAdam cosine Mixing"),
    "recipes/augreg_i21k": (TRANSFORMER, "Classification LowMemoryAdam cosine Mixing"),
    "recipes/augreg_i21k_r26_s32": (
        {**TRANSFORMER, "patch_size": 1, **RESNET},
        "Classification LowMemoryAdam cosine",
    ),
    "recipes/bit_i1k": (RESNET, "Classification MomentumSGD cosine"),
    "recipes/bit_i21k": (RESNET, "Classification MomentumSGD cosine"),
    "recipes/cifar10": ({"depth": 2}, "Classification AdamW cosine"),
    "recipes/cifar10_bit": (RESNET, "Classification AdamW cosine"),
    "recipes/cifar10_distilled": ({"depth": 2}, "TokenDistillation Teacher AdamW cosine"),
    "recipes/cosub_b16": (TRANSFORMER, "Cosub LAMB epoch_cosine Mixing"),
    "recipes/deit3_b16": (TRANSFORMER, "Classification LAMB epoch_cosine Mixing"),
    "recipes/deit3_b16_i21k": (TRANSFORMER, "Classification LAMB epoch_cosine Mixing"),
    "recipes/deit3_h14": (
        {**TRANSFORMER, "image_size": 32},
        "Classification LAMB epoch_cosine Mixing",
    ),
    "recipes/deit_b16": (TRANSFORMER, "Classification AdamW epoch_cosine Mixing"),
    "recipes/deit_b16_distilled": (
        TRANSFORMER,
        "TokenDistillation Teacher AdamW epoch_cosine Mixing",
    ),
    "recipes/fashion_mnist": ({"depth": 2}, "Classification AdamW cosine"),
    "recipes/fashion_mnist_bit": (RESNET, "Classification AdamW cosine"),
    "recipes/fashion_mnist_distilled": (
        {"depth": 2},
        "KnowledgeDistillation Teacher AdamW cosine",
    ),
    "recipes/flexivit_i1k_distilled": (
        FLEXI,
        "FlexiClassification KnowledgeDistillation Teacher LowMemoryAdam cosine Mixing",
    ),
    "recipes/flexivit_i21k": (
        FLEXI,
        "FlexiClassification Classification LowMemoryAdam cosine Mixing",
    ),
    "recipes/mixer_b16_i1k": (MIXER, "Classification AdamW linear Mixing"),
    "recipes/photos": ({"depth": 2}, "Classification AdamW cosine"),
    "recipes/plain_s16_i1k": (TRANSFORMER, "Classification LowMemoryAdam cosine Mixing"),
    "recipes/scaling_vit_g14": (TRANSFORMER, "Classification ScalingAdafactor rsqrt"),
    "recipes/vit_h14_jft_i21k": (TRANSFORMER, "Classification AdamW linear"),
    "recipes/vit_i1k": (TRANSFORMER, "Classification AdamW cosine"),
    "recipes/vit_i21k": (TRANSFORMER, "Classification AdamW linear"),
    "finetune/augreg_cifar10": (TRANSFORMER, "Classification MomentumSGD cosine"),
    "finetune/augreg_oxford_iiit_pet": (TRANSFORMER, "Classification MomentumSGD cosine"),
    "finetune/deit3_b16_224": (TRANSFORMER, "Classification AdamW epoch_cosine Mixing"),
    "finetune/deit3_s16_384": (TRANSFORMER, "Classification AdamW epoch_cosine Mixing"),
    "finetune/deit_b16_384": (TRANSFORMER, "Classification AdamW epoch_cosine Mixing"),
    "finetune/deit_b16_distilled_384": (
        TRANSFORMER,
        "TokenDistillation Teacher AdamW epoch_cosine Mixing",
    ),
    "finetune/vit_imagenet2012": (TRANSFORMER, "Classification MomentumSGD cosine"),
}
FAST = ("recipes/augreg_i1k", "recipes/deit3_b16", "finetune/vit_imagenet2012")


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


@pytest.fixture(scope="module")
def colour_dir(tmp_path_factory):
    return _dataset(tmp_path_factory, "colour", 3)


@pytest.fixture(scope="module")
def grey_dir(tmp_path_factory):
    return _dataset(tmp_path_factory, "grey", 1)


def _dataset(tmp_path_factory, name, channels):
    rng = np.random.default_rng(0)

    def record(i):
        pixels = rng.integers(0, 255, [60, 60, channels], np.uint8)
        return ImageRecord(f"{i:02d}.jpg", i % CLASSES, tf.io.encode_jpeg(pixels).numpy())

    records = [record(i) for i in range(24)]
    names = tuple("abcd"[:CLASSES])
    splits = {"train": records[:16], "test": records[16:]}
    out = tmp_path_factory.mktemp(name)
    written = write_dataset(ImageCollection(names, splits), out, name, num_shards=1, progress=False)
    return str(written.directory)


@pytest.fixture
def weights(tmp_path):
    """`weights(name, **config)`: a file of a model that looks trained."""

    def write(name, **config):
        model = create_model(name, num_classes=CLASSES, **config)
        rng = np.random.default_rng(1)
        for weight in model.weights:
            weight.assign(weight + rng.normal(0, 0.05, weight.shape))
        path = str(tmp_path / f"{name}.npz" if "deit" not in name else tmp_path / f"{name}.keras")
        if path.endswith(".keras"):
            model.save(path)
        else:
            save_checkpoint(model, path)
        return path

    return write


def shrunken_sizes(preprocess: str) -> str:
    return re.sub(r"(?<![.\d])\d{3}\b", lambda number: str(SIZES[number.group()]), preprocess)


def bound(name):
    """What a file binds; None if nothing."""
    try:
        return gin.query_parameter(name)
    except ValueError:
        return None


def shrinking(name, model, data_dir, weights):
    """Bindings that make the recipe which was parsed small, and change nothing else."""
    preprocess = {side: bound(f"{side}/Input.preprocess") for side in ("train", "eval")}
    scope = "student/" if "distilled" in name else ""
    student = dict(model)
    macro, size = bound("%IMAGE_SIZE"), bound(f"{scope}create_model.image_size")
    small = name.split("/")[1].startswith(("cifar10", "fashion", "photos"))
    if not small and macro is None:
        given = str(size or re.search(r"crop\((\d+)", preprocess["train"]).group(1))
        student.setdefault("image_size", SIZES[given])
    if bound(f"{scope}create_model.representation_size"):
        student["representation_size"] = 16
    lines = [f"{scope}create_model.{key} = {value!r}" for key, value in student.items()]
    lines += [f"IMAGE_SIZE = {SIZES[str(macro)]}"] * (macro is not None)
    lines += [f"DATA_DIR = {data_dir!r}", f"NUM_CLASSES = {CLASSES}"]
    lines += [
        f"{side}/TFDSSource.split = {split!r}"
        for side, split in (("train", "train"), ("eval", "test"))
    ]
    for side, text in preprocess.items():
        lines.append(f"{side}/TFDSSource.expected_examples = None")
        lines.append(f"{side}/Input.batch_size = 8")
        if not small and macro is None:
            lines.append(f"{side}/Input.preprocess = {shrunken_sizes(text)!r}")
    lines += [
        "RunConfig.epochs = None",
        f"RunConfig.steps = {STEPS}",
        f"RunConfig.eval_interval = {STEPS}",
        f"RunConfig.checkpoint_interval = {STEPS}",
        f"RunConfig.steps_per_loop = {STEPS}",
        "RunConfig.jit_compile = False",
        "RunConfig.strategy = 'cpu'",
    ]
    if bound("RunConfig.accumulation_steps"):
        lines.append("RunConfig.accumulation_steps = 2")
    schedule = bound("Optimization.schedule").selector.rpartition(".")[2]
    for part in ("warmup", "cooldown", "timescale"):
        if bound(f"{schedule}.{part}") is not None:
            lines.append(f"{schedule}.{part} = {2 if part == 'timescale' else 1}")
    lines += shrunken_weights(name, student, scope, weights)
    return lines


def shrunken_weights(name, student, scope, weights):
    """Bindings of small files in place of the published ones."""
    lines = []
    if bound("Teacher.model") is not None:
        lines += [f"teacher/create_model.{key} = {value!r}" for key, value in RESNET.items()]
        config = {"image_size": 32, **RESNET}
        if "flexi" in name:
            return [f"{key} = {value!r}" for key, value in flexi_weights(weights).items()]
        small = bound("Teacher.weights") is not None
        if small:
            config["image_size"] = bound("teacher/create_model.image_size")
            config["channels"] = bound("create_model.channels") or 3
            lines.append(f"TEACHER = {weights('bit', **config)!r}")
        else:
            lines.append("teacher/create_model.image_size = 32")
            lines.append(f"teacher/create_model.weights = {weights('bit', **config)!r}")
    if bound(f"{scope}create_model.weights") is not None:
        config = {**student, "image_size": 32}  # so that positions are resized
        config.pop("representation_size", None)
        lines.append(f"WEIGHTS = {weights(bound(f'{scope}create_model.name'), **config)!r}")
    return lines


def flexi_weights(weights):
    config = {**TRANSFORMER, "image_size": 48, "position_includes_class_token": False}
    teacher = {f"teacher/create_model.{key}": value for key, value in config.items()}
    sizes = {"FlexiClassification.patch_sizes": (24, 16)}
    return {"WEIGHTS": weights("vit_b16", **config), **teacher, **sizes}


def mark(name):
    return name if name in FAST else pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [mark(name) for name in RECIPES])
def test_a_recipe_trains(name, colour_dir, grey_dir, weights, tmp_path, capsys):
    model, parts = RECIPES[name]
    file = f"gin/{name}.gin"
    data_dir = grey_dir if "fashion" in name else colour_dir
    configuration.parse([file])
    bindings = shrinking(name, model, data_dir, weights)
    if name == "recipes/flexivit_i21k":
        bindings.append("FlexiClassification.patch_sizes = (24, 16)")
    configuration.parse([file], bindings)
    values = run(mode="train", model_dir=str(tmp_path / "run"))
    assert math.isfinite(values["loss"]) and values["gradient_norm"] > 0
    text = configuration.operative_text()
    for part in parts.split():
        assert re.search(rf"^# Parameters for (\w+/)?{part}:$", text, re.MULTILINE), part
    assert "does not use" not in capsys.readouterr().out
