"""Reads the reference checkpoints of `golden/` into a model, name by name, for parity tests."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np

from vit_tf.models import create_model


def load_case(folder: Path):
    """Returns (model with the case's weights, arrays of io.npz, meta.json)."""
    meta = json.loads((folder / "meta.json").read_text())
    stored = {key: _float32(value) for key, value in np.load(folder / "checkpoint.npz").items()}
    stored = {key.removeprefix("params/"): value for key, value in stored.items()}
    model = create_model("vit", **_configuration(meta))
    _load(model, stored)
    return model, dict(np.load(folder / "io.npz")), meta


def _configuration(meta):
    config = meta["config"]
    positions = config["position_embedding"]
    return {
        "image_size": tuple(config["image_size"]),
        "patch_size": config["patch"],
        "width": config["width"],
        "depth": config["depth"],
        "num_heads": config["heads"],
        "mlp_dim": config["mlp_dim"],
        "num_classes": config["num_classes"],
        "pool": "token" if config["pool"] == "tok" else config["pool"],
        "representation_size": config["representation_size"],
        "position_embedding": "sincos2d" if "sine" in positions else "learned",
        "position_includes_class_token": meta["family"] == "vision_transformer",
    }


def _float32(array):
    if array.dtype.kind == "V":  # numpy does not know bfloat16
        array = array.view(ml_dtypes.bfloat16)
    return array.astype(np.float32)


def _load(model, stored):
    unused = set(stored)

    def take(key, shape):
        unused.discard(key)
        return stored[key].reshape(shape)

    def assign(layer, *keys_of_weights):
        """Sets each weight from one key, or from several that are joined along the last axis."""
        values = []
        for weight, keys in zip(layer.weights, keys_of_weights, strict=True):
            keys = [keys] if isinstance(keys, str) else keys
            shape = (*weight.shape[:-1], weight.shape[-1] // len(keys))
            values.append(np.concatenate([take(key, shape) for key in keys], axis=-1))
        layer.set_weights(values)

    def assign_dense(layer, *keys):
        assign(layer, [f"{key}/kernel" for key in keys], [f"{key}/bias" for key in keys])

    def assign_norm(layer, key):
        assign(layer, f"{key}/scale", f"{key}/bias")

    def assign_mlp(layer, key):
        assign_dense(layer.dense_in, f"{key}/Dense_0")
        assign_dense(layer.dense_out, f"{key}/Dense_1")

    stored = _unstack_blocks(stored, model.depth)
    unused = set(stored)
    assign_dense(model.patch_embedding, "embedding")
    for index, block in enumerate(model.blocks):
        key = f"Transformer/encoderblock_{index}"
        attention = f"{key}/MultiHeadDotProductAttention_0"
        assign_norm(block.attention_norm, f"{key}/LayerNorm_0")
        fused = [f"{attention}/{part}" for part in ("query", "key", "value")]
        assign_dense(block.attention.query_key_value, *fused)
        assign_dense(block.attention.out, f"{attention}/out")
        assign_norm(block.mlp_norm, f"{key}/LayerNorm_1")
        assign_mlp(block.mlp, f"{key}/MlpBlock_0")
    assign_norm(model.encoder_norm, "Transformer/encoder_norm")
    if model.class_token is not None:
        assign(model.class_token, "cls")
    if model.position_embedding == "learned":
        assign(model.positions, next(key for key in stored if key.endswith("pos_embedding")))
    if model.map_head is not None:
        head, attention = model.map_head, "MAPHead_0/MultiHeadDotProductAttention_0"
        head.probe.assign(take("MAPHead_0/probe", head.probe.shape))
        assign_dense(head.query, f"{attention}/query")
        assign_dense(head.key_value, f"{attention}/key", f"{attention}/value")
        assign_dense(head.out, f"{attention}/out")
        assign_norm(head.norm, "MAPHead_0/LayerNorm_0")
        assign_mlp(head.mlp, "MAPHead_0/MlpBlock_0")
    if model.pre_logits is not None:
        assign_dense(model.pre_logits, "pre_logits")
    assign_dense(model.head, "head")
    assert not unused, f"stored but not loaded: {sorted(unused)}"


def _unstack_blocks(stored, depth):
    """Splits blocks that are stacked along a leading axis (big_vision's scan)."""
    flat = {}
    for key, value in stored.items():
        if key.startswith("Transformer/encoderblock/"):
            for index in range(depth):
                name = key.replace("encoderblock", f"encoderblock_{index}")
                flat[name] = value[index]
        else:
            flat[key] = value
    return flat
