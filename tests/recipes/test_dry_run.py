"""A dry run says what a run would be, and which files it lacks, without any of them."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import gin
import keras
import pytest
import tensorflow as tf

from vit_tf.training import configuration
from vit_tf.training.run import run

ROOT = Path(__file__).resolve().parents[2]
TINY = "create_model.width = 24", "create_model.num_heads = 2", "create_model.depth = 2"


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


def plan(*files, bindings=(), model_dir=None):
    configuration.parse([*files], [*bindings, "RunConfig.strategy = 'cpu'"])
    return run(mode="train", model_dir=model_dir and str(model_dir), only_plan=True)


def test_data_that_is_there_is_found_and_its_sizes_are_those_of_the_files(digits_dir):
    planned = plan("gin/quickstart.gin", bindings=[f"DATA_DIR = '{digits_dir}'", *TINY])
    assert not planned.missing
    assert planned.length.examples_per_epoch == 1437
    assert "1,200 steps = 106.9 epochs = 153,600 examples" in str(planned)
    assert f"found      data {digits_dir}" in str(planned)


@pytest.mark.parametrize("name, count", [("cct_2_3x2", 283_723), ("vit", 281_226)])
def test_a_benchmark_of_training_can_be_planned(name, count, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    configs = importlib.import_module("compact").MODELS.values()
    (config,) = (config for config in configs if config["name"] == name)
    bindings = [f"create_model.{key} = {value!r}" for key, value in config.items()]
    planned = plan("benchmarks/compact.gin", bindings=[*bindings, "RunConfig.epochs = 2"])
    assert planned.parameters == count and planned.length.steps == 781


def test_data_that_is_missing_and_of_unknown_size_leaves_the_rest(tmp_path):
    planned = plan("gin/recipes/photos.gin", bindings=[f"DATA_DIR = '{tmp_path}/no'"])
    assert planned.length is None and planned.parameters == 474_053
    assert "unknown: the data is missing" in str(planned)
    assert all("make_tfrecords" in file.problem for file in planned.missing)


def test_parameters_slots_and_gradients_are_counted_in_bytes(digits_dir):
    planned = plan("gin/quickstart.gin", bindings=[f"DATA_DIR = '{digits_dir}'", *TINY])
    model = configuration.bound("create_model")()
    count = sum(weight.shape.num_elements() for weight in model.trainable_weights)
    assert planned.parameters == count
    expected = {"weights": 4 * count, "gradients": 4 * count, "optimizer in float32": 8 * count}
    assert planned.memory == expected
    averaged = plan(
        "gin/quickstart.gin",
        bindings=[f"DATA_DIR = '{digits_dir}'", *TINY, "RunConfig.ema = @Ema()"],
    )
    assert averaged.memory == {**expected, "average of weights": 4 * count}


def test_the_rates_are_those_that_the_optimizer_would_take(digits_dir, tmp_path):
    planned = plan(
        "gin/quickstart.gin",
        bindings=[f"DATA_DIR = '{digits_dir}'", *TINY],
        model_dir=tmp_path,
    )
    rates = planned.rates
    assert rates[0] == 0.0 and max(rates.values()) == rates[60] == pytest.approx(3e-3)
    assert rates[1199] < 1e-7
    png = tmp_path / "pictures" / "schedule.png"
    assert tf.io.decode_png(png.read_bytes()).shape[2] == 4
    assert os.listdir(tmp_path) == ["pictures"]


def test_nothing_is_allocated_and_nothing_of_the_plan_stays(digits_dir):
    huge = [
        "create_model.width = 16384",
        "create_model.depth = 2",
        "create_model.num_heads = 16",
        "create_model.mlp_dim = 32768",
    ]
    planned = plan("gin/quickstart.gin", bindings=[f"DATA_DIR = '{digits_dir}'", *huge])
    assert planned.parameters > 4e9
    assert sum(planned.memory.values()) > 64e9
    assert keras.config.dtype_policy().name == "float32"
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    assert layer.kernel.numpy().shape == (3, 2)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("create_model.num_classes = 7", "7 classes|10 classes"),
        ("Optimization.weight_decay_table = ((r'haed/kernel', 1.0), ('.*', 0.0))", "haed/kernel"),
        ("cosine.warmup = 5000", "do not fit a run of 1200 steps"),
        ("train/Input.preprocess = 'decode|random_crop(12)'", "smaller|image|shape"),
    ],
)
def test_what_would_be_an_error_in_the_run_is_one(digits_dir, binding, message):
    with pytest.raises((ValueError, TypeError), match=message):
        plan("gin/quickstart.gin", bindings=[f"DATA_DIR = '{digits_dir}'", *TINY, binding])


EVALUATOR = (
    "run.evaluators = [@probed/ProbeEvaluator]",
    "probed/ProbeEvaluator.name = 'neighbours'",
    "probed/ProbeEvaluator.every = 300",
    "probed/ProbeEvaluator.probe = @KNNProbe()",
    "probed/ProbeEvaluator.train_input = @eval/Input()",
    "probed/ProbeEvaluator.test_input = @eval/Input()",
)


def test_evaluators_are_told_and_checked_against_the_model(digits_dir, tmp_path):
    there = f"DATA_DIR = '{digits_dir}'"
    planned = plan("gin/quickstart.gin", bindings=[there, *TINY, *EVALUATOR])
    assert "evaluator  neighbours, every 300 steps" in str(planned)
    with pytest.raises(ValueError, match="neighbours.*block07/out"):
        wrong = "KNNProbe.features = 'block07/out'"
        plan("gin/quickstart.gin", bindings=[there, *TINY, *EVALUATOR, wrong])
    elsewhere = f"probed/TFDSSource.data_dir = '{tmp_path}/no'"
    own = ("probed/Input.source = @probed/TFDSSource()", "probed/Input.training = False",
           "probed/Input.batch_size = 8", "probed/Input.preprocess = 'decode|resize(8)'",
           "probed/TFDSSource.split = 'test'",
           "probed/ProbeEvaluator.train_input = @probed/Input()")  # fmt: skip
    planned = plan("gin/quickstart.gin", bindings=[there, *TINY, *EVALUATOR, *own, elsewhere])
    assert [file.role for file in planned.missing] and "neighbours" not in str(planned)


def execute(*params):
    given = [f"--gin_param={param}" for param in (*params, *TINY)]
    command = [sys.executable, "tools/train.py", "--gin_file=gin/quickstart.gin", "--dry_run"]
    return subprocess.run([*command, *given], cwd=ROOT, capture_output=True, text=True)


def test_as_a_process_it_exits_with_2_if_only_files_are_missing(tmp_path):
    missing = execute(
        f"DATA_DIR = '{tmp_path}/absent'",
        "RunConfig.steps = 300",
        "TFDSSource.expected_examples = 2000",
        "TFDSSource.expected_classes = 10",
    )
    assert missing.returncode == 2, missing.stderr
    assert f"MISSING    data {tmp_path}/absent" in missing.stdout
    assert "300 steps = 19.2 epochs" in missing.stdout
    assert "weight decay, x 0.05" in missing.stdout


@pytest.mark.slow
def test_as_a_process_it_exits_with_0_if_all_is_there_and_with_1_for_an_error(digits_dir):
    found = execute(f"DATA_DIR = '{digits_dir}'")
    assert found.returncode == 0, found.stderr
    assert "found" in found.stdout and "MISSING" not in found.stdout
    wrong = execute("cosine.warmpu = 3")
    assert wrong.returncode == 1 and "Did you mean 'warmup" in wrong.stderr
