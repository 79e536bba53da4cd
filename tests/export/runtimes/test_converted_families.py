"""Models of every family run in the other runtimes."""

import numpy as np
import pytest
from tiny_exports import write_export

from vit_tf.export.runtimes import convert, load
from vit_tf.export.runtimes.served_model import ServedModel

NOT_A_TRANSFORMER = {"depth": None, "mlp_dim": None, "num_heads": None, "patch_size": None}
FAMILIES = {
    "hybrid": {"image_size": 32, "patch_size": 1, "resnet_stages": (1,)},
    "bit": {**NOT_A_TRANSFORMER, "image_size": 32, "width": None, "resnet_stages": (1,)},
    "deit_distilled": {},
    "deit3": {},
    "mixer": {"mlp_dim": None, "num_heads": None, "tokens_mlp_dim": 8, "channels_mlp_dim": 32},
    "vit_c": {"patch_size": None, "stem_widths": (4, 4, 6, 8)},
    "flexivit": {},
    "cvt": {"patch_size": None, "width": (8, 16), "mlp_dim": None, "key_value_stride": (2, 1)},
    "cct": {"patch_size": None, "tokenizer_layers": 2},
    "cmt": {
        "image_size": 64,
        "width": (8, 16),
        "depth": 1,
        "num_heads": (1, 2),
        "key_value_reduction": (2, 1),
        "mlp_dim": None,
        "patch_size": None,
    },
    "dynamic_vit": {"depth": 2, "pruning_blocks": (1,), "keep_ratios": (0.5,)},
    "levit": {
        "image_size": 64,
        "width": (8, 12),
        "depth": (1, 2),
        "key_dim": 4,
        "mlp_dim": None,
        "patch_size": None,
    },
}


@pytest.fixture(scope="module")
def runtimes():
    for extra in ("ai_edge_litert", "tf2onnx", "onnxruntime", "openvino"):
        pytest.importorskip(extra)


@pytest.mark.slow
def test_hard_swish_is_one_operation_of_litert(runtimes, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    served = ServedModel(write_export(tmp_path / "1", "levit", **FAMILIES["levit"]))
    folder = convert(served, "litert_float32", str(tmp_path / "litert"))
    operations = [op["op_name"] for op in Interpreter(f"{folder}/model.tflite")._get_ops_details()]
    # Three in the stem, and one for each attention and each MLP of three layers and a step.
    assert operations.count("HARD_SWISH") == 3 + 2 * 4
    assert "GATHER" not in operations  # the biases of all pairs are constants


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_gives_the_saved_models_logits(runtimes, tmp_path, family):
    served = ServedModel(write_export(tmp_path / "1", family, **FAMILIES[family]))
    images = np.random.default_rng(0).uniform(-1, 1, (3, *served.image_shape)).astype(np.float32)
    expected = served(images)["logits"]
    for kind in ("litert_float32", "onnx", "openvino"):
        found = load(convert(served, kind, str(tmp_path / kind)))(images)["logits"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
