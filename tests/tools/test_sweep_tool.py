"""tools/sweep.py with real runs: interrupted in the middle, killed, gone on with, grown, failed."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINDINGS = (
    "create_model.width = 16",
    "create_model.depth = 1",
    "create_model.num_heads = 2",
    "create_model.mlp_dim = 32",
    "create_model.patch_size = 4",
    "RunConfig.jit_compile = False",
    "RunConfig.steps = 400",
    "RunConfig.eval_interval = 100",
    "cosine.warmup = 1",
)


@pytest.fixture(scope="module")
def sweep(digits_dir, tmp_path_factory):
    """`sweep(*flags)`: starts the command on a folder of this module."""
    folder = tmp_path_factory.mktemp("sweep") / "s"

    def start(*flags):
        command = [
            sys.executable,
            "tools/sweep.py",
            "--gin_file=gin/quickstart.gin",
            f"--sweep_dir={folder}",
            *(f"--gin_param={b}" for b in (*BINDINGS, f"DATA_DIR = '{digits_dir}'")),
            *flags,
        ]
        output = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, text=True
        )

    start.folder = folder
    return start


def finish(process):
    output, _ = process.communicate(timeout=500)
    return process.returncode, output


def steps(run):
    """Steps of the rows in a run's metrics, by kind."""
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [(row["kind"], row["step"]) for row in rows]


def wait_for(condition, seconds=200):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


GRID = "--grid=Optimization.learning_rate = [0.003, 0.001]"


@pytest.mark.slow
def test_a_sweep_goes_on_after_sigterm_and_after_kill(sweep):
    first, second = (sweep.folder / f"learning_rate={rate}" for rate in (0.003, 0.001))

    process = sweep(GRID)  # SIGTERM in the middle of the first run: it saves
    wait_for(lambda: ("train", 100) in steps(first))
    process.send_signal(signal.SIGTERM)
    status, output = finish(process)
    assert status == 75, output
    assert "saving after the steps under way" in (first / "sweep_log.txt").read_text()
    assert json.loads((first / "sweep_run.json").read_text())["state"] == "interrupted"
    assert not second.exists()
    assert "learning_rate=0.003  and saved" in output

    process = sweep(GRID)  # the sweep is killed in the middle of the second run, which lives on
    wait_for(lambda: ("train", 100) in steps(second))
    orphan = json.loads((second / "sweep_run.json").read_text())["process"]
    os.kill(orphan, signal.SIGSTOP)  # so that it is not done too soon
    process.kill()
    finish(process)
    assert json.loads((first / "sweep_run.json").read_text())["state"] == "done"
    status, output = finish(sweep(GRID))
    assert status == 1
    assert "error: another sweep is at work in" in output
    os.kill(orphan, signal.SIGKILL)
    assert ("eval", 400) not in steps(second)

    status, output = finish(sweep(GRID, "--select=best"))
    assert status == 0, output
    assert "2 runs in" in output and "1 done, 1 to run, 1 of them begun before" in output
    for run in (first, second):
        evaluated = [step for kind, step in steps(run) if kind == "eval"]
        assert evaluated == [100, 200, 300, 400]  # each once: nothing was trained twice
    with open(sweep.folder / "summary.csv") as file:
        rows = list(csv.DictReader(file))
    values = [float(row["accuracy"]) for row in rows]
    assert len(values) == 2 and values == sorted(values, reverse=True)
    assert (sweep.folder / "summary.png").exists()


@pytest.mark.slow
def test_a_larger_grid_adds_runs_and_failed_ones_are_reported(sweep):
    status, output = finish(
        sweep("--grid=create_model.num_heads = [3]", "--grid=RunConfig.steps = [100]")
    )
    assert status == 1
    assert "failed   num_heads=3,steps=100" in output
    assert "num_heads" in output.rpartition("failed: num_heads=3,steps=100")[2]
    status, output = finish(
        sweep("--grid=create_model.num_heads = [3]", "--grid=RunConfig.steps = [100]")
    )
    assert status == 1
    assert "1 failed, 0 to run" in output
    assert "--retry starts failed runs" in output
    before = os.path.getsize(sweep.folder / "num_heads=3,steps=100" / "sweep_log.txt")
    finish(
        sweep("--grid=create_model.num_heads = [3]", "--grid=RunConfig.steps = [100]", "--retry")
    )
    assert os.path.getsize(sweep.folder / "num_heads=3,steps=100" / "sweep_log.txt") > before


@pytest.mark.slow
def test_what_a_template_submits_is_collected_by_summary(sweep, tmp_path):
    queue = tmp_path / "queue.sh"
    template = f"sh -c 'echo \"$0\" >> {queue}' {{command}}"
    sweep.folder = tmp_path / "none"
    flags = (f"--sweep_dir={tmp_path}/t", "--grid=RunConfig.steps = [100]")
    status, output = finish(sweep(*flags, f"--command_template={template}"))
    assert status == 0, output
    assert "submitted  steps=100" in output
    done = subprocess.run(["sh", queue], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    status, output = finish(sweep(f"--sweep_dir={tmp_path}/t", "--mode=summary"))
    assert status == 0, output
    lines = output.splitlines()  # TensorFlow may have said something before
    assert "done" in lines[lines.index("accuracy  step  state") + 1]
    status, output = finish(sweep(*flags, "--metric=acuracy"))
    assert status == 1
    assert "error: no evaluation has a metric 'acuracy'. Did you mean 'accuracy'?" in output
