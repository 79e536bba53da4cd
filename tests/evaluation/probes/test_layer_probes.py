"""A probe at every depth is that probe on each layer's features."""

import numpy as np
import pytest

from vit_tf.checkpoints import create_model
from vit_tf.evaluation.feature_set import FeatureSet
from vit_tf.evaluation.probes.layers import LayerProbes
from vit_tf.evaluation.probes.linear import LinearProbe
from vit_tf.evaluation.probes.logistic import LogisticProbe

TINY = {"image_size": 8, "patch_size": 4, "width": 8, "mlp_dim": 8, "num_heads": 2}
NAMES = ["tokens", "block00/attn", "block00/out", "block01/out", "encoded", "pre_logits"]


def splits():
    """Two layers, of which the second tells the classes apart."""
    rng = np.random.default_rng(0)
    for examples in (60, 40):
        labels = np.arange(examples) % 2
        noise = rng.normal(size=(2, examples, 3))
        clear = noise[1] + 3 * labels[:, np.newaxis]
        yield FeatureSet({"block00/out:gap": noise[0], "block01/out:gap": clear}, labels, 2)


def test_every_layer_is_measured_as_the_probe_alone_measures_it():
    train, test = splits()
    probe = LogisticProbe(c=(0.01, 0.1))
    result = LayerProbes(probe).for_model(NAMES).evaluate(train, test)
    assert list(result.summary) == ["block00", "block01"] and result.headline == "block01"
    assert result.summary["block00"] < 0.75 < 0.9 < result.summary["block01"]
    for layer, accuracy in result.summary.items():
        name = f"{layer}/out:gap"
        alone = LogisticProbe(name, c=(0.01, 0.1)).evaluate(train, test)
        assert alone.summary["accuracy"] == accuracy
        rows = [row for row in result.rows if row["layer"] == layer]
        assert rows == [row | {"layer": layer, "features": name} for row in alone.rows]


def test_all_blocks_of_a_model_are_the_default():
    probes = LayerProbes(LogisticProbe())
    vit = create_model("vit", depth=3, num_classes=2, **TINY)
    assert probes.for_model(vit.intermediate_names).features == (
        "block00/out:gap",
        "block01/out:gap",
        "block02/out:gap",
    )
    units = ["root/conv", "block1/unit01/conv3", "block1/unit01", "block2/unit01", "pre_logits"]
    assert probes.for_model(units).features == ("block1/unit01:gap", "block2/unit01:gap")
    stem = ["resnet/conv_root", "resnet/block1/unit1", "stem", "block00/out"]
    assert probes.for_model(stem).features == ("resnet/block1/unit1:gap", "block00/out:gap")


def test_layers_may_be_numbers_or_names():
    probes = LayerProbes(LogisticProbe(), layers=[0, -1, "encoded"], pool=None)
    assert probes.for_model(NAMES).features == ("block00/out", "block01/out", "encoded")
    assert LayerProbes(LogisticProbe(), ["encoded"], "token").features == ("encoded:token",)


def test_one_configuration_serves_several_models():
    probes = LayerProbes(LogisticProbe())
    shallow, deep = probes.for_model(NAMES[:3]), probes.for_model(NAMES)
    assert (len(shallow.features), len(deep.features)) == (1, 2)
    with pytest.raises(ValueError, match="known after LayerProbes.for_model"):
        probes.features  # noqa: B018 (a property that raises)


@pytest.mark.parametrize(
    "options, names, message",
    [
        ({}, ["stem", "pre_logits"], "names no blocks, but stem, pre_logits; name the layers"),
        ({"layers": [2]}, NAMES, "there is no block 2; the model has 2"),
        ({"layers": ["blok00/out"]}, NAMES, "no layer 'blok00/out'. Did you mean 'block00/out"),
        ({"layers": []}, NAMES, "names no layer"),
        ({"pool": "max"}, NAMES, "one of gap, token, flat or None; given 'max'"),
        ({"probe": LinearProbe(["a", "b"])}, NAMES, "given a LinearProbe"),
    ],
)
def test_layers_that_do_not_fit(options, names, message):
    with pytest.raises(ValueError, match=message):
        LayerProbes(**{"probe": LogisticProbe()} | options).for_model(names)


def test_features_that_are_missing_are_named():
    train, test = splits()
    with pytest.raises(ValueError, match="no features 'encoded:gap', but 'block00/out:gap'"):
        LayerProbes(LogisticProbe(), ["encoded"]).evaluate(train, test)
