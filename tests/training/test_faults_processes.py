"""Real processes that are killed, robbed of their disk, their files or their clock lose nothing."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest
from forked import Run, is_writing, newest
from processes import assert_same_run, rows, worker_environments

pytestmark = pytest.mark.slow

STEPS = 120
SETTINGS = [
    f"RunConfig.steps = {STEPS}",
    "RunConfig.steps_per_loop = 2",
    "RunConfig.checkpoint_interval = 2",
    "RunConfig.eval_interval = 40",
    # All that has a state or is random.
    "RunConfig.accumulation_steps = 2",
    "RunConfig.ema = @Ema()",
    "Classification.mixing = @Mixing()",
    "Mixing.mixup_alpha = 0.8",
    "Mixing.cutmix_alpha = 1.0",
]


@pytest.fixture(scope="module")
def whole(digits_dir, tmp_path_factory):
    """The run that was never stopped."""
    model_dir = tmp_path_factory.mktemp("whole") / "run"
    Run(model_dir, digits_dir, *SETTINGS).end()
    return model_dir


@pytest.fixture(scope="module")
def half(digits_dir, tmp_path_factory):
    """A run that was killed half-way, between two evaluations."""
    model_dir = tmp_path_factory.mktemp("half") / "run"
    process = Run(model_dir, digits_dir, *SETTINGS)
    assert process.wait_for(lambda: newest(model_dir) >= 50)
    process.kill()
    return model_dir


def assert_same(whole, other, steps=STEPS):
    """Asserts that two runs ended bit for bit alike, the best checkpoint included."""
    assert_same_run(whole, other, steps)
    assert json.loads((whole / "best/best.json").read_text()) == json.loads(
        (other / "best/best.json").read_text()
    )
    left = [name for name in os.listdir(other / "checkpoints") if "temp" in name]
    assert not left and len(os.listdir(other / "best")) == 3


def test_twenty_kills_at_random_moments_change_nothing(whole, digits_dir, tmp_path):
    """At the start, in the midst of steps and evaluations, and while a checkpoint is written."""
    chance = random.Random(0)
    model_dir = tmp_path / "run"
    kills = {"starting": 0, "training": 0, "writing": 0}
    for kind in 2 * ["starting"] + 9 * ["training", "writing"]:
        process = Run(model_dir, digits_dir, *SETTINGS)
        before = newest(model_dir)
        if kind == "starting":
            time.sleep(chance.random() * 3.0)
        elif process.wait_for(lambda before=before: newest(model_dir) > before):
            if kind == "writing":
                process.wait_for(lambda: is_writing(model_dir), pause=0)
            else:
                time.sleep(chance.random() * 0.1)
        assert process.is_running, process.output
        process.kill()
        kills[kind] += 1
    assert sum(kills.values()) == 20
    output = Run(model_dir, digits_dir, *SETTINGS).end()
    assert "resuming" in output
    assert_same(whole, model_dir)


@pytest.mark.parametrize(
    "number, status", [(signal.SIGTERM, os.EX_TEMPFAIL), (signal.SIGINT, 130)], ids=str
)
def test_asked_to_stop_a_run_saves_and_says_whether_to_start_it_again(
    whole, half, digits_dir, tmp_path, number, status
):
    model_dir = shutil.copytree(half, tmp_path / "run")
    at_start = Run(model_dir, digits_dir, *SETTINGS)
    assert at_start.wait_for(lambda: "bindings" in at_start.output or "model " in at_start.output)
    at_start.send(number)
    at_start.end(status)
    process = Run(model_dir, digits_dir, *SETTINGS)
    before = newest(model_dir)
    assert process.wait_for(lambda: newest(model_dir) > before)
    process.send(number)
    output = process.end(status)
    assert f"after step {newest(model_dir)}; the same command goes on from there" in output
    if number == signal.SIGTERM:
        Run(model_dir, digits_dir, *SETTINGS).end()
        assert_same(whole, model_dir)


def _truncate_newest_checkpoint(model_dir):
    path = model_dir / "checkpoints" / f"ckpt-{newest(model_dir)}.data-00000-of-00001"
    os.truncate(path, path.stat().st_size // 2)


def _flip_a_byte_of_the_newest_index(model_dir):
    path = model_dir / "checkpoints" / f"ckpt-{newest(model_dir)}.index"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def _cut_the_metrics_in_a_row(model_dir):
    """The last row is half there, as after a kill, and blocks of NUL follow."""
    path = model_dir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["step"] <= newest(model_dir)]
    path.write_text("".join(kept) + '{"step": 999, "kind": "tr' + "\0" * 512)


@pytest.mark.parametrize(
    "harm, said",
    [
        (_truncate_newest_checkpoint, "moved to"),
        (_flip_a_byte_of_the_newest_index, "moved to"),
        (_cut_the_metrics_in_a_row, ""),
    ],
)
def test_damaged_files_are_survived(whole, half, digits_dir, tmp_path, harm, said):
    model_dir = shutil.copytree(half, tmp_path / "run")
    before = newest(model_dir)
    harm(model_dir)
    output = Run(model_dir, digits_dir, *SETTINGS).end()
    assert said in output
    assert f"from step {before - 2 if said else before}" in output
    assert_same(whole, model_dir)


@pytest.mark.parametrize("hours", [-30, 30])
def test_a_clock_that_jumps_is_survived(whole, half, digits_dir, tmp_path, hours):
    model_dir = shutil.copytree(half, tmp_path / "run")
    Run(model_dir, digits_dir, *SETTINGS, clock_jump=3600 * hours).end()
    assert_same(whole, model_dir)
    times = [json.loads(line)["time"] for line in (model_dir / "metrics.jsonl").open()]
    assert abs(times[-1] - times[0]) > 3600 * 29


def test_a_disk_that_is_full_for_a_while_is_survived(whole, half, digits_dir, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        model_dir = shutil.copytree(half, disk / "run")
        filler = disk / "filler"
        process = Run(model_dir, digits_dir, *SETTINGS, output_dir=tmp_path)
        before = newest(model_dir)
        assert process.wait_for(lambda: newest(model_dir) > before)
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        output = process.end(status=1)
        assert "Make room and" in output and "start the same command again" in output, output
        filler.unlink()
        Run(model_dir, digits_dir, *SETTINGS).end()
        assert_same(whole, model_dir)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_worker_that_is_killed_takes_the_other_with_it_and_both_go_on(digits_dir, tmp_path):
    settings = [
        "RunConfig.strategy = 'multi_worker'",
        "RunConfig.steps = 160",
        "RunConfig.steps_per_loop = 4",
        "RunConfig.checkpoint_interval = 20",
        "RunConfig.eval_interval = 80",
    ]
    undisturbed = tmp_path / "undisturbed"
    for worker in _start_workers(undisturbed, digits_dir, settings):
        worker.end()
    model_dir = tmp_path / "run"
    chief, other = _start_workers(model_dir, digits_dir, settings)
    assert chief.wait_for(lambda: newest(model_dir) >= 40)
    other.kill()
    assert "another worker stopped, and this one cannot go on without it" in chief.end(status=1)
    assert 40 <= newest(model_dir) < 160
    for worker in _start_workers(model_dir, digits_dir, settings):
        worker.end()
    assert_same(undisturbed, model_dir, 160)
    assert [row["step"] for row in rows(model_dir) if row["kind"] == "eval"] == [80, 160]


def _start_workers(model_dir, digits_dir, settings) -> list[Run]:
    return [Run(model_dir, digits_dir, *settings, env=env) for env in worker_environments(2)]
