"""The catalogue: rows that are sound, tags that are found, names of AugReg that are understood."""

import collections
import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vit_tf
from vit_tf.checkpoints.public.addresses import cache_path
from vit_tf.checkpoints.public.augreg import AugRegName, FineTuning, parse_augreg_name
from vit_tf.checkpoints.public.catalogue import find, list_weights
from vit_tf.checkpoints.public.checksums import checksum_in_name, parse_checksum

PRE_TRAINED = "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"
# What a tag says of the data whose classes a file has; 0 is a file without a head.
DATA = {0: "in21k", 10: "cifar10", 100: "cifar100", 102: "flowers102", 1000: "in1k", 21843: "in21k"}
FINE_TUNED = f"{PRE_TRAINED}--imagenet2012-steps_20k-lr_0.03-res_384"


def test_a_tag_is_unique_for_its_model():
    counts = collections.Counter((row.model, row.tag) for row in list_weights())
    assert [key for key, count in counts.items() if count > 1] == []


def test_a_url_stands_in_the_table_once():
    # A DynamicViT begins with the weights of a DeiT.
    rows = (row for row in list_weights() if not row.model.startswith("dynamic_vit"))
    counts = collections.Counter(row.url for row in rows)
    assert [url for url, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("row", list_weights(), ids=lambda row: f"{row.model}-{row.tag}")
def test_row_is_well_formed(row, tmp_path):
    assert re.fullmatch(r"[a-z0-9_]+", row.tag)
    assert cache_path(row.url, tmp_path).suffix in (".npz", ".pth", ".bin", ".safetensors")
    assert row.upstream in ("ImageNet-1k", "ImageNet-21k", "CIFAR-10", "CIFAR-100", "Flowers-102")
    assert row.resolution in (32, 160, 224, 240, 384, 480)
    assert row.num_classes in DATA
    assert row.top1 is None or 50 < row.top1 < 100
    assert row.top1 is None or row.num_classes not in (0, 21843)
    assert row.source and row.licence == ("MIT" if row.model.startswith("cvt_") else "Apache-2.0")
    assert row.overrides["image_size"] == row.resolution
    assert row.overrides["num_classes"] == row.num_classes


@pytest.mark.parametrize("row", list_weights(), ids=lambda row: f"{row.model}-{row.tag}")
def test_tag_tells_data_and_resolution(row):
    assert DATA[row.num_classes] in row.tag
    assert row.tag.endswith("_384") == (row.resolution == 384)
    from_21k = "in21k" in row.tag or "in22k" in row.tag
    assert from_21k == (row.upstream == "ImageNet-21k")


def test_a_checksum_agrees_with_the_files_name():
    named = {row.url: checksum_in_name(row.url) for row in list_weights()}
    for row in list_weights():
        if row.checksum or named[row.url]:
            assert parse_checksum(row.checksum, "the file's name") == named[row.url]


def test_every_model_is_registered():
    assert {row.model for row in list_weights()} <= set(vit_tf.list_models())


def configurations(rows) -> list[tuple[str, dict]]:
    """Each (model, overrides) once."""
    return list(
        {(row.model, str(row.overrides)): (row.model, row.overrides) for row in rows}.values()
    )


SPECIAL = configurations(row for row in list_weights() if len(row.overrides) > 2)


@pytest.mark.parametrize(("model", "overrides"), SPECIAL, ids=str)
def test_special_overrides_make_a_model(model, overrides):
    # Counting allocates nothing, and an unknown keyword or an impossible value is an error.
    assert vit_tf.count_parameters(model, **overrides) > 0


# Sizes of files in MiB, from the listing in vision_transformer's vit_jax.ipynb.
PUBLISHED_SIZES = [
    ("vit_b16", "orig_in21k", 393.69),
    ("vit_b8", "orig_in21k", 393.72),
    ("vit_r26_b32", "orig_in21k", 450.23),
    ("vit_r50_b16", "orig_in21k", 439.85),
    ("vit_b32", "orig_in21k_ft_in1k_384", 336.89),
    ("vit_b16", "orig_in21k_ft_in1k", 330.29),
    ("vit_b8", "orig_in21k_ft_in1k_384", 334.78),
    ("vit_r50_b16", "orig_in21k_ft_in1k_384", 377.57),
    ("vit_b16", "sam_in1k", 330.30),
    ("mixer_b16", "goog_in21k", 289.61),
    ("mixer_l16", "goog_in1k", 794.29),
    ("mixer_s16", "gsam_in1k_patch8", 78.79),
]


@pytest.mark.parametrize(("model", "tag", "mebibytes"), PUBLISHED_SIZES)
def test_overrides_make_a_model_of_the_files_size(model, tag, mebibytes):
    count = vit_tf.count_parameters(model, **find(model, tag).overrides)
    overhead = mebibytes - count * 4 / 2**20  # names and shapes of some hundred arrays
    assert 0.02 < overhead < 0.12


@pytest.mark.slow
def test_all_overrides_make_a_model():
    for model, overrides in configurations(list_weights()):
        assert vit_tf.count_parameters(model, **overrides) > 0


def test_the_glob_selects_models():
    sizes = ("s16", "m16", "b16", "l16", "h14")
    assert {row.model for row in list_weights("deit3_*")} == {f"deit3_{size}" for size in sizes}
    assert list_weights("resnet*") == []


def test_find_returns_the_recommended_files():
    assert find("vit_b16", "augreg_in21k").url == f"gs://vit_models/augreg/{PRE_TRAINED}.npz"
    tuned = find("vit_b16", "augreg_in21k_ft_in1k_384")
    assert tuned.url == f"gs://vit_models/augreg/{FINE_TUNED}.npz"
    assert tuned.overrides == {"image_size": 384, "num_classes": 1000} and tuned.top1 == 85.49


def test_find_knows_what_a_file_needs():
    assert find("vit_l16", "orig_in21k").overrides == {
        "image_size": 224,
        "num_classes": 21843,
        "representation_size": 1024,
    }
    assert find("vit_s16_gap", "bv_90ep_in1k").overrides["position_embedding"] == "sincos2d"


def test_find_takes_the_name_of_any_augreg_file():
    name = PRE_TRAINED.replace("medium1", "strong2")
    file = find("vit_b16", f"{name}--cifar100-steps_10k-lr_0.001-res_224.npz")
    assert file.url.endswith(
        "strong2-wd_0.1-do_0.0-sd_0.0--cifar100-steps_10k-lr_0.001-res_224.npz"
    )
    assert file.num_classes == 100 and file.resolution == 224


def test_what_an_augreg_name_says_agrees_with_the_table():
    rows = [row for row in list_weights() if row.url.startswith("gs://vit_models/augreg/")]
    assert len(rows) >= 20
    for row in rows:
        from_name = find(row.model, row.url.rpartition("/")[2])
        told = dataclasses.replace(from_name, tag=row.tag, top1=row.top1)
        assert told == row


def test_an_unknown_tag_lists_those_of_the_model():
    with pytest.raises(ValueError) as caught:
        find("vit_b16", "augreg_in12k")
    message = str(caught.value)
    assert "'vit_b16' has no public weights 'augreg_in12k'" in message
    assert "Did you mean 'augreg_in1k' or 'augreg_in21k'" in message
    assert "orig_in21k_ft_in1k_384" in message


def test_a_tag_of_another_model_says_so():
    with pytest.raises(ValueError, match=r"'bv_90ep_in1k' exists for vit_s16_gap\."):
        find("vit_s16", "bv_90ep_in1k")


def test_a_model_without_weights_names_its_neighbours():
    with pytest.raises(ValueError, match=r"none of this model; the closest with some: .*vit_b16"):
        find("vit_b16_map", "augreg_in21k")


def test_an_augreg_name_of_another_model_is_an_error():
    with pytest.raises(ValueError, match="a file of the model 'vit_b16', but 'vit_l16'"):
        find("vit_l16", PRE_TRAINED)


def test_the_parts_of_an_augreg_name():
    parsed = parse_augreg_name(FINE_TUNED)
    assert parsed == AugRegName(
        size="B_16",
        dataset="i21k",
        epochs=300,
        learning_rate=0.001,
        augmentation="medium1",
        weight_decay=0.1,
        dropout=0.0,
        stochastic_depth=0.0,
        fine_tuning=FineTuning("imagenet2012", "20k", 0.03, 384),
    )
    assert parsed.model == "vit_b16" and parsed.upstream == "ImageNet-21k"
    assert parsed.url == f"gs://vit_models/augreg/{FINE_TUNED}.npz"


def test_classes_of_unknown_data_are_left_to_the_file():
    name = f"{PRE_TRAINED}--kitti-distance-steps_2k-lr_0.01-res_224"
    parsed = parse_augreg_name(name)
    assert parsed.fine_tuning.dataset == "kitti-distance"
    assert parsed.num_classes is None and parsed.overrides == {"image_size": 224}


fine_tunings = st.builds(
    FineTuning,
    dataset=st.sampled_from(["imagenet2012", "cifar100", "oxford_iiit_pet", "kitti-distance"]),
    steps=st.sampled_from(["0k", "2k", "10k", "20k"]),
    learning_rate=st.sampled_from([0.001, 0.003, 0.01, 0.03]),
    resolution=st.sampled_from([224, 384]),
)
names = st.builds(
    AugRegName,
    size=st.sampled_from(["Ti_16", "B_8", "L_16", "R_Ti_16", "R26_S_32", "R50_L_32"]),
    dataset=st.sampled_from(["i1k", "i21k"]),
    epochs=st.sampled_from([30, 300]),
    learning_rate=st.sampled_from([0.001, 0.0003]),
    augmentation=st.sampled_from(["none", "light0", "light1", "medium2", "strong1"]),
    weight_decay=st.sampled_from([0.03, 0.1]),
    dropout=st.sampled_from([0.0, 0.1]),
    stochastic_depth=st.sampled_from([0.0, 0.1]),
    fine_tuning=st.none() | fine_tunings,
)


@given(names)
def test_an_augreg_name_is_the_inverse_of_its_reading(name):
    assert parse_augreg_name(name.filename) == name
    assert parse_augreg_name(f"{name.filename}.npz") == name
    assert name.model in vit_tf.list_models()


@given(st.text(alphabet="B_16i21k-30ep.lraugwd", max_size=40))
def test_no_text_is_misread(text):
    try:
        assert parse_augreg_name(text).filename == text.removesuffix(".npz")
    except ValueError as error:
        assert repr(text) in str(error)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("B_16-i21k", "malformed at 'B_16-i21k'"),
        (PRE_TRAINED + "--imagenet2012", "malformed at 'imagenet2012'"),
        (PRE_TRAINED + "--", "malformed at ''"),
        (PRE_TRAINED.replace("B_16", "B_61"), "unknown model 'B_61'. Did you mean 'B_16'"),
        (PRE_TRAINED.replace("i21k", "i22k"), "unknown pre-training data 'i22k'. Did you mean"),
        (PRE_TRAINED.replace("medium1", "medium3"), "unknown augmentation 'medium3'. Did you"),
        (PRE_TRAINED.replace("wd_0.1", "wd_0.10"), f"is written '{PRE_TRAINED}'"),
        (PRE_TRAINED.replace("wd_0.1", "wd_x"), "malformed at"),
    ],
)
def test_a_malformed_augreg_name_says_where(wrong, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_augreg_name(wrong)


def test_a_model_may_be_named_as_in_its_paper():
    assert list_weights("ViT-B/16") == list_weights("vit_b16") != []
    with pytest.raises(ValueError, match="'vit_b16'"):
        list_weights("vit_b17")
