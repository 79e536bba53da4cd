"""tools/fewshot.py as a user calls it: every file that it writes, and what it says of mistakes."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "create_model.width": 16,
    "create_model.depth": 2,
    "create_model.num_heads": 2,
    "create_model.mlp_dim": 32,
    "create_model.patch_size": 4,
    "RunConfig.steps": 8,
    "RunConfig.eval_interval": 8,
    "RunConfig.jit_compile": False,
    "cosine.warmup": 1,
}


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, f"tools/{name}.py", *arguments]
    # Two logical devices are the test session's, not a user's.
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def fewshot(*arguments: str) -> subprocess.CompletedProcess:
    return tool("fewshot", "--shots=1,5", *arguments)


def results(out: Path) -> tuple[list[dict], list[dict]]:
    rows = list(csv.DictReader((out / "results.csv").open()))
    return rows, json.loads((out / "results.json").read_text())["results"]


@pytest.fixture(scope="module")
def run(digits_dir, tmp_path_factory):
    """Arguments that name a trained run, and its folder."""
    folder = tmp_path_factory.mktemp("run")
    bindings = [f"--gin_param={name} = {value}" for name, value in TINY.items()]
    of_run = ["--gin_file=gin/quickstart.gin", f"--gin_param=DATA_DIR = '{digits_dir}'", *bindings]
    of_run += ["--gin_param=RunConfig.strategy = 'cpu'", f"--model_dir={folder}"]
    for mode in ("train", "export"):
        done = tool("train", *of_run, f"--mode={mode}")
        assert done.returncode == 0, done.stderr
    return of_run, folder


def test_a_run_and_its_baselines_on_two_data_sets(run, digits_dir, tmp_path):
    of_run, _ = run
    arguments = [
        *of_run,
        "--baselines=pixels,random",
        "--pixels=decode|resize(8)|value_range(-1, 1)",
        f"--dataset=digits={digits_dir}",
        f"--dataset=few={digits_dir}:test[:30]:test[30:]",
        "--probes=few_shot,knn,layers",
        "--gin_param=FewShotProbe.seeds = (0, 1)",
        "--gin_param=KNNProbe.k = (5,)",
        f"--cache_dir={tmp_path}/cache",
    ]
    done = fewshot(*arguments, f"--out_dir={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    rows, of_json = results(tmp_path / "out")
    models = [f"{run[1].name} step 8", "random", "pixels"]
    assert list(dict.fromkeys(row["model"] for row in rows)) == models
    kinds = {"few_shot", "knn", "layers_few_shot"}
    measured = {(m["data"], m["model"], m["probe"]) for m in of_json}
    assert measured == {
        (data, model, kind)
        for data in ("digits", "few")
        for model in models
        for kind in kinds
        if (model, kind) != ("pixels", "layers_few_shot")
    }
    # The table says what the files say.
    key = ("digits", "pixels", "few_shot")
    (pixels,) = [m["result"] for m in of_json if (m["data"], m["model"], m["probe"]) == key]
    assert pixels["summary"]["5_shot"] > 0.6
    assert f"{100 * pixels['summary']['5_shot']:.1f} ± " in done.stdout
    said = [r["accuracy"] for r in rows if (r["data"], r["model"], r["probe"]) == key]
    assert list(map(float, said)) == [row["accuracy"] for row in pixels["rows"]]
    assert "note: few: " in done.stdout and "fewer than 5 training examples" in done.stdout
    for name in ("results.png", "layers.png"):
        assert Image.open(tmp_path / "out" / name).width > 400
    assert not list((tmp_path / "out").glob("*.tmp"))
    # Again, from the cache: the same numbers, without the run's checkpoint being needed for images.
    again = fewshot(*arguments, f"--out_dir={tmp_path}/again")
    assert again.returncode == 0, again.stderr
    assert results(tmp_path / "again") == results(tmp_path / "out")


def test_an_export_has_the_features_of_its_run(run, digits_dir, tmp_path):
    of_run, folder = run
    data = f"--dataset=digits={digits_dir}:train[:200]:test[:100]"
    saved = fewshot(f"--saved_model={folder}/export", data, f"--out_dir={tmp_path}/saved")
    assert saved.returncode == 0, saved.stderr
    of_checkpoint = fewshot(*of_run, data, f"--out_dir={tmp_path}/run")
    assert of_checkpoint.returncode == 0, of_checkpoint.stderr
    both = [
        [float(row["accuracy"]) for row in results(tmp_path / name)[0]] for name in ("saved", "run")
    ]
    assert both[0] == pytest.approx(both[1], abs=0.011)  # an example of a hundred


def test_linear_and_logistic_probes_of_a_models_own_features(digits_dir, tmp_path):
    done = fewshot(
        "--baselines=pixels",
        "--pixels=decode|resize(8)|value_range(-1, 1)",
        f"--dataset={digits_dir}:train[:200]:test[:100]",
        "--probes=linear,logistic",
        "--gin_param=LinearProbe.steps = 60",
        "--gin_param=LogisticProbe.c = (0.01, 0.1)",
        f"--out_dir={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    rows, _ = results(tmp_path)
    chosen = {row["probe"]: float(row["accuracy"]) for row in rows if row["chosen"] == "1"}
    assert set(chosen) == {"linear", "logistic"} and min(chosen.values()) > 0.8
    assert len([row for row in rows if row["probe"] == "logistic"]) == 2
    assert not (tmp_path / "results.png").exists()


def test_data_sets_and_probes_of_a_gin_file(digits_dir, tmp_path):
    file = tmp_path / "digits.gin"
    protocol = 'include "gin/fewshot/protocol.gin"\n'
    own = (ROOT / "gin/fewshot/flowers5.gin").read_text().split(protocol)[1]
    file.write_text(protocol + own.replace("flowers5", "digits").replace(" = 5", " = 10"))
    done = tool(
        "fewshot",
        f"--gin_file={file}",
        f"--gin_param=FEW_SHOT_DIR = '{os.path.dirname(os.path.dirname(digits_dir))}'",
        "--gin_param=FewShotProbe.shots = (2,)",
        "--baselines=pixels",
        f"--out_dir={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    _, of_json = results(tmp_path)
    assert [(m["data"], m["probe"]) for m in of_json] == [
        ("digits", "few_shot"),
        ("digits_knn", "knn"),
    ]
    assert [row["shots"] for row in of_json[0]["result"]["rows"]] == [2, 2, 2]


# All in one process, as TensorFlow's start takes longer than everything else.
DRIVER = """
import contextlib, io, json, sys
sys.path.insert(0, "tools")
import fewshot
from absl import flags

outcomes = []
for arguments in json.loads(sys.argv[1]):
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    error = io.StringIO()
    try:
        with contextlib.redirect_stderr(error):
            fewshot.main(flags.FLAGS(["fewshot", *arguments]))
        status = 0
    except SystemExit as leaving:
        status = leaving.code
    outcomes.append([status, error.getvalue()])
print(json.dumps(outcomes))
"""
MISTAKES = {
    ("--dataset=x",): "name a model: --model=vit_b16 --weights=augreg_in21k",
    ("--baselines=pixels",): "name a data set: --dataset=data/flowers5",
    ("--baselines=pixel", "--dataset=x"): "--baselines are pixels and random; given pixel",
    ("--baselines=pixels", "--dataset=/nope"): "/nope",
    ("--model=vit_b61", "--dataset=x"): "vit_b16",
    ("--weights=augreg_in21k", "--dataset=x"): "--weights goes with --model",
    ("--model_dir=/nope", "--dataset=x"): "--model_dir needs --gin_file",
    ("--saved_model=/nope", "--dataset=x"): "/nope is no SavedModel",
    ("--baselines=pixels", "--dataset=x", "more"): "unknown arguments: more",
    ("--baselines=pixels", "--dataset=DIGITS", "--probes=knm"): "layers; given 'knm'",
    ("--baselines=pixels", "--dataset=DIGITS", "--shots=one"): "1,5,10; given 'one'",
    ("--baselines=pixels", "--dataset=DIGITS:train:tset"): "tset",
    ("--model=vit_ti16", "--dataset=DIGITS", "--features=pre_logit"): "pre_logits",
}


def test_mistakes_are_one_clear_line(digits_dir, tmp_path):
    cases = [
        [
            *(argument.replace("DIGITS", digits_dir) for argument in arguments),
            f"--out_dir={tmp_path}",
        ]
        for arguments in MISTAKES
    ]
    command = [sys.executable, "-c", DRIVER, json.dumps(cases)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout.splitlines()[-1])
    for (status, said), expected in zip(outcomes, MISTAKES.values(), strict=True):
        assert status == 1 and said.startswith("error: ") and expected in said, said
        assert len(said.splitlines()) <= 3
