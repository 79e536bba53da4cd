"""Namings: every family goes through every file it can be written to; spellings; where to look."""

import functools
import re

import numpy as np
import pytest

import vit_tf
from vit_tf.checkpoints import CheckpointFileError
from vit_tf.checkpoints.files.opening import open_file, write_file
from vit_tf.checkpoints.names.namings import find_root, namings_of
from vit_tf.checkpoints.names.own import weights_by_path

_VIT = {"image_size": (16, 40), "patch_size": 8, "width": 16, "depth": 2, "num_heads": 2}
_VIT |= {"mlp_dim": 24, "num_classes": 5}
_HYBRID = _VIT | {"image_size": (32, 64), "patch_size": 1, "resnet_width_factor": 0.5}
_BIT = {"image_size": (32, 48), "resnet_width_factor": 0.5, "num_classes": 5}
_MIXER = {"image_size": (16, 24), "patch_size": (8, 4), "width": 16, "depth": 2}
_MIXER |= {"tokens_mlp_dim": 6, "channels_mlp_dim": 7, "num_classes": 5}

_CVT = {"image_size": (17, 30), "width": (8, 12), "depth": (1, 2), "num_heads": 2, "num_classes": 5}
_LEVIT = {"image_size": (36, 60), "width": (8, 12, 10), "depth": (1, 2, 1), "num_heads": (2, 3, 1)}
_LEVIT |= {"key_dim": 4, "num_classes": 5}

_CMT = _CVT | {"image_size": (17, 40), "stem_width": 4, "key_value_reduction": (2, 1)}

# Configuration -> family, what differs, the namings that can hold it.
_TORCH = "deit timm"
_ALL = f"vision_transformer big_vision {_TORCH} hugging_face hugging_face_deit pycls"
MODELS = {
    "token": ("vit", _VIT, _ALL),
    "gap": ("vit", _VIT | {"pool": "gap"}, _ALL),
    "map": (
        "vit",
        _VIT | {"pool": "map", "representation_size": 6},
        f"vision_transformer big_vision {_TORCH}",
    ),
    "dense": ("vit", _VIT | {"pool": "none"}, _ALL),
    "split": ("vit", _VIT | {"position_includes_class_token": False}, _ALL),
    "representation": (
        "vit",
        _VIT | {"representation_size": 6, "channels": 1},
        _ALL.replace(" pycls", ""),
    ),
    "no positions": ("vit", _VIT | {"position_embedding": "none", "num_classes": 0}, _ALL),
    "registers": ("vit", _VIT | {"num_registers": 2}, _TORCH),
    "deit3": ("deit3", _VIT | {"num_registers": 2}, _TORCH),
    "distilled": ("deit_distilled", _VIT, f"{_TORCH} hugging_face hugging_face_deit"),
    "distilled, split": (
        "deit_distilled",
        _VIT | {"position_includes_class_token": False},
        f"{_TORCH} hugging_face hugging_face_deit",
    ),
    "distilled, headless": (
        "deit_distilled",
        _VIT | {"num_classes": 0, "layer_scale_init": 0.1},
        _TORCH,
    ),
    "flexible": (
        "flexivit",
        _VIT | {"position_grid_size": (3, 2)},
        f"vision_transformer big_vision {_TORCH}",
    ),
    "hybrid": (
        "hybrid",
        _HYBRID | {"resnet_stages": (1, 2)},
        "vision_transformer big_vision timm_hybrid",
    ),
    "hybrid root": (
        "hybrid",
        _HYBRID | {"resnet_stages": (), "patch_size": 2, "pool": "gap"},
        "vision_transformer big_vision timm_hybrid",
    ),
    "bit": ("bit", _BIT | {"resnet_stages": (1, 2)}, "big_transfer timm_bit"),
    "bit of one class": (
        "bit",
        _BIT | {"resnet_stages": (1,), "num_classes": 1},
        "big_transfer timm_bit",
    ),
    "mixer": ("mixer", _MIXER, "mixer timm_mixer"),
    "headless mixer": ("mixer", _MIXER | {"num_classes": 0, "depth": 1}, "mixer timm_mixer"),
    "convolutional stem": (
        "vit_c",
        {k: v for k, v in _VIT.items() if k != "patch_size"}
        | {"stem_widths": (4, 8, 8), "stem_strides": (2, 1, 2)},
        "pycls",
    ),
    "one convolution": (
        "vit_c",
        {k: v for k, v in _VIT.items() if k != "patch_size"}
        | {"stem_widths": (4,), "stem_strides": (4,), "pool": "gap", "num_classes": 0},
        "pycls",
    ),
    "patchify twin": ("vit_c", _VIT, "pycls"),
    "dynamic": (
        "dynamic_vit",
        _VIT | {"pruning_blocks": (1,), "keep_ratios": (0.5,)},
        "dynamic_vit",
    ),
    "compact": ("compact_vit", _VIT, "compact_transformers"),
    "compact, convolutions": (
        "cct",
        {k: v for k, v in _VIT.items() if k != "patch_size"}
        | {"tokenizer_layers": 2, "position_embedding": "sincos1d", "num_classes": 0},
        "compact_transformers",
    ),
    "compact, class token": (
        "vit_lite",
        _VIT | {"patch_size": (8, 4), "channels": 1, "num_heads": 1},
        "compact_transformers",
    ),
    "cvt": ("cvt", _CVT, "cvt hugging_face_cvt"),
    "levit": ("levit", _LEVIT, "levit timm_levit"),
    "levit of one head": (
        "levit",
        _LEVIT | {"distillation_head": False, "mlp_ratio": 0, "value_dim": 3, "channels": 1},
        "levit timm_levit",
    ),
    "headless levit": (
        "levit",
        _LEVIT | {"num_classes": 0, "down_mlp_ratio": 0, "down_num_heads": 2},
        "levit timm_levit",
    ),
    "cmt": ("cmt", _CMT, "cmt"),
    "headless cmt": ("cmt", _CMT | {"num_classes": 0, "channels": 1}, "cmt"),
    "cvt of one stage": (
        "cvt",
        _CVT | {"width": (8,), "depth": 1, "num_heads": 1, "pool": "gap", "num_classes": 0},
        "cvt hugging_face_cvt",
    ),
}


@functools.cache
def _create(name):
    """A model with random weights and what it computes."""
    family, config, _ = MODELS[name]
    model = vit_tf.create_model(family, **config)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        value = rng.normal(size=weight.shape) * 0.5
        weight.assign(abs(value) + 0.1 if "variance" in weight.path else value)
    return model, _outputs(model)


def _outputs(model):
    size = (2, *model.image_size, model.channels)
    return np.asarray(model(np.random.default_rng(1).normal(size=size).astype(np.float32)))


def _forget(model):
    for weight in model.weights:
        weight.assign(np.ones(weight.shape))


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_in_any_naming_loads_again(name, tmp_path):
    model, expected = _create(name)
    values = {path: np.array(weight) for path, weight in weights_by_path(model).items()}
    try:
        for naming in MODELS[name][2].split():
            (known,) = [known for known in namings_of(model) if known.name == naming]
            path = str(tmp_path / f"{naming}{known.extension}")
            vit_tf.save_checkpoint(model, path, naming=naming)
            _forget(model)
            report = vit_tf.load_checkpoint(model, path, strict=True)
            assert not report.resized and not report.reset, naming
            np.testing.assert_allclose(_outputs(model), expected, rtol=0, atol=1e-5, err_msg=naming)
    finally:
        for path, weight in weights_by_path(model).items():
            weight.assign(values[path])


@pytest.mark.parametrize("name", MODELS)
def test_a_naming_without_a_name_for_a_weight_is_refused(name, tmp_path):
    model, _ = _create(name)
    for naming in namings_of(model):
        if naming.extension and naming.name not in MODELS[name][2].split():
            path = str(tmp_path / f"a{naming.extension}")
            with pytest.raises(ValueError, match=f"{naming.name} files have no name for"):
                vit_tf.save_checkpoint(model, path, naming=naming.name)


def _arrays(name, naming, tmp_path):
    model, _ = _create(name)
    path = str(tmp_path / "arrays.npz")
    vit_tf.save_checkpoint(model, path, naming=naming)
    with open_file(path) as file:
        return {key: np.array(array.read()) for key, array in file.arrays.items()}


def _loads(name, arrays, path):
    """Loads arrays into another model and tells whether it computes the same."""
    write_file(path, arrays)
    family, config, _ = MODELS[name]
    model = vit_tf.create_model(family, **config)
    report = vit_tf.load_checkpoint(model, str(path), strict=True)
    np.testing.assert_allclose(_outputs(model), _create(name)[1], rtol=0, atol=1e-5)
    return report


_NEWEST = (
    ("encoder.layer.", "layers."),
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)


@pytest.mark.parametrize(
    ("name", "naming"), [("token", "hugging_face"), ("distilled", "hugging_face_deit")]
)
def test_hugging_faces_names_since_transformers_5(name, naming, tmp_path):
    newest = {}
    for key, array in _arrays(name, naming, tmp_path).items():
        newest[functools.reduce(lambda k, names: k.replace(*names), _NEWEST, key)] = array
    assert f"{naming[13:] or 'vit'}.layers.1.attention.o_proj.bias" in newest
    report = _loads(name, newest, tmp_path / "a.safetensors")
    assert {key for keys in report.loaded.values() for key in keys} == set(newest)


def test_the_hugging_face_names_of_a_cvt(tmp_path):
    """As transformers' own conversion of the reference's files lists them."""
    keys = set(_arrays("cvt", "hugging_face_cvt", tmp_path))
    attention = "cvt.encoder.stages.1.layers.1.attention"
    projection = f"{attention}.attention.convolution_projection_key.convolution_projection"
    assert {
        "cvt.encoder.stages.0.embedding.convolution_embeddings.projection.weight",
        "cvt.encoder.stages.0.embedding.convolution_embeddings.normalization.bias",
        "cvt.encoder.stages.1.cls_token",
        f"{projection}.convolution.weight",
        f"{projection}.normalization.running_var",
        f"{projection}.normalization.num_batches_tracked",
        f"{attention}.attention.projection_query.bias",
        f"{attention}.output.dense.weight",
        "cvt.encoder.stages.1.layers.1.intermediate.dense.weight",
        "cvt.encoder.stages.1.layers.1.output.dense.bias",
        "cvt.encoder.stages.1.layers.1.layernorm_after.weight",
        "layernorm.weight",
        "classifier.bias",
    } <= keys


def test_a_bare_backbone_of_hugging_face_has_no_prefix(tmp_path):
    arrays = _arrays("no positions", "hugging_face", tmp_path)
    bare = {key.removeprefix("vit."): array for key, array in arrays.items()}
    _loads("no positions", bare, tmp_path / "a.safetensors")


def test_deits_own_names_of_layer_scale(tmp_path):
    arrays = _arrays("deit3", "timm", tmp_path)
    old = {re.sub(r"\.ls(\d)\.gamma", r".gamma_\1", key): a for key, a in arrays.items()}
    assert "blocks.1.gamma_2" in old
    _loads("deit3", old, tmp_path / "a.pth")


def test_timms_names_of_a_hybrid(tmp_path):
    keys = set(_arrays("hybrid", "timm_hybrid", tmp_path))
    backbone = {key for key in keys if key.startswith("patch_embed.backbone.")}
    assert len(backbone) == 3 + 3 * 9 + 2 * 3
    assert {
        "patch_embed.backbone.stem.norm.weight",
        "patch_embed.backbone.stages.0.blocks.0.downsample.conv.weight",
        "patch_embed.backbone.stages.1.blocks.0.downsample.norm.bias",
        "patch_embed.backbone.stages.1.blocks.1.conv3.weight",
        "patch_embed.proj.weight",
    } <= keys
    assert "patch_embed.backbone.conv.weight" in _arrays("hybrid root", "timm_hybrid", tmp_path)


PREFIXES = ("module.", "state_dict/", "state_dict/module.", "model/", "model/module.")


@pytest.mark.parametrize("prefix", [*PREFIXES, "a/b/c/d/model/module."])
def test_wrappers_of_a_torch_module_are_passed(prefix, tmp_path):
    arrays = {prefix + key: a for key, a in _arrays("token", "timm", tmp_path).items()}
    report = _loads("token", arrays, tmp_path / "a.pth")
    assert report.naming == ("deit" if "model" in prefix else "timm")


def test_the_model_is_preferred_to_its_average_and_to_the_optimizers_moments(tmp_path):
    arrays = _arrays("token", "timm", tmp_path)
    other = {key: 2 * array for key, array in arrays.items()}
    stored = {f"model_ema/{key}": array for key, array in other.items()}
    stored |= {f"optimizer/exp_avg/{key}": array for key, array in other.items()}
    stored |= {f"model/{key}": array for key, array in arrays.items()}
    report = _loads("token", stored, tmp_path / "a.pth")
    assert len(report.skipped) == 2 * len(arrays)
    with open_file(str(tmp_path / "a.pth")) as file:
        assert find_root(file, "model_ema")[1] == "model_ema/"
        assert find_root(file, "optimizer/exp_avg")[1] == "optimizer/exp_avg/"
        with pytest.raises(CheckpointFileError, match="a.pth has no part 'average'"):
            find_root(file, "average")


def test_the_model_of_several_processes_is_preferred_to_its_average(tmp_path):
    arrays = _arrays("token", "timm", tmp_path)
    stored = {f"model_ema/{key}": 2 * array for key, array in arrays.items()}
    stored |= {f"model/module.{key}": array for key, array in arrays.items()}
    _loads("token", stored, tmp_path / "a.pth")


def test_two_spellings_of_one_weight_are_not_both_loaded(tmp_path):
    arrays = _arrays("deit3", "timm", tmp_path)
    write_file(tmp_path / "a.pth", arrays | {"blocks.0.gamma_1": arrays["blocks.0.ls1.gamma"]})
    family, config, _ = MODELS["deit3"]
    with pytest.raises(ValueError, match=r"unexpected  blocks\.0\.\S+ \(the same as blocks\.0\."):
        vit_tf.load_checkpoint(
            vit_tf.create_model(family, **config), str(tmp_path / "a.pth"), strict=True
        )


def test_what_a_vit_cannot_have_is_told(tmp_path):
    """A norm behind the pooling, norms of queries and keys, a norm before the blocks."""
    arrays = _arrays("gap", "timm", tmp_path)
    width = {end: arrays[f"norm.{end}"] for end in ("weight", "bias")}
    stored = {key: a for key, a in arrays.items() if not key.startswith("norm.")}
    stored |= {f"fc_norm.{end}": array for end, array in width.items()}
    stored |= {"norm_pre.weight": width["weight"], "blocks.0.attn.q_norm.weight": np.ones(8)}
    write_file(tmp_path / "a.pth", stored)
    family, config, _ = MODELS["gap"]
    model = vit_tf.create_model(family, **config)
    with pytest.warns(UserWarning, match="fc_norm"):
        report = vit_tf.load_checkpoint(model, str(tmp_path / "a.pth"))
    assert set(report.missing) == {"encoder_norm/gamma", "encoder_norm/beta"}
    others = {"norm_pre.weight", "blocks.0.attn.q_norm.weight"}
    assert set(report.unexpected) == {"fc_norm.weight", "fc_norm.bias"} | others
