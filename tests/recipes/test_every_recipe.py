"""Every shipped recipe, dry-run: its parameters and its length are those of the papers.

Parameters are the published counts of each model (for 1,000 classes, at 224 pixels), corrected by
hand for other heads and sizes; steps are examples x epochs / batch.
"""

from pathlib import Path

import gin
import pytest

from vit_tf.training import configuration, dry_run
from vit_tf.training.run import run

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(
    str(file.relative_to(ROOT / "gin").with_suffix(""))
    for folder in ("recipes", "finetune")
    for file in (ROOT / "gin" / folder).glob("*.gin")
)


def head(width: int, classes: int) -> int:
    """What another number of classes than 1,000 adds."""
    return (width + 1) * (classes - 1000)


def square(width: int) -> int:
    """Parameters of a representation layer."""
    return width * width + width


I21K = 21_843
# The published count, and what the recipe adds.
PARAMETERS = {
    "recipes/augreg_i1k": 86_567_656 - 768 + square(768),  # no position for the class token
    "recipes/augreg_i1k_b32": 88_224_232 - 768 + square(768),
    "recipes/augreg_i1k_l16": 304_326_632 - 1024 + square(1024),
    "recipes/augreg_i1k_s16": 22_050_664 - 384 + square(384),
    "recipes/augreg_i1k_s32": 22_878_952 - 384 + square(384),
    "recipes/augreg_i1k_ti16": 5_717_416 - 192 + square(192),
    "recipes/augreg_i21k": 86_566_120 + head(768, I21K),
    "recipes/augreg_i21k_b32": 88_222_696 + head(768, I21K),
    "recipes/augreg_i21k_l16": 304_326_632 - 2 * 1024 + head(1024, I21K),
    "recipes/augreg_i21k_s16": 22_049_896 + head(384, I21K),
    "recipes/augreg_i21k_s32": 22_878_184 + head(384, I21K),
    "recipes/augreg_i21k_ti16": 5_717_416 - 2 * 192 + head(192, I21K),
    "recipes/augreg_i21k_r_ti16": 6_337_704 + head(192, I21K),
    "recipes/augreg_i21k_r26_s32": 36_431_912 + head(384, I21K),
    "recipes/augreg_i21k_r50_l32": 328_994_856 + head(1024, I21K),
    "recipes/bit_i1k": 25_549_352,
    "recipes/bit_i21k": 68_256_659,
    "recipes/cifar10": 460_714,
    "recipes/cosub_b16": 86_585_320 - (196 - 144) * 768,
    "recipes/deit3_b16": 86_585_320 - (196 - 144) * 768,
    "recipes/deit3_b16_i21k": 86_585_320 + head(768, I21K),
    "recipes/deit3_h14": 632_126_440 - (256 - 121) * 1280,
    "recipes/deit3_l16": 304_374_760 - (196 - 144) * 1024,
    "recipes/deit3_s16": 22_059_496,
    "recipes/deit_b16": 86_567_656,
    "recipes/deit_b16_distilled": 87_338_192,
    "recipes/deit_s16": 22_050_664,
    "recipes/deit_s16_distilled": 22_436_432,
    "recipes/deit_ti16": 5_717_416,
    "recipes/deit_ti16_distilled": 5_910_800,
    "recipes/flexivit_i1k_distilled": 86_453_992,
    "recipes/flexivit_i21k": 86_011_624 + head(768, I21K),
    "recipes/mixer_b16_i1k": 59_880_472,
    "recipes/plain_s16_i1k": 22_049_896 - 196 * 384 + square(384),
    "recipes/scaling_vit_g14": 1_037_857_384 + head(1408, I21K),
    "recipes/scaling_vit_gigantic14": 1_882_797_416 + head(1664, I21K),
    "recipes/vit_h14_jft_i21k": 632_045_800 + square(1280) + head(1280, I21K),
    "recipes/vit_i1k": 86_567_656 + square(768),
    "recipes/vit_i21k": 86_567_656 + square(768) + head(768, I21K),
    "finetune/augreg_cifar10": 88_224_232 + (144 - 49) * 768 + head(768, 10),
    "finetune/augreg_cifar100": 88_224_232 + (144 - 49) * 768 + head(768, 100),
    "finetune/augreg_imagenet2012": 88_224_232 + (144 - 49) * 768,
    "finetune/augreg_oxford_flowers102": 88_224_232 + (144 - 49) * 768 + head(768, 102),
    "finetune/augreg_oxford_iiit_pet": 88_224_232 + (144 - 49) * 768 + head(768, 37),
    "finetune/bit_hyperrule_cifar10": 25_549_352 + head(2048, 10),
    "finetune/bit_hyperrule_cifar100": 25_549_352 + head(2048, 100),
    "finetune/bit_hyperrule_flowers5": 25_549_352 + head(2048, 5),
    "finetune/bit_hyperrule_imagenet2012": 25_549_352,
    "finetune/bit_hyperrule_oxford_flowers102": 25_549_352 + head(2048, 102),
    "finetune/bit_hyperrule_oxford_iiit_pet": 25_549_352 + head(2048, 37),
    "finetune/flowers5": 460_714 + (12 * 16 - 8 * 8) * 96 - 5 * 97,
    "finetune/deit3_b16_224": 86_585_320,
    "finetune/deit3_b16_384": 86_585_320 + (576 - 196) * 768,
    "finetune/deit3_h14_224": 632_126_440,
    "finetune/deit3_l16_224": 304_374_760,
    "finetune/deit3_l16_384": 304_374_760 + (576 - 196) * 1024,
    "finetune/deit3_s16_384": 22_059_496 + (576 - 196) * 384,
    "finetune/deit_b16_384": 86_859_496,
    "finetune/deit_b16_distilled_384": 87_630_032,
    "finetune/vit_cifar10": 86_859_496 + head(768, 10),
    "finetune/vit_cifar100": 86_859_496 + head(768, 100),
    "finetune/vit_imagenet2012": 86_859_496,
    "finetune/vit_oxford_flowers102": 86_859_496 + head(768, 102),
    "finetune/vit_oxford_iiit_pet": 86_859_496 + head(768, 37),
}
# 1,281,167 x 300 / 4,096 = 93,835.5 and so on; with repeated augmentation an epoch of DeiT's
# sampler has 1,281,024 examples.
STEPS = {
    "recipes/augreg_i1k": 93_835,
    "recipes/augreg_i21k": 1_036_078,  # 14,145,922 examples
    "recipes/bit_i1k": 28_151,
    "recipes/bit_i21k": 310_823,
    "recipes/cifar10": 5_859,
    "recipes/cosub_b16": 500_400,
    "recipes/deit3_b16": 500_400,  # 625.5 x 800
    "recipes/deit_b16": 375_300,  # 1,251 x 300
    "recipes/flexivit_i1k_distilled": 112_603,
    "recipes/mixer_b16_i1k": 93_835,
    "recipes/plain_s16_i1k": 112_603,
    "recipes/scaling_vit_g14": 1_000_000,
    "recipes/vit_i21k": 310_823,
    "finetune/deit3_b16_224": 50_046,  # no repeated augmentation
    "finetune/deit_b16_384": 75_060,  # 2,502 x 30
    "finetune/augreg_oxford_iiit_pet": 500,
    "finetune/bit_hyperrule_cifar10": 10_000,
    "finetune/bit_hyperrule_imagenet2012": 20_000,
    "finetune/bit_hyperrule_oxford_flowers102": 500,
    "finetune/vit_imagenet2012": 20_000,
}
LEARNING_RATES = {
    "recipes/augreg_i1k": 1e-3,
    "recipes/bit_i1k": 1.6,
    "recipes/bit_i21k": 0.48,
    "recipes/deit_b16": 1e-3,
    "recipes/deit3_b16": 3e-3,
    "recipes/deit3_s16": 4e-3,
    "recipes/scaling_vit_g14": 8e-4,
    "recipes/vit_i1k": 3e-3,
    "finetune/bit_hyperrule_cifar10": 0.003,
    "finetune/deit_b16_384": 5e-6,
    "finetune/vit_cifar10": 0.01,
    "finetune/vit_imagenet2012": 0.03,
}
# Without a paper's figure; none of their own data is there.
SMALL = {name for name in RECIPES if "cifar10_" in name or "fashion" in name or "photos" in name}
LARGE = (
    "l16",
    "h14",
    "g14",
    "gigantic14",
    "l32",
    "deit3_b16_i21k",
    "vit_cifar100",
    "augreg_cifar100",
    "s32",
)


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


@pytest.fixture(autouse=True)
def no_download(tmp_path, monkeypatch):
    monkeypatch.setenv("VIT_TF_CACHE", str(tmp_path))


def plan(name):
    configuration.parse([f"gin/{name}.gin"], ["RunConfig.strategy = 'cpu'"])
    return run(mode="train", model_dir=None, only_plan=True)


def slow_if_large(name):
    is_large = any(part in name for part in LARGE)
    return pytest.param(name, marks=pytest.mark.slow) if is_large else name


def test_every_recipe_with_a_published_model_is_in_the_table():
    assert {*PARAMETERS, *SMALL} - {"recipes/cifar10"} == {*RECIPES} - {"recipes/cifar10"}


@pytest.mark.parametrize("name", [slow_if_large(name) for name in RECIPES])
def test_a_recipe_can_be_planned_without_its_files(name, monkeypatch, capsys):
    monkeypatch.setattr(dry_run, "count_flops", lambda model: 1)  # takes seconds; tested elsewhere
    planned = plan(name)
    if name in PARAMETERS:
        assert planned.parameters == PARAMETERS[name]
    if name in STEPS:
        assert planned.length.steps == STEPS[name]
    if name in LEARNING_RATES:
        assert max(planned.rates.values()) == pytest.approx(LEARNING_RATES[name], rel=1e-3)
    assert "data" in {file.role for file in planned.missing}
    if "distilled" in name:
        assert {"teacher", "weights"} & {file.role for file in planned.missing}
        assert "not loaded" in dict(planned.rows)["teacher"]
    assert "does not use" not in capsys.readouterr().out  # every binding has an effect
    text = (ROOT / "gin" / f"{name}.gin").read_text()
    if name != "recipes/photos":
        assert "ource" in text and ("Publish" in text or "No figure" in text or "Result" in text)


@pytest.mark.slow
def test_a_billion_parameters_are_planned_with_their_slots_and_their_tables(tmp_path):
    planned = plan("recipes/scaling_vit_g14")
    assert planned.flops == pytest.approx(533.1e9, rel=0.01)  # Scaling ViT, table 2
    count = planned.parameters
    assert planned.memory["weights"] == planned.memory["gradients"] == 4 * count
    assert planned.memory["optimizer in bfloat16"] == 2 * count  # the momentum
    assert planned.memory["optimizer in float32"] < 0.02 * 4 * count  # factored second moments
    assert "100  head/kernel" in str(planned)
    rates = planned.rates
    assert rates[0] == 0 and rates[10_000] == pytest.approx(8e-4)
    # 1 / sqrt(1 + 490,000 / 10,000) in the middle; the cool-down begins at 950,000.
    assert rates[500_000] == pytest.approx(8e-4 / 50**0.5, rel=1e-5)
    assert rates[950_000] == pytest.approx(8e-4 / 95**0.5, rel=1e-5)
    assert rates[999_999] == pytest.approx(8e-4 / 99.9999**0.5 / 50_000, rel=1e-4)


def test_levels_and_models_given_after_a_recipe_replace_its_own(monkeypatch):
    monkeypatch.setattr(dry_run, "count_flops", lambda model: 1)
    files = ["recipes/augreg_i21k", "models/vit_ti16", "augmentation/augreg_strong2"]
    configuration.parse([f"gin/{file}.gin" for file in files], ["RunConfig.strategy = 'cpu'"])
    planned = str(run(mode="train", model_dir=None, only_plan=True))
    assert "vit_ti16 at 224x224" in planned
    assert "augreg('strong2')" in planned and "mixup 0.8" in planned


@pytest.mark.parametrize("level", ["none", "light1", "light2", "medium1", "medium2", "strong1"])
def test_the_files_of_augreg_levels_mix_as_the_levels_do(level):
    from vit_tf.data.randaugment import augreg_mixup_alpha

    configuration.parse(["gin/recipes/augreg_i1k.gin", f"gin/augmentation/augreg_{level}.gin"])
    mixing = gin.query_parameter("Classification.mixing")
    assert (mixing is not None) == (augreg_mixup_alpha(level) > 0)
    if mixing is not None:
        assert gin.query_parameter("Mixing.mixup_alpha") == augreg_mixup_alpha(level)
    preprocess = gin.query_parameter("train/Input.preprocess")
    assert (f"augreg('{level}')" in preprocess) == (level != "none")
