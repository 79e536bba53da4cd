"""Models by their name, by a run's folder, or as a SavedModel: the same outputs each way."""

import gin
import numpy as np
import pytest
import tensorflow as tf

from vit_tf.checkpoints import save_checkpoint
from vit_tf.training import configuration
from vit_tf.training.named_models import load_models
from vit_tf.training.run import run

BINDINGS = (
    "create_model.width = 16",
    "create_model.depth = 1",
    "create_model.num_heads = 2",
    "create_model.mlp_dim = 32",
    "create_model.patch_size = 4",
    "RunConfig.jit_compile = False",
    "RunConfig.strategy = 'cpu'",
    "RunConfig.steps = 8",
    "RunConfig.eval_interval = 4",
    "cosine.warmup = 1",
    "eval/Input.preprocess = 'decode|resize(9)|central_crop(8)|value_range(-1, 1)'",
)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (5, 8, 8, 3)).astype("float32")


@pytest.fixture(scope="module")
def described(digits_dir):
    bindings = [*BINDINGS, f"DATA_DIR = '{digits_dir}'"]
    yield {"gin_files": ["gin/quickstart.gin"], "gin_params": bindings}
    gin.clear_config()


@pytest.fixture(scope="module")
def folder(described, tmp_path_factory):
    """A run with an export of its checkpoint at step 4."""
    model_dir = str(tmp_path_factory.mktemp("run"))
    configuration.parse(*described.values())
    run("train", model_dir)
    run("export", model_dir, checkpoint="4")
    return model_dir


@pytest.mark.slow
def test_a_run_its_export_and_its_file_answer_alike(described, folder, tmp_path):
    (of_run,) = load_models(**described, model_dirs=[folder], checkpoint="4")
    (saved,) = load_models(saved_models=[f"{folder}/export"])
    expected = of_run.predict(IMAGES)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(saved.predict(IMAGES), expected, atol=1e-5)
    served = tf.saved_model.load(saved.saved_model).signatures["image"]
    pixels = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), np.uint8)
    assert served(images=pixels)["logits"].shape == (3, 10)
    # A run is evaluated, and was exported, with the preprocessing of its evaluation.
    assert of_run.preprocess == saved.preprocess.replace('"', "'") == BINDINGS[-1].split("'")[1]
    assert of_run.name.endswith("step 4")


@pytest.mark.slow
def test_without_a_folder_weights_are_fresh(described, folder):
    (fresh,) = load_models(**described)
    (also,) = load_models(**described, model_dirs=[folder], checkpoint="none")
    (trained,) = load_models(**described, model_dirs=[folder])
    np.testing.assert_array_equal(fresh.predict(IMAGES), also.predict(IMAGES))
    assert not np.array_equal(fresh.predict(IMAGES), trained.predict(IMAGES))
    assert fresh.name == "model fresh"


def test_names_take_their_weights_in_order(tmp_path):
    (model,) = load_models(["vit_ti16"])
    save_checkpoint(model.model, tmp_path / "own.npz")
    two = load_models(["vit_ti16", "vit_ti16"], [str(tmp_path / "own.npz"), "none"])
    assert [one.name for one in two] == ["vit_ti16 own.npz", "vit_ti16 fresh"]
    kernel = [one.model.weights[0].numpy() for one in (model, *two)]
    np.testing.assert_array_equal(kernel[0], kernel[1])
    assert not np.array_equal(kernel[0], kernel[2])
    assert two[0].preprocess == model.model.preprocessing.ops
    (other,) = load_models(["vit_ti16"], preprocess="decode|resize(224)|value_range(0, 1)")
    assert other.preprocess == "decode|resize(224)|value_range(0, 1)"


def test_a_keras_file_is_a_model_without_a_name(tmp_path):
    (model,) = load_models(["vit_ti16"])
    model.model.save(tmp_path / "own.keras")
    (read,) = load_models(weights=[str(tmp_path / "own.keras")])
    assert read.name == "own.keras" and read.preprocess == model.preprocess
    images = np.ones((1, 224, 224, 3), "float32")
    np.testing.assert_array_equal(read.predict(images), model.predict(images))
    with pytest.raises(ValueError, match="--weights goes with --model: augreg_in21k does not say"):
        load_models(weights=["augreg_in21k"])


def test_what_does_not_go_together_is_said(tmp_path):
    with pytest.raises(ValueError, match="name a model"):
        load_models()
    with pytest.raises(ValueError, match="one for all models or one each; given 2 for 1"):
        load_models(["vit_ti16"], ["a", "b"])
    with pytest.raises(ValueError, match="--model_dir needs --gin_file"):
        load_models(model_dirs=["runs/a"])
    with pytest.raises(FileNotFoundError, match="is no SavedModel, .*tools/export.py"):
        load_models(saved_models=[str(tmp_path)])


def test_a_size_that_is_left_open_is_the_models(described):
    template = "eval/Input.preprocess = 'decode|resize({size * 5 / 4})|central_crop({size})'"
    params = [*described["gin_params"], template, "Input.image_size = 16"]
    params.append("create_model.image_size = 16")
    (model,) = load_models(gin_files=described["gin_files"], gin_params=params)
    assert model.preprocess == "decode|resize(20)|central_crop(16)"
