"""One pass over a split gives each example's features once, in order, on any strategy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_tf.data import Input, TFDSSource
from vit_tf.evaluation import extract
from vit_tf.evaluation.extractor import Extractor
from vit_tf.export import export_saved_model
from vit_tf.models import create_model, extract_features
from vit_tf.training.strategies import create_strategy

OPS = "decode|resize(8)|value_range(-1, 1)"
TINY = {
    "image_size": 8,
    "patch_size": 4,
    "width": 16,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 24,
    "num_classes": 10,
}
NAMES = ["pre_logits", "block00/out:gap+pre_logits", "pixels"]


def make_model(**changes):
    keras.utils.set_random_seed(0)
    return create_model("vit", **{**TINY, **changes})


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def test_split(digits_dir):
    # 360 examples: the last batch is padded.
    return Input(TFDSSource(digits_dir, "test"), OPS, batch_size=50, training=False)


@pytest.fixture(scope="module")
def extracted(model, test_split):
    return extract(model, test_split, NAMES)


@pytest.fixture(scope="module")
def examples(test_split):
    """Images and labels as they lie in the files, read without batches."""
    decode = test_split.preprocess.image_from_bytes
    records = test_split.encoded().map(lambda record: {**record, "image": decode(record["image"])})
    read = list(records.as_numpy_iterator())
    assert [record["index"] for record in read] == list(range(360))
    return np.stack([r["image"] for r in read]), np.array([r["label"] for r in read])


def test_every_example_is_there_once_in_the_order_of_the_split(model, extracted, examples):
    images, labels = examples
    np.testing.assert_array_equal(extracted.labels, labels)
    np.testing.assert_array_equal(extracted.features["pixels"], images.reshape(360, -1))
    expected = extract_features(model, images, ["pre_logits", "block00/out"])
    for name, of_model in (
        ("pre_logits", expected["pre_logits"]),
        (
            NAMES[1],
            np.concatenate(
                [np.mean(expected["block00/out"][:, 1:], axis=1), expected["pre_logits"]], axis=1
            ),
        ),
    ):
        np.testing.assert_allclose(extracted.features[name], of_model, rtol=1e-4, atol=1e-5)


def test_it_says_what_the_split_is(extracted):
    assert extracted.num_classes == 10
    assert list(extracted.class_names) == [str(digit) for digit in range(10)]
    assert extracted.name.startswith("digits") and "test" in extracted.name


def test_two_replicas_give_the_same_in_the_same_order(model, test_split, extracted):
    strategy = create_strategy("mirrored")
    with strategy.scope():
        mirrored = make_model()
    assert all(
        np.array_equal(own, other)
        for own, other in zip(model.get_weights(), mirrored.get_weights(), strict=True)
    )
    found = extract(mirrored, test_split, NAMES, strategy=strategy)
    np.testing.assert_array_equal(found.labels, extracted.labels)
    for name in NAMES:
        np.testing.assert_allclose(
            found.features[name], extracted.features[name], rtol=1e-5, atol=1e-6
        )


def test_a_second_pass_traces_nothing_and_sees_changed_weights(test_split):
    model = make_model()
    extractor = Extractor(model, test_split, "pre_logits")
    before = extractor().features["pre_logits"]
    model.set_weights([2 * weight for weight in model.get_weights()])
    after = extractor().features["pre_logits"]
    assert extractor.num_traces == 1
    assert not np.allclose(before, after)


def test_only_what_is_asked_for_is_computed(model, test_split):
    """The first block's output needs neither the second block nor the head."""
    extractor = Extractor(model, test_split, "block00/out")
    batch = next(iter(test_split()))
    graph = extractor._compute.get_concrete_function(batch).graph
    # Grappler prunes what no output needs; the names of what remains tell.
    needed, stack = set(), [value.op for value in graph.outputs]
    while stack:
        op = stack.pop()
        if op.name not in needed:
            needed.add(op.name)
            stack += [value.op for value in op.inputs]
    assert any("block00" in name for name in needed)
    assert not any("block01" in name for name in needed)


def test_half_precision_gives_float32(test_split, extracted):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = make_model()
    finally:
        keras.config.set_dtype_policy(policy)
    values = extract(model, test_split, "pre_logits").features["pre_logits"]
    assert values.dtype == np.float32
    difference = np.abs(values - extracted.features["pre_logits"]).max()
    assert 0 < difference < 0.1 * np.abs(values).max()


def test_extraction_leaves_weights_and_randomness_alone(test_split):
    model = make_model(dropout=0.5, stochastic_depth=0.5)
    weights = model.get_weights()
    keras.utils.set_random_seed(3)
    expected = keras.random.uniform([4]), tf.random.uniform([4]), np.random.uniform(size=4)
    keras.utils.set_random_seed(3)
    first = extract(model, test_split, "pre_logits")
    drawn = keras.random.uniform([4]), tf.random.uniform([4]), np.random.uniform(size=4)
    for before, after in zip(expected, drawn, strict=True):
        np.testing.assert_array_equal(before, after)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    again = extract(model, test_split, "pre_logits")
    np.testing.assert_array_equal(first.features["pre_logits"], again.features["pre_logits"])


def test_pixels_need_no_model(test_split, extracted):
    found = extract(None, test_split, "pixels")
    np.testing.assert_array_equal(found.features["pixels"], extracted.features["pixels"])
    with pytest.raises(ValueError, match="no intermediate 'pre_logits'"):
        extract(None, test_split, "pre_logits")


def test_training_data_is_refused_with_the_fix(model, digits_dir):
    data = Input(TFDSSource(digits_dir, "train"), OPS, batch_size=50, training=True)
    with pytest.raises(ValueError, match=r"Input\(..., training=False\)"):
        extract(model, data, "pre_logits")


def test_images_of_another_size_are_refused_with_the_models_preprocessing(model, digits_dir):
    ops = "decode|resize(12)|value_range(-1, 1)"
    data = Input(TFDSSource(digits_dir, "test"), ops, batch_size=50, training=False)
    with pytest.raises(ValueError, match=r"decode\|resize\(8\)\|value_range\(-1,1\)"):
        extract(model, data, "pre_logits")


def test_another_model_is_refused_with_a_way_out(test_split):
    other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match="SavedModel from encoded images"):
        extract(other, test_split, "pre_logits")


def test_a_saved_model_takes_the_encoded_images(model, test_split, extracted, tmp_path):
    def predict(images):
        logits = model(images, training=False)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    names = [str(digit) for digit in range(10)]
    path = export_saved_model(model, predict, test_split, names, str(tmp_path))
    found = extract(path, test_split, ["pre_logits", "logits"])
    np.testing.assert_array_equal(found.labels, extracted.labels)
    np.testing.assert_allclose(
        found.features["pre_logits"], extracted.features["pre_logits"], rtol=0, atol=1e-5
    )
    assert found.features["logits"].shape == (360, 10)
    with pytest.raises(ValueError, match="Did you mean 'pre_logits'"):
        extract(path, test_split, "pre_logit")
    with pytest.raises(ValueError, match="'pixels' go without a model"):
        extract(path, test_split, "pixels")
    with pytest.raises(ValueError, match="runs on one device"):
        two = create_strategy("mirrored")
        extract(path, test_split, "pre_logits", strategy=two)


def test_a_folder_that_is_no_saved_model_is_named(test_split, tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        extract(str(tmp_path), test_split, "pre_logits")
