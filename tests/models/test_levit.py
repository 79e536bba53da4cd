"""LeViT: grids, biases by offset, two heads, the defaults of the paper."""

import itertools

import numpy as np
import pytest

from vit_tf import layers
from vit_tf.layers.offset_attention import offset_indices
from vit_tf.models import create_model, extract_features, list_models, without_allocation

TINY = {"image_size": (64, 40), "width": (8, 12), "depth": 1, "num_heads": 2, "key_dim": 4}
TINY |= {"num_classes": 5}


def randomized(model):
    random = np.random.default_rng(1)
    for weight in model.weights:
        value = random.normal(scale=0.3, size=weight.shape)
        weight.assign(np.exp(value) if weight.path.endswith("variance") else value)
    return model


def images(model, batch=3):
    shape = (batch, *model.image_size, model.channels)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", list_models("levit*"))
@pytest.mark.parametrize(
    ("size", "grids"),
    [
        (224, [(14, 14), (7, 7), (4, 4)]),
        (384, [(24, 24), (12, 12), (6, 6)]),
        ((161, 256), [(11, 16), (6, 8), (3, 4)]),
    ],
)
def test_sides_are_halved_rounding_up(name, size, grids):
    def facts():
        model = create_model(name, image_size=size)
        stages = [layer for layer in model.stages if isinstance(layer, layers.LeViTStage)]
        return [stage.grid_size for stage in stages], model.compute_output_shape((2, None, None, 3))

    assert without_allocation(facts) == (grids, (2, 1000))


@pytest.mark.parametrize("name", ["LeViT-128S", "levit-128s", "LeViT_128S"])
def test_notation(name):
    assert without_allocation(lambda: create_model(name).variant) == "levit_128s"


@pytest.mark.parametrize(
    ("grid", "stride"), [((14, 14), 1), ((7, 7), 2), ((5, 5), 2), ((3, 8), 1), ((5, 8), 3)]
)
def test_biases_are_numbered_as_offsets_first_appear(grid, stride):
    """Queries outside, keys inside, both row by row, as facebookresearch/LeViT numbers them."""
    places = list(itertools.product(range(grid[0]), range(grid[1])))
    queries = [place for place in places if place[0] % stride == place[1] % stride == 0]
    numbers, expected = {}, []
    for query in queries:
        for key in places:
            offset = (abs(query[0] - key[0]), abs(query[1] - key[1]))
            expected.append(numbers.setdefault(offset, len(numbers)))
    np.testing.assert_array_equal(offset_indices(grid, stride).ravel(), expected)
    assert len(numbers) == grid[0] * grid[1]


def test_a_bias_attracts_the_tokens_at_its_offset():
    attention = layers.OffsetAttention(1, 2, 2, (3, 4))
    tokens = np.random.default_rng(0).normal(size=(1, 12, 4)).astype(np.float32)
    attention(tokens)
    table = np.zeros((3, 4, 1))
    table[1, 2] = 30.0
    attention.biases.assign(table)
    seen = layers.Intermediates([f"{attention.name}_weights"])
    attention(tokens, intermediates=seen)
    weights = np.asarray(seen.tensors[f"{attention.name}_weights"])[0, 0]
    # From row 1, column 1: row 0 or 2 and column 3.
    assert weights[5, [3, 11]].sum() == pytest.approx(1, abs=1e-6)


def test_a_fresh_stage_leaves_its_tokens_alone():
    stage = layers.LeViTStage(2, 2, 3, 4, 8, (2, 3))
    tokens = np.random.default_rng(0).normal(size=(2, 6, 5)).astype(np.float32)
    np.testing.assert_array_equal(stage(tokens), tokens)


def test_queries_of_the_step_between_stages_are_every_second_token():
    step = layers.SubsamplingAttention(1, 2, 2, (3, 4), width=6)
    tokens = np.random.default_rng(0).normal(size=(1, 12, 5)).astype(np.float32)
    step.build(tokens.shape)
    query, key, value = step.project(tokens, training=False)
    np.testing.assert_allclose(query, step.query(tokens[:, [0, 2, 8, 10]]), atol=1e-6)
    assert key.shape == value.shape == (1, 12, 2)


def test_two_heads_answer_by_their_mean_and_learn_apart():
    model = randomized(create_model("levit", **TINY))
    features = extract_features(model, images(model), ["logits_class", "logits_dist", "logits"])
    mean = (features["logits_class"] + features["logits_dist"]) / 2
    np.testing.assert_array_equal(features["logits"], mean)
    assert np.abs(features["logits_class"] - features["logits_dist"]).max() > 0.1
    in_training = model(images(model), training=True)
    assert isinstance(in_training, tuple) and [x.shape for x in in_training] == [(3, 5)] * 2


def test_a_single_head_answers_alone():
    model = randomized(create_model("levit", **TINY, distillation_head=False))
    assert set(model.heads) == {"head"}
    features = extract_features(model, images(model), ["head_input", "logits"])
    np.testing.assert_array_equal(model.head(features["head_input"]), features["logits"])
    assert model(images(model), training=True).shape == (3, 5)


def test_training_moves_every_statistic_by_a_tenth_of_the_batch():
    model = create_model("levit", **TINY)
    kept = model.stem.norms[0]
    model(images(model), training=True)
    first = np.pad(images(model), ((0, 0), (1, 1), (1, 1), (0, 0)))
    mean = np.asarray(model.stem.convolutions[0](first)).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(kept.moving_mean, 0.1 * mean, rtol=1e-4, atol=1e-7)
    changed = [w for w in model.non_trainable_weights if w.path.endswith("variance")]
    assert all(np.any(np.asarray(weight) != 1) for weight in changed)


def test_defaults_are_those_of_the_paper():
    model = create_model("levit", **{**TINY, "width": (16, 24, 32)})
    assert model.stem_widths == (2, 4, 8, 16)
    assert (model.value_dim, model.down_value_dim) == (8, 16)
    assert model.down_num_heads == (4, 6)
    assert without_allocation(lambda: create_model("levit_384").stochastic_depth) == 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": (1, 2, 3)}, "depth is one value for each of 2 stages"),
        ({"num_heads": (2, 0)}, "num_heads is a whole number from 1 up, got 0"),
        ({"stem_widths": (4, 6)}, r"must end in 8, the width of the first stage"),
        ({"stem_widths": ()}, "must end in 8"),
        ({"key_dim": 0}, "key_dim is a whole number from 1 up"),
        ({"down_stride": 0}, "down_stride is a whole number from 1 up"),
        ({"activation": "hard_swosh"}, "Did you mean 'hard_swish'"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        create_model("levit", **{**TINY, **changes})


def test_an_unknown_keyword_is_answered_with_the_closest():
    with pytest.raises(TypeError, match="Did you mean 'distillation_head'"):
        create_model("levit", **TINY, distilation_head=True)
