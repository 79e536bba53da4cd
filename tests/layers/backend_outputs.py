"""What every layer and one tiny model of every family compute on Keras' current backend.

`python backend_outputs.py FILE.npz` writes it to a file; KERAS_BACKEND chooses the backend.
"""

import sys

import keras
import numpy as np
from layer_examples import EXAMPLES, set_weights_by_path

from vit_tf.models import create_model, extract_features

if keras.backend.backend() != "tensorflow":
    assert "tensorflow" not in sys.modules, "vit_tf.layers or vit_tf.models imported it"

_BODY = {"image_size": (16, 24), "width": 16, "depth": 2, "num_classes": 5}
_VIT = {**_BODY, "num_heads": 2, "mlp_dim": 24}
_PATCHES = {**_VIT, "patch_size": 8}
_RESNET = {"image_size": (32, 48), "resnet_width_factor": 0.5, "resnet_stages": (1, 1)}
MODELS = {
    "vit": {**_PATCHES, "pool": "map", "num_registers": 2, "representation_size": 6},
    "hybrid": {**_VIT, **_RESNET},
    "deit": _PATCHES,
    "deit_distilled": _PATCHES,
    "deit3": _PATCHES,
    "bit": {**_RESNET, "num_classes": 5},
    "mixer": {**_BODY, "patch_size": 8, "tokens_mlp_dim": 6, "channels_mlp_dim": 24},
    "flexivit": {**_PATCHES, "position_grid_size": 3, "default_patch_size": 4},
    "cct": {**_VIT, "tokenizer_layers": 2, "position_embedding": "sincos1d"},
    "compact_vit": _PATCHES,
    "dynamic_vit": {**_PATCHES, "pruning_blocks": (1,), "keep_ratios": (0.5,)},
    "vit_lite": _PATCHES,
    "vit_c": {**_VIT, "stem_widths": (4, 4, 6)},
    "cmt": {**_BODY, "width": (8, 16), "num_heads": (1, 2), "key_value_reduction": (2, 1)},
    "levit": {
        **_BODY,
        "image_size": 32,
        "width": (8, 12),
        "depth": (1, 2),
        "num_heads": 2,
        "key_dim": 4,
        "stem_widths": (4, 8),
    },
    "cvt": {**_BODY, "width": (8, 16), "depth": (1, 2), "num_heads": (1, 2)},
}


def compute_outputs() -> dict[str, np.ndarray]:
    """Outputs of the layers, logits and all named intermediates of the models, by name."""
    outputs = {}
    for name, example in EXAMPLES.items():
        given = example.create()(example.inputs, **example.arguments)
        outputs[f"layers/{name}"] = keras.ops.convert_to_numpy(given)
    for name, config in MODELS.items():
        model = set_weights_by_path(create_model(name, **config))
        random = np.random.default_rng(0)
        images = random.uniform(-1, 1, (2, *model.image_size, 3)).astype(np.float32)
        for key, tensor in extract_features(model, images, model.intermediate_names).items():
            outputs[f"models/{name}/{key}"] = keras.ops.convert_to_numpy(tensor)
    return outputs


if __name__ == "__main__":
    np.savez(sys.argv[1], **compute_outputs())
