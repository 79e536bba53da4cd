"""Trainable parameters of every registered variant, 1000 classes at 224 pixels.

Variants of Compact Transformers have the classes and pixels of the data they were published for.
"""

from pathlib import Path

import pytest

from vit_tf.models import count_parameters, create_model, list_models

# Asserted by the tests of google-research/vision_transformer.
VISION_TRANSFORMER = {
    "vit_ti16": 5_717_416,
    "vit_s32": 22_878_952,
    "vit_s16": 22_050_664,
    "vit_b32": 88_224_232,
    "vit_b16": 86_567_656,
    "vit_b8": 86_576_872,
    "vit_l32": 306_535_400,
    "vit_l16": 304_326_632,
    "vit_h14": 632_045_800,
    "vit_s32_gap": 22_878_184,
    "vit_s16_gap": 22_049_896,
    "vit_b32_gap": 88_222_696,
    "vit_b16_gap": 86_566_120,
}
# Derived from the layer sizes of google-research/big_vision (see `formula`).
ATTENTION_POOLED = {
    "vit_mu16": 89_320,
    "vit_xs28": 6_404_328,
    "vit_xs16": 6_032_616,
    "vit_ti16_map": 6_161_704,
    "vit_s32_map": 24_652_264,
    "vit_s16_map": 23_823_976,
    "vit_m16": 41_988_584,
    "vit_b32_map": 95_309_800,
    "vit_b28_map": 94_768_360,
    "vit_b16_map": 93_653_224,
    "vit_b14_map": 93_561_064,
    "vit_l16_map": 316_919_784,
    "vit_l14_map": 316_796_904,
    "vit_so400m14": 428_833_704,
    "vit_h14_map": 651_719_400,
    "vit_g14": 1_037_857_384,
    "vit_gigantic14": 1_882_797_416,
    "vit_e14": 3_875_135_720,
}
# Asserted by the tests of google-research/vision_transformer.
HYBRIDS = {
    "vit_r_ti16": 6_337_704,
    "vit_r26_s32": 36_431_912,
    "vit_r26_b32": 101_383_976,
    "vit_r50_b16": 98_659_112,
    "vit_r50_l32": 328_994_856,
}
# Counted in models that google-research/big_transfer built.
BIG_TRANSFER = {
    "bit_r50x1": 25_549_352,
    "bit_r101x1": 44_541_480,
    "bit_r50x3": 217_319_080,
    "bit_r101x3": 387_934_888,
    "bit_r152x2": 236_335_208,
    "bit_r152x4": 936_533_224,
}
# Counted in models that facebookresearch/deit built.
DEIT = {
    "deit_ti16": 5_717_416,
    "deit_s16": 22_050_664,
    "deit_b16": 86_567_656,
    "deit_ti16_distilled": 5_910_800,
    "deit_s16_distilled": 22_436_432,
    "deit_b16_distilled": 87_338_192,
    "deit3_ti16": 5_721_832,
    "deit3_s16": 22_059_496,
    "deit3_m16": 38_849_512,
    "deit3_b16": 86_585_320,
    "deit3_l16": 304_374_760,
    "deit3_h14": 632_126_440,
}
# B and L/16 asserted by the tests of google-research/vision_transformer, the others derived.
MIXER = {
    "mixer_s32": 19_104_624,
    "mixer_s16": 18_528_264,
    "mixer_b32": 60_293_428,
    "mixer_b16": 59_880_472,
    "mixer_l32": 206_939_264,
    "mixer_l16": 208_196_168,
    "mixer_h14": 432_350_952,
}
# Derived from table 1 of Xiao et al. 2021.
EARLY_CONVOLUTIONS = {
    "vit_c_1gf": 4_567_936,
    "vit_p_1gf": 4_830_376,
    "vit_c_4gf": 17_754_136,
    "vit_p_4gf": 18_507_112,
    "vit_c_18gf": 81_573_160,
    "vit_p_18gf": 86_567_656,
    "vit_c_36gf": 167_796_008,
    "vit_p_36gf": 178_364_392,
}
# Derived from the layer sizes of google-research/big_vision; they do not depend on the image.
FLEXIVIT = {
    "flexivit_s": 22_878_568,
    "flexivit_b": 88_223_464,
    "flexivit_l": 306_534_376,
    "flexivit_s_p16": 21_993_832,
    "flexivit_b_p16": 86_453_992,
    "flexivit_l_p16": 304_175_080,
    "flexivit_s_p8": 21_772_648,
    "flexivit_b_p8": 86_011_624,
    "flexivit_l_p8": 303_585_256,
}
# Counted in models that microsoft/CvT built; they do not depend on the image.
CVT = {
    "cvt_13": 19_997_480,
    "cvt_21": 31_622_696,
    "cvt_w24": 277_196_392,
}
# Counted in models that facebookresearch/LeViT built, with two heads.
LEVIT = {
    "levit_128s": 7_777_058,
    "levit_128": 9_213_936,
    "levit_192": 10_947_069,
    "levit_256": 18_893_876,
    "levit_384": 39_128_836,
}
# Counted in models that SHI-Labs/Compact-Transformers built (10 classes at 32 pixels; CCT-7/7x2 102
# and CCT-14 1000 at 224); those with sines are 256 x 256 or 196 x 256 fewer. Those without a
# published count are derived (see `compact_formula`).
COMPACT_TRANSFORMERS = {
    "cct_2_3x2": 283_723,
    "cct_4_3x2": 482_123,
    "cct_6_3x1": 3_233_803,
    "cct_6_3x2": 3_326_923,
    "cct_7_3x1": 3_760_139,
    "cct_7_3x1_sine": 3_760_139 - 65_536,
    "cct_7_3x2": 3_853_259,
    "cct_7_7x2": 4_573_735,
    "cct_7_7x2_sine": 4_573_735 - 196 * 256,
    "cct_14_7x2": 22_367_273,
    "cvt_2_4": 214_539,
    "cvt_4_4": 412_939,
    "cvt_6_4": 3_190_283,
    "cvt_7_4": 3_716_619,
    "vit_lite_2_4": 214_666,
    "vit_lite_4_4": 413_066,
    "vit_lite_6_4": 3_190_538,
    "vit_lite_7_4": 3_716_874,
}
# Counted in models that ggjy/CMT.pytorch built, each at its own number of pixels.
CMT = {
    "cmt_ti": 9_492_426,
    "cmt_xs": 15_247_208,
    "cmt_s": 26_256_160,
    "cmt_b": 45_715_076,
}
# Counted in models that raoyongming/DynamicViT built.
DYNAMIC_VIT = {
    "dynamic_vit_256": 10_304_942,
    "dynamic_vit_s16": 22_774_414,
    "dynamic_vit_b16": 89_452_846,
}
PARAMETERS = (
    VISION_TRANSFORMER
    | ATTENTION_POOLED
    | HYBRIDS
    | BIG_TRANSFER
    | DEIT
    | MIXER
    | EARLY_CONVOLUTIONS
    | FLEXIVIT
    | COMPACT_TRANSFORMERS
    | DYNAMIC_VIT
    | CVT
    | CMT
    | LEVIT
)
TESTING = {"patch_size": 16, "width": 10, "depth": 1, "num_heads": 2, "mlp_dim": 10}


def formula(width, depth, mlp_dim, patch, pool, classes=1000, image=224):
    tokens = (image // patch) ** 2 + (pool == "token")
    embedding = 3 * patch**2 * width + width + (pool == "token") * width + tokens * width
    attention = 4 * (width**2 + width)
    mlp = 2 * width * mlp_dim + mlp_dim + width
    map_head = (width + attention + 2 * width + mlp) * (pool == "map")
    blocks = depth * (4 * width + attention + mlp)
    return embedding + blocks + 2 * width + map_head + (width + 1) * classes


def compact_formula(width, depth, mlp_dim, has_class_token):
    """CVT or ViT-Lite with patches of 4 at 32 pixels, 10 classes."""
    stem = 3 * 4**2 * width + width + 64 * width + has_class_token * 2 * width
    attention = 3 * width**2 + width**2 + width  # no biases of query, key and value
    block = 4 * width + attention + 2 * width * mlp_dim + mlp_dim + width
    pool = 0 if has_class_token else width + 1
    return stem + depth * block + 2 * width + pool + 10 * (width + 1)


@pytest.mark.parametrize(
    ("depth", "width", "mlp_dim"), [(2, 128, 128), (4, 128, 128), (6, 256, 512), (7, 256, 512)]
)
def test_table_of_compact_transformers_follows_from_their_sizes(depth, width, mlp_dim):
    table = COMPACT_TRANSFORMERS
    assert table[f"cvt_{depth}_4"] == compact_formula(width, depth, mlp_dim, False)
    assert table[f"vit_lite_{depth}_4"] == compact_formula(width, depth, mlp_dim, True)


def test_every_variant_is_in_the_table():
    assert sorted(PARAMETERS) == list_models()


@pytest.mark.parametrize("name", PARAMETERS)
def test_readme_has_the_number_too(name):
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    assert f"| `{name}` | {PARAMETERS[name]:,} |" in readme, "`make model-table` writes it"


@pytest.mark.parametrize("name", PARAMETERS)
def test_variant_has_the_published_number_of_parameters(name):
    assert count_parameters(name) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "sizes"),
    {
        "vit_mu16": (32, 1, 128, 16),
        "vit_xs28": (256, 6, 1024, 28),
        "vit_xs16": (256, 6, 1024, 16),
        "vit_ti16_map": (192, 12, 768, 16),
        "vit_s32_map": (384, 12, 1536, 32),
        "vit_s16_map": (384, 12, 1536, 16),
        "vit_m16": (512, 12, 2048, 16),
        "vit_b32_map": (768, 12, 3072, 32),
        "vit_b28_map": (768, 12, 3072, 28),
        "vit_b16_map": (768, 12, 3072, 16),
        "vit_b14_map": (768, 12, 3072, 14),
        "vit_l16_map": (1024, 24, 4096, 16),
        "vit_l14_map": (1024, 24, 4096, 14),
        "vit_so400m14": (1152, 27, 4304, 14),
        "vit_h14_map": (1280, 32, 5120, 14),
        "vit_g14": (1408, 40, 6144, 14),
        "vit_gigantic14": (1664, 48, 8192, 14),
        "vit_e14": (1792, 56, 15360, 14),
    }.items(),
)
def test_table_of_attention_pooled_variants_follows_from_their_sizes(name, sizes):
    assert ATTENTION_POOLED[name] == formula(*sizes, pool="map")


@pytest.mark.parametrize(
    ("name", "overrides", "expected"),
    [
        ("vit", TESTING, 21_390),
        ("vit", {**TESTING, "pool": "none"}, 21_370),
        ("vit_mu16", {"patch_size": 14, "num_classes": 0}, 52_480),
        ("vit_g14", {"num_classes": 0}, 1_036_448_384),
        ("vit_gigantic14", {"num_classes": 0}, 1_881_132_416),
        ("vit_g14", {"num_classes": 29_593}, 1_078_144_921),
        ("vit_b16", {"representation_size": 768}, 86_567_656 + 768 * 769),
        ("vit_ti16", {"layer_scale_init": 1e-4}, 5_717_416 + 12 * 2 * 192),
        ("vit_ti16", {"num_registers": 4}, 5_717_416 + 4 * 192),
        ("vit_ti16", {"position_includes_class_token": False}, 5_717_416 - 192),
        ("vit_ti16", {"position_embedding": "sincos2d"}, 5_717_416 - 197 * 192),
        ("vit_ti16", {"image_size": (64, 96)}, 5_717_416 - (196 - 4 * 6) * 192),
        ("deit_b16", {"image_size": 384}, 86_859_496),
        ("deit_b16_distilled", {"image_size": 384}, 87_630_032),
        ("deit_b16_distilled", {"num_classes": 0}, 87_338_192 - 2 * 769_000),
        ("flexivit_s", {"image_size": 384}, 22_878_568),
        ("dynamic_vit_s16", {"pruning_blocks": (6,), "keep_ratios": (0.5,)}, 22_291_914),
        ("cct_7_3x1", {"num_classes": 100}, 3_783_269),
        ("cct_14_7x2", {"image_size": 384}, 22_513_193),
        # timm's FlexiViT
        ("flexivit_s_p16", {"position_grid_size": 15}, 22_061_416),
        ("flexivit_b_p16", {"position_grid_size": 15}, 86_589_160),
        ("flexivit_l_p16", {"position_grid_size": 15}, 304_355_304),
        ("cvt_13", {"image_size": 384}, 19_997_480),
        ("levit_128s", {"distillation_head": False}, 7_391_290),
        ("levit_128", {"distillation_head": False}, 8_828_168),
        ("levit_192", {"distillation_head": False}, 10_561_301),
        ("levit_256", {"distillation_head": False}, 18_379_852),
        ("levit_384", {"distillation_head": False}, 38_358_300),
        # Biases of 196, 49 and 16 offsets become those of 144, 36 and 9.
        (
            "levit_128s",
            {"image_size": 192},
            7_777_058 - 52 * (2 * 4 + 8) - 13 * (3 * 6 + 16) - 7 * 32,
        ),
        ("cvt_13", {"num_classes": 10, "pool": "gap"}, 19_997_480 - 385 * 990 - 384),
        ("cmt_ti", {"image_size": 320}, 9_492_426 + 15 * 75_000),
        ("vit_r26_s32", {"image_size": 384}, 36_431_912 + (144 - 49) * 384),
        ("bit_r50x1", {"num_classes": 21_843}, 68_256_659),
        ("bit_r50x1", {"image_size": 480, "num_classes": 0}, 25_549_352 - 2049 * 1000),
    ],
)
def test_overrides_change_the_number_of_parameters(name, overrides, expected):
    assert count_parameters(name, **overrides) == expected


def test_count_without_allocation_equals_the_real_model():
    model = create_model("vit_mu16", num_registers=2, dropout=0.1)
    assert count_parameters("vit_mu16", num_registers=2, dropout=0.1) == model.count_params()
