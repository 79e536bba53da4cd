"""CMT: grids, positions of pairs and their resize, statistics, numbers of the reference."""

import numpy as np
import pytest

import vit_tf
from vit_tf.checkpoints.files.opening import open_file, write_file
from vit_tf.models import create_model, extract_features, without_allocation

TINY = {
    "width": (8, 12),
    "depth": (2, 1),
    "num_heads": (2, 3),
    "key_value_reduction": (2, 1),
    "stem_width": 4,
    "representation_size": 10,
    "num_classes": 5,
}


def tiny(**changes):
    """A model with random weights, batch statistics too."""
    model = create_model("cmt", **{**TINY, "image_size": (24, 32), **changes})
    random = np.random.default_rng(0)
    for weight in model.weights:
        value = random.normal(scale=0.4, size=weight.shape)
        weight.assign(np.exp(value) if weight.path.endswith(("variance", "gamma")) else value)
    return model


def images_for(model, batch=2):
    shape = (batch, *model.image_size, model.channels)
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def features(model, *names, **arguments):
    found = extract_features(model, images_for(model), names, **arguments)
    return [np.asarray(found[name], np.float64) for name in names]


@pytest.mark.parametrize(
    ("name", "size", "grids", "pairs"),
    [
        ("CMT-Ti", None, (40, 20, 10, 5), 75_000),
        ("CMT-XS", None, (48, 24, 12, 6), 155_520),
        ("CMT-S", None, (56, 28, 14, 7), 288_120),
        ("CMT-B", None, (64, 32, 16, 8), 491_520),
        ("CMT-Ti", 161, (40, 20, 10, 5), 75_000),  # the stem rounds up, the stages down
        ("CMT-Ti", 100, (25, 12, 6, 3), 625 * 9 + 2 * 144 * 9 + 4 * 36 * 9 + 8 * 9 * 9),
    ],
)
def test_grids_and_numbers_of_positions(name, size, grids, pairs):
    def facts():
        model = create_model(name, **({"image_size": size} if size else {}))
        return model.grid_sizes, sum(int(np.prod(p.table.shape)) for p in model.positions)

    assert without_allocation(facts) == (tuple((side, side) for side in grids), pairs)


def test_positions_are_added_before_the_softmax_in_every_block_of_a_stage():
    model = tiny()
    names = [f"stage0/block{block:02d}/attn_weights" for block in (0, 1)]
    with_positions = features(model, *names)
    table = np.asarray(model.positions[0].table, np.float64).reshape(2, 48, 12)
    model.positions[0].table.assign(np.zeros(model.positions[0].table.shape))
    without = features(model, names[0])[0]
    expected = without * np.exp(table)
    expected /= expected.sum(-1, keepdims=True)
    np.testing.assert_allclose(with_positions[0], expected, atol=1e-5)
    assert not np.allclose(features(model, names[1])[0], with_positions[1], atol=1e-3)
    assert len(model.positions) == 2


def test_keys_are_of_a_grid_of_whole_windows():
    model = tiny(image_size=(28, 32), key_value_reduction=(3, 2))
    shapes = [
        w.shape[1:] for w in features(model, *(f"stage{s}/block00/attn_weights" for s in (0, 1)))
    ]
    assert model.grid_sizes == ((7, 8), (3, 4))
    assert shapes == [(2, 56, 2 * 2), (3, 12, 1 * 2)]


def ramp(positions):
    """A table that is linear in the places of the pair, 0 to 1 from one border to the other."""
    sides = (*positions.query_grid, *positions.key_grid)
    places = np.meshgrid(*(np.linspace(0, 1, side) for side in sides), indexing="ij")
    heads = np.arange(1, 1 + positions.table.shape[0]).reshape(-1, 1, 1, 1, 1)
    return heads * (places[0] + 2 * places[1] - 3 * places[2] + 0.5 * places[3])


@pytest.mark.parametrize("size", [(48, 48), (64, 96), (40, 72)])
@pytest.mark.parametrize("extension", ["pth", "keras"])
def test_positions_are_resized_along_the_grids_of_queries_and_keys(size, extension, tmp_path):
    model, path = tiny(image_size=(32, 32)), str(tmp_path / f"model.{extension}")
    for positions in model.positions:
        positions.table.assign(ramp(positions))
    vit_tf.save_checkpoint(model, path)
    other = create_model("cmt", **TINY, image_size=size)
    report = vit_tf.load_checkpoint(other, path, strict=True, position_resize="corner_aligned")
    assert sorted(report.resized) == ["stage0/positions/table", "stage1/positions/table"]
    for positions in other.positions:
        np.testing.assert_allclose(positions.table, ramp(positions), atol=1e-5)
    assert np.isfinite(other(images_for(other))).all()


def test_a_file_of_a_grid_that_is_not_square_loads_into_a_model_of_that_grid(tmp_path):
    model, path = tiny(), str(tmp_path / "model.pth")
    vit_tf.save_checkpoint(model, path)
    same = create_model("cmt", **TINY, image_size=model.image_size)
    assert not vit_tf.load_checkpoint(same, path, strict=True).resized
    np.testing.assert_allclose(same(images_for(model)), model(images_for(model)), atol=1e-5)


def test_a_table_of_other_heads_is_refused(tmp_path):
    path = str(tmp_path / "model.pth")
    vit_tf.save_checkpoint(tiny(), path)
    with open_file(path) as file:
        arrays = {key: np.array(array.read()) for key, array in file.arrays.items()}
    arrays["model/relative_pos_a"] = arrays["model/relative_pos_a"][:1]
    write_file(path, arrays)
    with pytest.raises(ValueError, match="stage0/positions/table"):
        vit_tf.load_checkpoint(tiny(), path, strict=True)


def test_the_stem_activates_before_it_normalises():
    model = tiny()
    (normed,) = features(model, "stem/norm1", training=True)
    norm = model.stem.norms[0]
    normalized = (normed - np.asarray(norm.beta)) / np.asarray(norm.gamma)
    np.testing.assert_allclose(normalized.mean(axis=(0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(normalized.std(axis=(0, 1, 2)), 1, atol=1e-3)


def test_numbers_are_those_of_the_reference():
    model = tiny(stochastic_depth=0.2)
    block = model.blocks[0]
    assert {embedding.norm.epsilon for embedding in model.embeddings} == {1e-5}
    assert {norm.epsilon for norm in (block.attention_norm, block.mlp_norm)} == {1e-6}
    norms = (block.mlp.norm_in, block.attention.reduce_norm, model.final_norm, model.stem.norms[0])
    assert {(norm.epsilon, norm.momentum) for norm in norms} == {(1e-5, 0.9)}
    rates = [block.mlp_depth.rate for block in model.blocks]
    np.testing.assert_allclose(rates, [0, 0.1, 0.2])  # over all stages
    assert model.blocks[-1].attention.reduce is None


def test_kernels_start_as_torchs_fan_out_has_them():
    model = create_model("cmt", **{**TINY, "width": (64, 96), "mlp_dim": 200}, image_size=16)
    block = model.blocks[0]
    for kernel, fan_out in (
        (block.mlp.conv_in.kernel, 200),
        (block.mlp.depthwise.kernel, 9 * 200),
        (block.attention.reduce.kernel, 4 * 64),
        (model.embeddings[1].projection.kernel, 4 * 96),
    ):
        np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / fan_out), rtol=0.1)


def test_variants_are_of_the_reference():
    model = without_allocation(lambda: create_model("cmt_ti"))
    assert model.mlp_dim == (165, 331, 662, 1324)  # 3.6 x the width, rounded down
    assert model.preprocessing.crop_ratio == 0.875 and model.image_size == (160, 160)
    dropouts = [
        without_allocation(lambda name=name: create_model(name).dropout)
        for name in ("cmt_xs", "cmt_b")
    ]
    assert dropouts == [0.1, 0.3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": (1, 2, 3)}, "depth is one value for each of 2 stages"),
        ({"key_value_reduction": (8, 4, 2, 1)}, "key_value_reduction is one value for each of 2"),
        ({"key_value_reduction": 8}, "A reduction by 8 leaves no key of a grid of 6 x 8"),
        ({"num_heads": 5}, "num_heads=5 does not divide width=8"),
        ({"image_size": 4}, "too small: the stages' grids would be 1 x 1, 0 x 0"),
        ({"representation_size": 0}, "representation_size is a whole number from 1 up"),
    ],
)
def test_configuration_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)
