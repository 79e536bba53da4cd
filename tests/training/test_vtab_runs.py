"""VTAB from candidates to means: chosen on validation examples alone, measured once on the test."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import gin
import numpy as np
import pytest
import tiny_vtab

from vit_tf.data.vtab_tasks import TASKS
from vit_tf.training import configuration
from vit_tf.training.run import run as train
from vit_tf.training.vtab import VTAB, choose_tasks, data_table, means, vtab_table

ROOT = Path(__file__).resolve().parents[2]
GRID = ["Optimization.learning_rate = [0.3, 0.0001]"]
TINY = [
    "create_model.name = 'vit'",
    "WEIGHTS = None",
    "IMAGES = 'decode|resize(8)|value_range(-1, 1)'",
    *(f"create_model.{k} = {v}" for k, v in dict(image_size=8, patch_size=8, width=16).items()),
    *(f"create_model.{k} = {v}" for k, v in dict(depth=1, num_heads=2, mlp_dim=16).items()),
    "create_model.pool = 'gap'",
    "train/Input.batch_size = 100",
    "STEPS = 40",
    "RunConfig.strategy = 'cpu'",
]
SIZES = {"train": 820, "validation": 200, "test": 90}


def coloured(dataset, place, rng):
    """An example whose colour tells its class."""
    example = tiny_vtab.example(dataset, place, rng)
    shade = int(255 * example["label"] / (tiny_vtab.features(dataset)["label"].num_classes - 1))
    return {**example, "image": io.BytesIO(tiny_vtab.png(shade, 255 - shade, 128))}


@pytest.fixture
def make(tmp_path):
    """`make(tasks, grids, seeds)`: a benchmark whose runs nobody starts."""

    def made(tasks=("dtd", "eurosat"), grids=(*GRID, "STEPS = [5, 9]"), seeds=(0, 1)):
        chosen = choose_tasks(tasks)
        return VTAB(tmp_path / "vtab", ["gin/vtab/vtab1k.gin"], [], chosen, grids, seeds)

    yield made
    gin.clear_config()


def finish(sweep, accuracies):
    """Leaves what finished runs leave."""
    for run, accuracy in zip(sweep.runs, accuracies, strict=True):
        sweep.folder.keep(run, "done")
        rows = [{"kind": "eval", "step": step, "accuracy": accuracy} for step in (1, 2)]
        rows[0]["accuracy"] = 1.0  # the last evaluation counts, not the best
        path = Path(sweep.folder.model_dir(run), "metrics.jsonl")
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_candidates_see_train800_and_val200_and_the_chosen_everything(make):
    vtab = make()
    assert [run.name for run in vtab.sweep.runs][:2] == [
        "dtd,learning_rate=0.3,STEPS=5",
        "dtd,learning_rate=0.3,STEPS=9",
    ]
    assert {(r.values["TRAIN_SPLIT"], r.values["EVAL_SPLIT"]) for r in vtab.sweep.runs} == {
        ("'train800'", "'val200'")
    }
    assert vtab.final() is None
    finish(vtab.sweep, [0.1, 0.4, 0.4, 0.3, 0.2, 0.1, 0.6, 0.5])
    assert vtab.choose(TASKS["dtd"]).name == "dtd,learning_rate=0.3,STEPS=9"  # the first of two
    final = vtab.final().runs
    assert [run.name for run in final][-1] == "eurosat,learning_rate=0.0001,STEPS=5,seed=1"
    assert final[-1].values == {
        "TASK": "'eurosat'",
        "NUM_CLASSES": "10",
        "TRAIN_SPLIT": "'train800val200'",
        "EVAL_SPLIT": "'test'",
        "Optimization.learning_rate": "0.0001",
        "STEPS": "5",
        "RunConfig.seed": "1",
        "train/Input.seed": "1",
    }


def test_one_candidate_that_is_not_done_keeps_a_task_from_being_measured(make):
    vtab = make()
    finish(vtab.sweep, [0.1, 0.4, 0.4, 0.3, 0.2, 0.1, 0.6, 0.5])
    vtab.sweep.folder.keep(vtab.sweep.runs[3], "failed")
    assert vtab.final() is None
    assert [row["mean"] for row in vtab.results()] == [None, None]


def test_tasks_groups_and_all_are_means_of_tasks(make):
    vtab = make(("dtd", "svhn", "eurosat"))
    finish(vtab.sweep, [0.1] * 12)
    finish(vtab.final(), [0.5, 0.7, 0.2, 0.2, 0.9, 0.8])
    rows = vtab.results()
    assert [row["mean"] for row in rows] == pytest.approx([0.6, 0.2, 0.85])
    assert rows[0]["std"] == pytest.approx(np.std([0.5, 0.7], ddof=1))
    found = {row["group"]: (row["mean"], row["tasks"], row["of"]) for row in means(rows)}
    assert found["natural"] == (pytest.approx(0.4), 2, 7)
    assert found["specialized"] == (pytest.approx(0.85), 1, 4)
    assert found["all"] == (pytest.approx((0.6 + 0.2 + 0.85) / 3), 3, 19)  # of tasks, not groups
    text = vtab_table(rows)
    assert "all" in text and "55.00  3 of 19" in text
    csv_path, json_path = vtab.write()
    assert json.loads(Path(json_path).read_text())["means"][-1]["mean"] == pytest.approx(0.55)
    assert "learning_rate 0.3, STEPS 5" in Path(csv_path).read_text()


def test_without_a_grid_the_configuration_is_measured_as_it_is(make):
    vtab = make(("dtd",), grids=(), seeds=(3,))
    assert vtab.sweep.runs == []
    (run,) = vtab.final().runs
    assert run.name == "dtd,seed=3"
    assert "Optimization.learning_rate" not in run.values


def test_missing_data_is_named_before_anything_starts(tmp_path):
    data = tmp_path / "data"
    tiny_vtab.write("dtd", data, sizes=SIZES)
    params = [f"DATA_DIR = '{data}'"]
    tasks = choose_tasks(["dtd", "kitti_distance", "dmlab"])
    vtab = VTAB(tmp_path / "v", ["gin/vtab/vtab1k.gin"], params, tasks, GRID)
    with pytest.raises(
        FileNotFoundError, match="data of 2 tasks(?s:.*)tfds build dmlab(?s:.*)kitti"
    ):
        vtab.run()
    gin.clear_config()
    assert not (tmp_path / "v").exists()


def test_tasks_are_chosen_by_name_and_group():
    assert len(choose_tasks([])) == 19
    assert [t.name for t in choose_tasks(["dtd", "specialized"])][:2] == ["dtd", "patch_camelyon"]
    with pytest.raises(ValueError, match="no task or group 'naturel'; it has natural"):
        choose_tasks(["naturel"])
    text = data_table(choose_tasks([]))
    assert all(task.dataset in text for task in TASKS.values())


@pytest.mark.parametrize(
    ("preset", "steps", "batch_size", "warmup", "drops"),
    [
        ("vtab1k", 2500, 512, 0, (750, 1500, 2250)),
        ("vtab1k_short", 1000, 64, 80, (300, 600, 900)),
    ],
)
def test_presets_have_the_reference_s_schedules(preset, steps, batch_size, warmup, drops, tmp_path):
    params = ["TASK = 'kitti_distance'", "NUM_CLASSES = 4", f"DATA_DIR = '{tmp_path}'"]
    configuration.parse([f"gin/vtab/{preset}.gin"], params)
    planned = train(mode="train", model_dir=None, only_plan=True)  # nothing is downloaded
    gin.clear_config()
    assert (planned.length.steps, planned.length.batch_size) == (steps, batch_size)
    for step, rate in planned.rates.items():
        divided = 0.01 * 0.1 ** sum(step >= drop for drop in drops)
        assert rate == pytest.approx(divided * min(1.0, step / warmup if warmup else 1.0))
    assert len({round(rate, 9) for rate in planned.rates.values()}) > 3  # every drop was seen
    (data,) = (file for file in planned.missing if file.role == "data")
    assert "tfds build kitti" in data.problem


def train_here(vtab):
    """Trains the candidates in this process."""
    for run in vtab.sweep.runs:
        configuration.parse(vtab._gin[0], [*vtab._gin[1], *run.bindings])
        train("train_and_eval", vtab.sweep.folder.model_dir(run))
        vtab.sweep.folder.keep(run, "done")


def validation(vtab):
    return [
        [row["accuracy"] for row in vtab.sweep.folder.rows(run) if row["kind"] == "eval"]
        for run in vtab.sweep.runs
    ]


@pytest.mark.slow
def test_other_test_labels_change_no_choice(tmp_path):
    def wrong(dataset, place, rng):
        return {**coloured(dataset, place, rng), "label": 3}

    found = []
    for name in ("right", "wrong"):
        data = tmp_path / name
        written = tiny_vtab.write("dtd", data, make=coloured, sizes=SIZES)
        if name == "wrong":  # the same training and validation examples, another test split
            other = tiny_vtab.write("dtd", tmp_path / "other", make=wrong, sizes={"test": 90})
            (shard,) = (tmp_path / "other").rglob("dtd-test*")
            (target,) = data.rglob("dtd-test*")
            target.write_bytes(shard.read_bytes())
            assert len(other["test"]) == len(written["test"])
        params = [*TINY, f"DATA_DIR = '{data}'"]
        vtab = VTAB(tmp_path / f"v{name}", ["gin/vtab/vtab1k.gin"], params, [TASKS["dtd"]], GRID)
        train_here(vtab)
        found.append((validation(vtab), vtab.choose(TASKS["dtd"]).name))
    gin.clear_config()
    assert found[0] == found[1]
    assert found[0][1] == "dtd,learning_rate=0.3"


@pytest.mark.slow
def test_the_command_from_candidates_to_means(tmp_path):
    data = tmp_path / "data"
    tiny_vtab.write("dtd", data, make=coloured, sizes=SIZES)
    tiny_vtab.write("eurosat/rgb", data, make=coloured, sizes={"train": 1700})

    def vtab(*flags):
        params = [*TINY, f"DATA_DIR = '{data}'"]
        command = [
            sys.executable,
            "tools/vtab.py",
            f"--out_dir={tmp_path}/v",
            "--tasks=dtd,eurosat",
            *(f"--grid={grid}" for grid in GRID),
            *(f"--gin_param={binding}" for binding in params),
            "--jobs=2",
            *flags,
        ]
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
        return subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )

    done = vtab()
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "v" / "vtab.json").read_text())
    dtd, eurosat = content["tasks"]
    assert dtd["chosen"] == eurosat["chosen"] == {"Optimization.learning_rate": "0.3"}
    assert eurosat["mean"] > 0.2  # chance is 0.1
    means_of = {row["group"]: row["mean"] for row in content["means"]}
    assert means_of["all"] == pytest.approx((dtd["mean"] + eurosat["mean"]) / 2)
    finals = sorted(os.listdir(tmp_path / "v" / "final"))
    rows = tmp_path / "v" / "final" / "eurosat,learning_rate=0.3,seed=0" / "metrics.jsonl"
    last = json.loads(rows.read_text().splitlines()[-1])
    assert last["kind"] == "eval" and last["examples"] == 340  # all of the test split: 20 %
    again = vtab()
    assert again.returncode == 0
    assert "4 runs in" in again.stdout and "0 to run" in again.stdout
    assert sorted(os.listdir(tmp_path / "v" / "final")) == finals
