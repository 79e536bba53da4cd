"""Every reference case: what its files load into gives the reference's numbers.

Cases are found, not listed: a folder that is added to `golden/` needs no code here.
"""

import golden
import numpy as np
import pytest

import vit_tf
from vit_tf.checkpoints import resize_patch_kernel, resize_position_embedding
from vit_tf.layers import Intermediates
from vit_tf.models import fold_batch_norms
from vit_tf.models.base import is_statistic

CASES = golden.find_cases()
IDS = [f"{case.folder.parent.name}/{case.folder.name}" for case in CASES]


def _files():
    return [
        pytest.param(case, path, id=f"{name}/{path.name}")
        for name, case in zip(IDS, CASES, strict=True)
        for path in case.checkpoints
    ]


def _create(case, **overrides):
    config = golden.configuration(case.meta) | overrides
    return vit_tf.create_model(config.pop("name"), **config)


def test_there_are_cases_of_every_family(shared):
    assert {case.folder.parent.name for case in CASES} == set(golden.FAMILIES), shared


@pytest.mark.parametrize(("case", "path"), _files())
def test_outputs_and_intermediates_agree(case, path):
    if "target_grids" in case.meta["config"]:
        return _check_other_grids(case, path)
    model = _create(case)
    report = vit_tf.load_checkpoint(model, str(path), strict=True)
    assert len(report.loaded) == len(model.weights)
    assert not report.resized

    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trainable == case.meta["parameter_count"]
    if "running_statistics_count" in case.meta:
        statistics = sum(int(np.prod(w.shape)) for w in model.weights if is_statistic(w))
        assert statistics == case.meta["running_statistics_count"]
    if "fixed_parameter_count" in case.meta:
        fixed = sum(int(np.prod(weight.shape)) for weight in model.non_trainable_weights)
        assert fixed == case.meta["fixed_parameter_count"]
    if "run_at_sequence_sides" in case.meta["config"]:
        return _check_sequence_sides(case, model)
    images = case.arrays["image"]
    names = [key for key in case.arrays if key not in ("image", "logits_fused")]
    names = [name for name in names if not name.startswith("masked")]
    features = vit_tf.extract_features(model, images, names)
    for name in names:
        case.check(name, features[name])
    np.testing.assert_array_equal(model(images), features["logits"])
    if "masked/logits" in case.arrays:
        _check_masked_passes(case, model)
    if "logits_fused" in case.arrays:
        case.check("logits_fused", fold_batch_norms(model)(images))
    elif "logits_dist" in names:
        for output, name in zip(model(images, training=True), names[-3:-1], strict=True):
            case.check(name, output)
    return None


def _check_masked_passes(case, model):
    """With the reference's random numbers, and with the sets of tokens that inference keeps."""
    stages = range(len(model.predictors))
    noise = [case.arrays[f"masked/gumbel{stage}"] for stage in stages]
    keys = [key for key in case.arrays if key.endswith(("/out", "/log_probs", "/logits"))]
    ours = {key: key.removeprefix("masked/") for key in keys if key.startswith("masked/")}
    ours |= {f"masked/policy{stage}": f"predictor{stage}/policy" for stage in stages}
    intermediates = Intermediates([*ours.values(), "encoded"])
    images = case.arrays["image"]
    model(images, training=True, intermediates=intermediates, noise=noise)
    for key, name in ours.items():
        case.check(key, intermediates.tensors[name])
    case.check("masked/features", intermediates.tensors["encoded"][:, 1:])
    kept = [f"predictor{stage}/policy" for stage in stages]
    decisions = list(vit_tf.extract_features(model, images, kept).values())
    case.check("masked_same_set/logits", model(images, decisions=decisions))


def _check_other_grids(case, path):
    sizes = [key.removesuffix("image") for key in case.arrays if key.endswith("/image")]
    assert len(sizes) == len(case.meta["config"]["target_grids"])
    for prefix in sizes:
        images = case.arrays[f"{prefix}image"]
        model = _create(case, image_size=images.shape[1])
        report = vit_tf.load_checkpoint(model, str(path), strict=True)
        assert list(report.resized) == ["positions/table"]
        table = next(key for key in case.arrays if key.startswith(f"{prefix}pos"))
        case.check(table, model.positions.table)
        case.check(f"{prefix}logits", model(images))


def _check_sequence_sides(case, model):
    config = case.meta["config"]
    images = case.arrays["image"]
    for side, patch in config["patch_at_side"].items():
        prefix = f"seq{side}/"
        keys = [key for key in case.arrays if key.startswith(prefix)]
        names = [key.removeprefix(prefix) for key in keys if not key.endswith("patch_kernel")]
        features = vit_tf.extract_features(model, images, names, patch_size=patch)
        for name in names:
            case.check(prefix + name, features[name])
        if f"{prefix}patch_kernel" in keys:
            kernel = np.asarray(model.patch_embedding.kernel)
            case.check(f"{prefix}patch_kernel", resize_patch_kernel(kernel, (patch, patch)))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name)
        for name, case in zip(IDS, CASES, strict=True)
        if not case.checkpoints and case.meta["family"] != "dynamic_vit"
    ],
)
def test_resized_arrays_agree(case):
    config = case.meta["config"]
    if "stored_grid" in config:
        old = (config["stored_grid"],) * 2
        for side in config["target_grids"]:
            table = case.arrays["pos_embedding"]
            resized = resize_position_embedding(table, old, (side, side), "corner_aligned")
            case.check(f"grid{side}x{side}", resized)
    else:
        for height, width in config["new_patches"]:
            kernel = resize_patch_kernel(case.arrays["kernel"], (height, width))
            case.check(f"kernel_{height}x{width}", kernel)
