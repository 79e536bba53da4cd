"""tools/evaluate.py: models x data sets, as a table, CSV and JSON."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import gin
import pytest

from vit_tf.evaluation.named_data import parse_data
from vit_tf.training import configuration
from vit_tf.training.evaluate_models import (
    evaluate_models,
    evaluate_probes,
    results_table,
    write_results,
)
from vit_tf.training.named_models import load_models
from vit_tf.training.run import run

ROOT = Path(__file__).resolve().parents[2]
BINDINGS = (
    "create_model.width = 32",
    "create_model.depth = 2",
    "create_model.num_heads = 2",
    "create_model.mlp_dim = 64",
    "create_model.patch_size = 4",
    "RunConfig.jit_compile = False",
    "RunConfig.strategy = 'cpu'",
    "RunConfig.steps = 30",
    "RunConfig.eval_interval = 30",
    "cosine.warmup = 2",
)


@pytest.fixture(scope="module")
def described(digits_dir):
    yield {
        "gin_files": ["gin/quickstart.gin"],
        "gin_params": [*BINDINGS, f"DATA_DIR = '{digits_dir}'"],
    }
    gin.clear_config()


@pytest.fixture(scope="module")
def trained(described, tmp_path_factory):
    """Folder of a run, and what its own evaluation found."""
    model_dir = str(tmp_path_factory.mktemp("run"))
    configuration.parse(*described.values())
    values = run("train_and_eval", model_dir)
    run("export", model_dir)
    return model_dir, values


@pytest.fixture(scope="module")
def rows(described, trained, digits_dir):
    models = load_models(
        saved_models=[f"{trained[0]}/export"], **described, model_dirs=[trained[0]]
    )
    data = [parse_data(f"all={digits_dir}:test"), parse_data(f"few={digits_dir}:test[:37]")]
    return evaluate_models(models, data, batch_size=50)


def test_it_finds_what_training_found(rows, trained):
    for row in (rows[0], rows[2]):  # the SavedModel as it is served, and the run
        for name in ("accuracy", "top5_accuracy", "examples"):
            assert row[name] == pytest.approx(trained[1][name], abs=1e-6)
    assert [row["examples"] for row in rows] == [360, 37, 360, 37]
    assert sum(one["examples"] for one in rows[1]["classes"]) == 37
    assert rows[0]["confusion"] == rows[2]["confusion"]


def test_table_and_files_say_it(rows, tmp_path):
    text = results_table(rows)
    assert text.splitlines()[1].split()[-5:] == [
        "one",
        f"{rows[0]['accuracy']:.4f}",
        f"{rows[0]['top5_accuracy']:.4f}",
        f"{rows[0]['mean_class_accuracy']:.4f}",
        "360",
    ]
    assert f"mistakes of {rows[0]['model']} on all: " in text
    paths = write_results(rows, str(tmp_path / "out"))
    with open(paths[0]) as file:
        table = list(csv.DictReader(file))
    assert [row["data"] for row in table] == ["all", "few"] * 2
    assert float(table[0]["accuracy"]) == rows[0]["accuracy"]
    assert json.loads(Path(paths[1]).read_text()) == rows


def test_without_a_data_set_it_is_that_of_the_gin_file(described, trained):
    models = load_models(**described, model_dirs=[trained[0]])
    (row,) = evaluate_models(models, [])
    assert row["examples"] == 360
    assert row["accuracy"] == pytest.approx(trained[1]["accuracy"], abs=1e-6)


def test_other_preprocessing_gives_other_figures(described, trained, digits_dir, rows):
    data = [parse_data(digits_dir)]
    dark = "decode|resize(8)|value_range(-1, -0.9)"
    models = load_models(
        saved_models=[f"{trained[0]}/export"],
        **described,
        model_dirs=[trained[0]],
        preprocess=dark,
    )
    served, of_run = evaluate_models(models, data, own_preprocessing=False)
    assert served["accuracy"] == of_run["accuracy"] != rows[0]["accuracy"]
    assert served["preprocess"] == dark


def test_classes_that_do_not_fit_are_said(described, digits_dir):
    gin_params = [*described["gin_params"], "create_model.num_classes = 4"]
    models = load_models(gin_files=described["gin_files"], gin_params=gin_params)
    message = "model fresh on digits: the data has 10 classes and the model 4"
    data = [parse_data(digits_dir)]
    with pytest.raises(ValueError, match=message):
        evaluate_models(models, data)
    gin.clear_config()
    with pytest.raises(ValueError, match="name data: --dataset="):
        evaluate_models(models, [])


def test_probes_of_the_gin_file_are_run(described, trained, tmp_path):
    probes = [
        "run.evaluators = [@near/ProbeEvaluator]",
        "near/ProbeEvaluator.probe = @KNNProbe()",
        "near/ProbeEvaluator.name = 'near'",
        "near/ProbeEvaluator.train_input = @near/train/Input()",
        "near/ProbeEvaluator.test_input = @near/test/Input()",
        "near/train/Input.source = @train/TFDSSource()",
        "near/test/Input.source = @eval/TFDSSource()",
        "near/Input.preprocess = 'decode|resize(8)|value_range(-1, 1)'",
        "near/Input.batch_size = 100",
        "near/Input.training = False",
        "KNNProbe.k = (5,)",
    ]
    gin_params = [*described["gin_params"], *probes]
    models = load_models(
        gin_files=described["gin_files"], gin_params=gin_params, model_dirs=[trained[0]]
    )
    (row,) = evaluate_probes(models)
    (figure,) = [value for name, value in row.items() if name.startswith("5")]
    assert row["data"] == "near"
    assert 0.5 < figure <= 1
    paths = write_results([], str(tmp_path), [row])
    assert json.loads(Path(paths[1]).read_text()) == [row]
    gin.clear_config()


@pytest.mark.slow
def test_the_command(described, trained, digits_dir, tmp_path):
    def evaluate(*flags):
        command = [sys.executable, "tools/evaluate.py", *flags]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    flags = [f"--gin_param={binding}" for binding in described["gin_params"]]
    done = evaluate(
        "--gin_file=gin/quickstart.gin",
        *flags,
        f"--model_dir={trained[0]}",
        f"--dataset=d={digits_dir}",
        f"--out_dir={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "evaluation.json").read_text())
    assert row["accuracy"] == pytest.approx(trained[1]["accuracy"], abs=1e-6)
    assert f"{row['accuracy']:.4f}" in done.stdout
    wrong = evaluate("--model=vit_b61", f"--dataset={digits_dir}")
    assert wrong.returncode == 1
    (error,) = [line for line in wrong.stderr.splitlines() if line.startswith("error: ")]
    assert "vit_b16" in error
    assert "Traceback" not in wrong.stderr
