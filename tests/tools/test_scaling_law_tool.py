"""tools/scaling_law.py on tables and on folders of runs: what it prints, draws and refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import tools_in_process
from PIL import Image

from vit_tf.analysis.flops import count_flops
from vit_tf.analysis.scaling_law import SaturatingLaw
from vit_tf.models import create_model
from vit_tf.training.model_dir import ModelDir
from vit_tf.training.run_log import RunLog

TOOL = Path(__file__).resolve().parents[2] / "tools" / "scaling_law.py"
# Zhai et al., 2022 (arXiv:2106.04560): ImageNet after fine-tuning, TPUv3-core-days.
LAW = SaturatingLaw(a=0.26, b=0.35, c=0.09, d=0.01)


@pytest.fixture
def tool(capsys):
    """`tool(*arguments)`: the exit status, and what is written to stdout and stderr."""

    def call(*arguments):
        status = tools_in_process.run(TOOL, [str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def table(tmp_path):
    """A CSV file of models that follow a published law, and of others that are worse."""
    compute = np.geomspace(0.05, 2e4, 10).tolist()
    lines = [f"{c},{LAW(c)},good" for c in compute] + [
        f"{c},{LAW(c) * 1.1},bad" for c in compute[1:]
    ]
    path = tmp_path / "models.csv"
    path.write_text("\n".join(["compute,error,model", *lines]))
    return path


def test_a_table_gives_the_law_its_intervals_and_predictions(tool, table):
    status, text, _ = tool(table, "--predict=1e5,1e6", "--resamples=40")
    assert status == 0
    lines = [line.split() for line in text.splitlines()]
    assert "19 models" in text and "saturating: E = 0.26·(C + 0.01)^-0.35 + 0.09" in text
    assert ["coefficient", "value", "2.5", "%", "97.5", "%"] in lines
    values = {line[0]: line[1:] for line in lines if line}
    assert [float(values[name][0]) for name in "abcd"] == pytest.approx(
        [0.26, 0.35, 0.09, 0.01], rel=1e-2
    )
    for compute in ("1e+05", "1e+06"):
        error, _, low, _, high, _ = values[compute]
        assert float(error) == pytest.approx(100 * LAW(float(compute)), abs=0.01)
        assert float(low) <= float(error) + 0.01 and float(error) <= float(high) + 0.01


def test_both_laws_as_json_with_models_beyond_and_a_picture(tool, table, tmp_path):
    picture = tmp_path / "out" / "law.png"
    status, text, said = tool(
        table,
        "--fit=saturating",
        "--fit=log_log",
        "--bins=3",
        "--fit_up_to=1000",
        "--predict=1e5",
        "--format=json",
        "--resamples=20",
        "--confidence=0.8",
        f"--plot={picture}",
    )
    assert status == 0 and f"picture: {picture}" in said
    found = json.loads(text)
    assert len(found["models"]) == 19 and found["models"][0]["model"] == "good"
    assert found["left_out"] == {}
    saturating, line = found["fits"]["saturating"], found["fits"]["log_log"]
    assert len(line["fitted_to"]) == 3
    assert max(point["compute"] for point in saturating["fitted_to"]) < 1000
    assert saturating["beyond"] == line["beyond"] == 3
    # The law goes on beyond and the line does not bend.
    assert saturating["mean_distance_points_beyond"] < 0.1 < line["mean_distance_points_beyond"]
    assert saturating["predictions"][0]["error"] == pytest.approx(LAW(1e5), rel=1e-2)
    assert (line["confidence"], line["resamples"]) == (0.8, 20)
    with Image.open(picture) as image:
        assert image.width > 600


def test_without_bins_the_line_goes_through_all_models(tool, table):
    _, text, _ = tool(table, "--fit=log_log", "--bins=0", "--format=json", "--resamples=0")
    assert len(json.loads(text)["fits"]["log_log"]["fitted_to"]) == 19


@pytest.fixture
def sweep(tmp_path):
    """What a sweep leaves: runs of two widths and three lengths, one of them not finished."""
    for width in (16, 32):
        model = create_model(
            "vit",
            image_size=16,
            patch_size=8,
            width=width,
            depth=1,
            num_heads=2,
            mlp_dim=32,
            num_classes=5,
        )
        for steps in (10, 100, 1000):
            folder = ModelDir(str(tmp_path / "sweep" / f"width={width},steps={steps}"))
            folder.claim(model, steps)
            folder.write_text(
                "config.gin", "run.train_input = @train/Input\ntrain/Input.batch_size = 8\n"
            )
            accuracy = 1 - 0.8 * (width * steps / 160) ** -0.2
            at = steps if (width, steps) != (32, 1000) else 500
            RunLog(folder).write("eval", at, {"accuracy": accuracy})
    return tmp_path / "sweep", count_flops(model)


def test_a_sweep_gives_flops_and_errors_and_tells_what_is_not_finished(tool, sweep):
    folder, flops = sweep
    status, text, said = tool(folder, "--fit=log_log", "--format=json", "--resamples=0")
    assert status == 0
    found = json.loads(text)
    models = {(m["model"], round(m["compute"])): m["error"] for m in found["models"]}
    assert len(models) == 5
    error = 0.8 * (32 * 100 / 160) ** -0.2
    assert models["ViT width 32", 3 * flops * 100 * 8] == pytest.approx(error)
    left = str(folder / "width=32,steps=1000")
    assert list(found["left_out"]) == [left]
    assert f"left out: {left}: it was evaluated at step 500, and is to train 1,000" in said


def test_tables_and_folders_are_mixed(tool, sweep, tmp_path):
    (tmp_path / "more.csv").write_text("compute,error\n1e12,0.1\n")
    folder, _ = sweep
    _, text, _ = tool(folder, tmp_path / "more.csv", "--fit=log_log", "--resamples=0")
    assert text.startswith("6 models")


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("compute,error\n1,0.5\n2,0.4\n", [], "frontier has 2 of 2 points: the law has 4 coeff"),
        ("compute,error\n1,50\n", [], "line 2: error is a share"),
        ("run,accuracy,step,state\n", [], "It is the summary of a sweep: give the sweep's folder"),
        ("compute,error\n1,0.5\n9,0.4\n", ["--fit=log_log", "--predict=much"], "given 'much'"),
        ("compute,error\n1,0.5\n9,0.4\n", ["--fit=log_log", "--predict=-1"], "positive compute"),
        ("compute,error\n1,0.5\n9,0.4\n", ["--fit=log_log", "--fit_up_to=5"], "there are 1"),
    ],
)
def test_an_error_is_one_line(tool, tmp_path, text, arguments, message):
    (tmp_path / "models.csv").write_text(text)
    status, out, said = tool(tmp_path / "models.csv", *arguments)
    assert (status, out) == (1, "")
    assert said.startswith("error: ") and message in said and "Traceback" not in said


def test_runs_that_are_all_no_points_are_told_with_their_reasons(tool, sweep):
    folder, _ = sweep
    status, _, said = tool(folder, "--metric=top5_accuracy")
    assert status == 1
    assert said.count("no evaluation has the metric 'top5_accuracy'") == 6


def test_what_is_not_there_and_nothing_at_all_are_refused(tool, tmp_path):
    status, _, said = tool(tmp_path / "nothing.csv")
    assert status == 1 and "there is no file" in said
    status, out, said = tool()
    assert status == 1 and "name a CSV file with columns compute,error" in out + said
