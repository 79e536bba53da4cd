"""The metrics file survives kills; the progress line's numbers are what it says they are."""

import json
import time

import pytest
import tensorflow as tf

from vit_tf.training.model_dir import ModelDir
from vit_tf.training.run_log import Progress, RunLog, duration


@pytest.fixture
def model_dir(tmp_path):
    return ModelDir(tmp_path)


def steps(log):
    return [row["step"] for row in log.rows()]


def test_rewinding_forgets_what_came_after_a_step(model_dir, tmp_path):
    log = RunLog(model_dir)
    for step in (10, 20, 30):
        log.write("train", step, {"loss": 1.0})
    log.rewind(20)
    assert steps(log) == [10, 20]
    log.rewind(20)
    log.write("train", 30, {"loss": 2.0})
    assert [row["loss"] for row in RunLog(model_dir).rows()] == [1.0, 1.0, 2.0]
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("half", ['{"step": 2, "kind": "ev', '{"step"', "{"])
def test_a_half_line_does_not_swallow_the_next_row(model_dir, tmp_path, half):
    first = RunLog(model_dir, "metrics_eval.jsonl")
    first.write("eval", 1, {"accuracy": 0.5})
    path = tmp_path / "metrics_eval.jsonl"
    path.write_text(path.read_text() + half)
    again = RunLog(model_dir, "metrics_eval.jsonl")
    assert steps(again) == [1]
    again.write("eval", 2, {"accuracy": 0.6})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_last_row_that_lacks_only_its_newline_is_kept(model_dir, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}')
    log = RunLog(model_dir)
    log.write("train", 2, {})
    assert steps(log) == [1, 2]


def test_only_the_chief_writes(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    log = RunLog(ModelDir(tmp_path, chief=False))
    log.rewind(0)
    log.write("train", 2, {"loss": 1.0})
    log.write_text("config", "text")
    log.write_image("eval", "picture", tf.zeros([1, 2, 2, 3]), 0)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n{"st'
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_an_error_that_names_the_file(model_dir, tmp_path):
    log = RunLog(model_dir)
    log.write("train", 1, {"loss": 1.0})
    path = tmp_path / "metrics.jsonl"
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"cannot write to .*metrics\.jsonl: .*[Ss]pace"):
        log.write("train", 2, {"loss": 1.0})


class Clock:
    """`time.monotonic` that stands still until it is told to go on."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def loop(clock, progress, step, seconds, wait=0.0, **values):
    clock.now += seconds
    numbers = {"loss": 1.5, "learning_rate": 1e-3, "input_wait_seconds": wait}
    return progress.update(step, {**numbers, "skipped_examples": 0, **values})


def test_speed_and_wait_are_those_of_the_loop_and_the_time_left_follows(clock, capsys):
    progress = Progress(total_steps=100, global_batch=8)
    progress.start(0)
    assert loop(clock, progress, 10, seconds=4.0, wait=1.0) == {
        "images_per_second": 20.0,
        "input_wait": 0.25,
    }
    line = capsys.readouterr().out
    assert "step  10/100  10%  loss 1.5000" in line
    assert "20 images/s  input wait 25%  left 0:36" in line
    assert "accuracy" not in line and "skipped" not in line


@pytest.mark.parametrize("start", [0, 500])
def test_the_first_loop_of_a_process_does_not_spoil_the_estimate(clock, capsys, start):
    progress = Progress(total_steps=start + 100, global_batch=8)
    progress.start(start)
    loop(clock, progress, start + 10, seconds=60.0)  # traces and compiles
    loop(clock, progress, start + 20, seconds=1.0)
    assert "80 images/s  input wait 0%  left 0:08" in capsys.readouterr().out
    loop(clock, progress, start + 30, seconds=2.0)  # 0.7 * 80 + 0.3 * 40 = 68 images/s; 560 to do
    assert "40 images/s  input wait 0%  left 0:08" in capsys.readouterr().out


def test_time_spent_evaluating_is_not_counted(clock):
    progress = Progress(total_steps=100, global_batch=8)
    progress.start(0)
    loop(clock, progress, 10, seconds=1.0)
    clock.now += 1000.0
    progress.start(10)
    assert loop(clock, progress, 20, seconds=1.0)["images_per_second"] == 80.0


def test_accuracy_and_skipped_records_are_shown_where_there_are_any(clock, capsys):
    progress = Progress(total_steps=10, global_batch=8)
    progress.start(0)
    loop(clock, progress, 1, seconds=1.0, accuracy=0.25, skipped_examples=3)
    line = capsys.readouterr().out
    assert "accuracy 0.250" in line and line.endswith("skipped 3 records\n")


def test_a_quiet_progress_measures_without_printing(clock, capsys):
    progress = Progress(total_steps=10, global_batch=8, quiet=True)
    progress.start(0)
    assert loop(clock, progress, 1, seconds=1.0)["images_per_second"] == 8.0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0:00"), (9.6, "0:10"), (75, "1:15"), (3599.7, "1:00:00"), (3700, "1:01:40")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
