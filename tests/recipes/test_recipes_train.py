"""Every recipe trains: the same gin file, with bindings that only shrink it.

Recipes that include another one and change no more than the model's size are the same once shrunken
and are left to the dry run.
"""

import math
import re

import gin
import pytest
from shrunken import CMT, COMPACT, CVT, DYNAMIC, FLEXI, LEVIT, MIXER, RESNET, TRANSFORMER, shrinking

from vit_tf.training import configuration
from vit_tf.training.run import run

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
    "recipes/cct_14_7x2_i1k": (COMPACT, "Classification AdamW epoch_cosine Mixing"),
    "recipes/cct_7_3x1_cifar100": (COMPACT, "Classification AdamW epoch_cosine Mixing"),
    "recipes/cct_7_3x1_sine_cifar10": (COMPACT, "Classification AdamW epoch_cosine Mixing"),
    "recipes/vit_lite_7_4_cifar10": (COMPACT, "Classification AdamW epoch_cosine Mixing"),
    "recipes/cifar10": ({"depth": 2}, "Classification AdamW cosine"),
    "recipes/cifar10_bit": (RESNET, "Classification AdamW cosine"),
    "recipes/cifar10_distilled": ({"depth": 2}, "TokenDistillation Teacher AdamW cosine"),
    "recipes/cmt_ti": (CMT, "Classification AdamW epoch_cosine Mixing"),
    "recipes/cosub_b16": (TRANSFORMER, "Cosub LAMB epoch_cosine Mixing"),
    "recipes/cvt_13": (CVT, "Classification AdamW epoch_cosine Mixing"),
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
    "recipes/dynamic_vit_s16": (DYNAMIC, "TokenPruning Teacher AdamW cosine Mixing"),
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
    "recipes/levit_256_distilled": (
        LEVIT,
        "TokenDistillation Teacher AdamW epoch_cosine Mixing",
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
    "finetune/bit_hyperrule_cifar10": (
        RESNET,
        "Classification MomentumSGD hyper_rule_schedule hyper_rule_size hyper_rule_preprocess",
    ),
    "finetune/bit_hyperrule_flowers5": (
        RESNET,
        "Classification MomentumSGD hyper_rule_schedule hyper_rule_size hyper_rule_preprocess",
    ),
    "finetune/cct_14_7x2_384": (COMPACT, "Classification AdamW epoch_cosine Mixing"),
    "finetune/cct_14_7x2_oxford_flowers102": (
        COMPACT,
        "Classification AdamW epoch_cosine Mixing",
    ),
    "finetune/deit3_b16_224": (TRANSFORMER, "Classification AdamW epoch_cosine Mixing"),
    "finetune/deit3_s16_384": (TRANSFORMER, "Classification AdamW epoch_cosine Mixing"),
    "finetune/deit_b16_384": (TRANSFORMER, "Classification AdamW epoch_cosine Mixing"),
    "finetune/deit_b16_distilled_384": (
        TRANSFORMER,
        "TokenDistillation Teacher AdamW epoch_cosine Mixing",
    ),
    "finetune/flowers5": ({**TRANSFORMER, "pool": "gap"}, "Classification AdamW cosine"),
    "finetune/vit_imagenet2012": (TRANSFORMER, "Classification MomentumSGD cosine"),
}
FAST = ("recipes/augreg_i1k", "recipes/deit3_b16", "finetune/vit_imagenet2012")


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


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


@pytest.mark.slow
def test_a_step_with_max_pooling_is_compiled(colour_dir, weights, tmp_path):
    # Operations are deterministic on CPUs, and TensorFlow's own pooling has no gradient then.
    file = "gin/recipes/cifar10_bit.gin"
    configuration.parse([file])
    bindings = shrinking("recipes/cifar10_bit", RESNET, colour_dir, weights)
    bindings.remove("RunConfig.jit_compile = False")
    configuration.parse([file], bindings)
    values = run(mode="train", model_dir=str(tmp_path / "run"))
    assert math.isfinite(values["loss"]) and values["gradient_norm"] > 0
