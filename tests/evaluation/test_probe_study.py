"""A study extracts each model's features once for all probes; baselines stand beside the models."""

import numpy as np
import pytest

from vit_tf.checkpoints import create_model
from vit_tf.data import Input, TFDSSource
from vit_tf.evaluation import extract
from vit_tf.evaluation.probe_study import Study, Subject, fresh_subjects, measure
from vit_tf.evaluation.probes import FewShotProbe, KNNProbe, LayerProbes

OPS = "decode|resize(8)|value_range(-1, 1)"
SHOTS = {"shots": (1, 5), "seeds": (0, 1)}


@pytest.fixture(scope="module")
def model():
    return create_model(
        "vit",
        image_size=8,
        patch_size=4,
        width=8,
        depth=2,
        num_heads=2,
        mlp_dim=8,
        num_classes=10,
    )


@pytest.fixture(scope="module")
def sources(digits_dir):
    return TFDSSource(digits_dir, "train[:200]"), TFDSSource(digits_dir, "test[:100]")


def test_every_probe_measures_the_features_of_the_model(model, sources):
    probes = [FewShotProbe(**SHOTS), KNNProbe(k=(5,)), LayerProbes(KNNProbe(k=(5,)))]
    found, notes = measure(Subject("tiny", model, OPS), Study("digits", sources, probes))
    assert [(m.model, m.data, m.probe) for m in found] == [
        ("tiny", "digits", "few_shot"),
        ("tiny", "digits", "knn"),
        ("tiny", "digits", "layers_knn"),
    ]
    assert {(m.num_classes, m.train_examples, m.test_examples) for m in found} == {(10, 200, 100)}
    assert notes == []
    train, test = (extract(model, Input(s, OPS, 32, False), ["pre_logits"]) for s in sources)
    for measured, probe in zip(found, probes[:2], strict=False):
        assert measured.result == probe.evaluate(train, test)
    assert list(found[2].result.summary) == ["block00", "block01"]


def test_pixels_are_a_subject_without_layers(sources):
    probes = [FewShotProbe(**SHOTS), LayerProbes(KNNProbe(k=(5,)))]
    found, _ = measure(Subject("pixels", None, OPS, True), Study("digits", sources, probes))
    train, test = (extract(None, Input(s, OPS, 32, False), ["pixels"]) for s in sources)
    assert [m.result for m in found] == [FewShotProbe("pixels", **SHOTS).evaluate(train, test)]
    assert found[0].result.summary["5_shot"] > 0.5
    only_layers = Study("digits", sources, probes[1:])
    assert measure(Subject("pixels", None, OPS, True), only_layers) == ([], [])


def test_inputs_that_are_given_are_the_models_and_not_the_pixels(model, sources):
    grey = "decode|resize(8)|value_range(0, 0.001)"
    inputs = tuple(Input(source, grey, 32, False) for source in sources)
    study = Study("digits", sources, [KNNProbe(k=(5,))], inputs=inputs)
    assert study.inputs_of(Subject("tiny", model, OPS)) == inputs
    of_pixels = study.inputs_of(Subject("pixels", None, OPS, True))
    assert [str(data.preprocess) for data in of_pixels] == [OPS, OPS]


def test_fresh_baselines_are_the_same_models_with_other_weights(model):
    both = [Subject("step 5", model, OPS), Subject("step 9", model, OPS)]
    (fresh,) = fresh_subjects(both)
    assert (fresh.name, fresh.preprocess, fresh.baseline) == ("random", OPS, True)
    assert fresh.model.get_config() == model.get_config()
    own, other = (m.get_weights() for m in (model, fresh.model))
    assert [weight.shape for weight in own] == [weight.shape for weight in other]
    assert any(not np.array_equal(*pair) for pair in zip(own, other, strict=True))
    wider = create_model("vit", image_size=8, patch_size=4, width=16, depth=1, num_heads=2,
                         mlp_dim=8, num_classes=10)  # fmt: skip
    names = [one.name for one in fresh_subjects([*both, Subject("wide", wider, OPS)])]
    assert names == ["step 5, random", "wide, random"]


def test_features_of_a_cache_are_not_computed_again(model, sources, tmp_path):
    study = Study("digits", sources, [KNNProbe(k=(5,))])
    first = measure(Subject("tiny", model, OPS), study, str(tmp_path))
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    changed = [path.stat().st_mtime_ns for path in files]
    again = measure(Subject("tiny", model, OPS), study, str(tmp_path))
    assert again == first and files
    assert [path.stat().st_mtime_ns for path in files] == changed
