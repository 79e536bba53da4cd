"""Every mode through `run`, as `tools/train.py` calls it, on one model_dir."""

import csv
import importlib.util
import json
import re
import shutil
import subprocess
import sys

import gin
import pytest
import tensorflow as tf
from absl import flags
from processes import ROOT, TINY

from vit_tf.training import configuration
from vit_tf.training.run import run

STEPS = 20
NOTE = "does not use"  # what is said of bindings without effect; the recipe has none in any mode


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


@pytest.fixture(scope="module")
def execute(digits_dir):
    """`execute(mode, model_dir, *gin_params, **arguments of run)`."""

    def execute(mode, model_dir, *params, **arguments):
        settings = [
            f"DATA_DIR = '{digits_dir}'",
            *TINY,
            "RunConfig.strategy = 'cpu'",
            f"RunConfig.steps = {STEPS}",
            f"RunConfig.eval_interval = {STEPS}",
        ]
        configuration.parse(["gin/quickstart.gin"], [*settings, *params])
        return run(mode=mode, model_dir=str(model_dir), **arguments)

    return execute


@pytest.fixture(scope="module")
def trained(execute, tmp_path_factory):
    """A folder trained for 20 steps, and the evaluation at its end."""
    model_dir = tmp_path_factory.mktemp("run")
    return model_dir, execute("train_and_eval", model_dir)


def test_training_leaves_pictures_configuration_and_metrics(trained):
    model_dir, values = trained
    assert values["examples"] == 360
    for name in ("learning_curve", "predictions"):
        assert (model_dir / "pictures" / f"{name}.png").read_bytes()[1:4] == b"PNG"
    rows = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["kind"] for row in rows if row["step"] == STEPS] == ["train", "eval"]


def test_the_configuration_that_is_kept_is_that_in_tensorboard_and_can_be_read(trained):
    text = (trained[0] / "config.gin").read_text()
    shown = [
        value.tensor.string_val[0].decode()
        for events in (trained[0] / "tensorboard" / "train").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
        if value.tag == "config"
    ]
    assert ["\n".join(line[4:] for line in text.split("\n")) for text in shown] == [text]
    assert f"RunConfig.steps = {STEPS}" in text and "AdamW.beta_1 = 0.9" in text
    gin.clear_config()
    gin.parse_config(text)
    assert configuration.bound("RunConfig")().steps == STEPS


def test_eval_gives_the_numbers_of_training_and_logs_them(execute, trained, capsys):
    model_dir, values = trained
    again = execute("eval", model_dir)
    assert NOTE not in capsys.readouterr().out
    assert again == {name: pytest.approx(value) for name, value in values.items()}
    last = (model_dir / "metrics_eval.jsonl").read_text().splitlines()[-1]
    row = json.loads(last)
    assert (row["kind"], row["step"], row["examples"]) == ("eval", STEPS, 360)


def test_predict_writes_a_row_an_example(execute, trained, capsys):
    path = execute("predict", trained[0])
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["index", "label", "prediction", "probability"]
    assert len({row[0] for row in rows}) == len(rows) == 360
    right = sum(row[1] == row[2] for row in rows)
    assert right / 360 == pytest.approx(trained[1]["accuracy"])
    said = capsys.readouterr().out
    assert f"360 predictions, {right / 360:.4f} right: {path}" in said
    assert NOTE not in said


def test_export_writes_a_saved_model(execute, trained, capsys):
    path = execute("export", trained[0])
    assert path == str(trained[0] / "export" / "1")
    assert (trained[0] / "export" / "1" / "saved_model.pb").exists()
    said = capsys.readouterr().out
    assert f"SavedModel: {path}" in said
    assert NOTE not in said


def test_workers_leave_the_export_to_their_chief(execute, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vit_tf.training.strategies.is_chief", lambda strategy: False)
    assert execute("export", trained[0], export_dir=str(tmp_path)) is None
    assert "the chief worker exports" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_continuous_eval_ends_with_the_last_checkpoint(execute, trained):
    values = execute("continuous_eval", trained[0])
    assert values["accuracy"] == pytest.approx(trained[1]["accuracy"])


def test_continuous_eval_gives_up_after_its_timeout(execute, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint appeared .* within 1 s"):
        execute("continuous_eval", tmp_path / "none", continuous_eval_timeout=1.0)


def test_starting_again_with_another_configuration_tells_the_difference_and_needs_permission(
    execute, trained, tmp_path, capsys
):
    again = shutil.copytree(trained[0], tmp_path / "again")
    before = {name: (again / name).read_text() for name in ("config.gin", "model.json")}
    differing = "  -Optimization.learning_rate = 0.003\n  +Optimization.learning_rate = 0.001\n"
    message = (
        "the configuration differs from the one this run began with:\n"
        rf"{re.escape(differing)}Go on with the new one by --allow_config_change, or with the old "
        rf"one, which is {again}/config.gin"
    )
    changed = ("Optimization.learning_rate = 1e-3", "RunConfig.keep_checkpoints = 3")
    with pytest.raises(ValueError, match=message):
        execute("train_and_eval", again, *changed)
    assert {name: (again / name).read_text() for name in before} == before
    capsys.readouterr()
    execute("train_and_eval", again, *changed, allow_config_change=True)
    said = capsys.readouterr().out
    assert f"all {STEPS} steps are done; nothing to train" in said
    assert f"the configuration differs from the one this run began with:\n{differing}" in said
    execute("train_and_eval", again, *changed)
    assert "differs" not in capsys.readouterr().out


def test_another_mode_and_another_place_are_no_other_configuration(
    execute, trained, tmp_path, capsys
):
    again = shutil.copytree(trained[0], tmp_path / "again")
    execute("train", again, "RunConfig.keep_checkpoints = 5")
    said = capsys.readouterr().out
    differing = "  -RunConfig.keep_checkpoints = 3\n  +RunConfig.keep_checkpoints = 5\n"
    assert differing in said and "eval/" not in said
    execute("train_and_eval", again, "RunConfig.keep_checkpoints = 5")
    assert "differs" not in capsys.readouterr().out


def test_a_binding_without_effect_is_said_before_training_and_the_rest_is_not(
    execute, tmp_path, capsys
):
    execute("train", tmp_path, "SGD.momentum = 0.5", "RunConfig.steps = 3")
    before, _, after = capsys.readouterr().out.partition("step 3/3")
    assert "bindings that mode 'train' does not use: SGD.momentum\n" in before
    assert NOTE not in after


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--model_dir=x"], "error: --gin_file says what to train and is missing; e.g. python"),
        (["--gin_file=x"], "error: --model_dir says where the state lies and is missing; e.g."),
        (["--gin_file=x", "--model_dir=x", "eval"], "error: unknown arguments: eval; e.g. python"),
    ],
)
def test_a_flag_that_is_missing_is_one_line_with_an_example(arguments, message):
    command = [sys.executable, "tools/train.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(message)


@pytest.fixture
def train_tool(monkeypatch):
    """`tools/train.py` as a module whose flags are gone again afterwards."""
    before = set(flags.FLAGS)
    spec = importlib.util.spec_from_file_location("train_tool", ROOT / "tools" / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


@pytest.mark.parametrize(
    "error, line",
    [
        (RuntimeError("served and evaluated differ"), "error: served and evaluated differ"),
        (tf.errors.DataLossError(None, None, "torn\nat a"), "error: torn"),
        (FileNotFoundError("no checkpoint"), "error: no checkpoint"),
    ],
)
def test_an_expected_failure_is_one_line(train_tool, monkeypatch, capsys, error, line):
    def fail(**arguments):
        assert arguments == {
            "mode": "continuous_eval",
            "model_dir": "runs/x",
            "continuous_eval_timeout": 5.0,
        }
        raise error

    monkeypatch.setattr("vit_tf.training.run.run", fail)
    monkeypatch.delenv("VIT_TF_TRACEBACK", raising=False)
    flags.FLAGS(
        [
            "train.py",
            "--gin_file=gin/quickstart.gin",
            "--model_dir=runs/x",
            "--mode=continuous_eval",
            "--continuous_eval_timeout=5",
        ]
    )
    with pytest.raises(SystemExit) as stopped:
        train_tool.main(["train.py"])
    assert stopped.value.code == 1
    assert capsys.readouterr().err.splitlines()[0] == line
    monkeypatch.setenv("VIT_TF_TRACEBACK", "1")
    with pytest.raises(type(error)):
        train_tool.main(["train.py"])
