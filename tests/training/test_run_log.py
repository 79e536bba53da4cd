"""The metrics file survives kills; the progress line's numbers are what it says they are."""

import json
import time

import pytest
import tensorflow as tf

from vit_tf.training.model_dir import ModelDir
from vit_tf.training.progress import Progress, duration
from vit_tf.training.run_log import RunLog


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


@pytest.mark.parametrize(
    "garbage",
    [b"\0" * 40, b"\xff\xfe garbage", b"[1, 2]", b'{"step": "2"}', b'{"step": null}', b"{" * 99999],
)
def test_what_a_crash_of_the_machine_leaves_is_set_aside_and_said(
    model_dir, tmp_path, capsys, garbage
):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + garbage + b'\n{"step": 3}\n{"step": 4}\n')
    log = RunLog(model_dir)
    assert steps(log) == [1, 3, 4]
    for _ in range(2):
        log.rewind(3)
    assert path.read_text() == '{"step": 1}\n{"step": 3}\n'
    assert capsys.readouterr().out.count("1 lines cannot be read; moved to metrics.jsonl.dam") == 1
    kept = (tmp_path / "metrics.jsonl.damaged").read_text(encoding="utf-8")
    assert kept == garbage.decode(errors="replace") + "\n"


def test_a_line_killed_in_the_writing_is_forgotten_without_a_word(model_dir, tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "ki')
    RunLog(model_dir).rewind(9)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'
    assert capsys.readouterr().out == "" and len(list(tmp_path.iterdir())) == 1


def test_a_crash_in_the_midst_of_rewinding_loses_nothing(model_dir, tmp_path, monkeypatch):
    before = '{"step": 1}\n{"step": 2}\n{"step": 3}\n'
    path = tmp_path / "metrics.jsonl"
    path.write_text(before)

    def crash(*args, **kwargs):
        raise KeyboardInterrupt

    for step in ("GFile", "rename"):
        broken = type("Broken", (), {"__init__": crash}) if step == "GFile" else crash
        with monkeypatch.context() as patch:
            patch.setattr(ModelDir, "read_text", lambda *args: before)
            patch.setattr(tf.io.gfile, step, broken)
            with pytest.raises(KeyboardInterrupt):
                RunLog(model_dir).rewind(2)
        assert path.read_text() == before
    RunLog(model_dir).rewind(2)
    assert steps(RunLog(model_dir)) == [1, 2]


def test_rewinding_to_the_end_writes_nothing(model_dir, tmp_path):
    log = RunLog(model_dir)
    log.write("train", 1, {})
    before = (tmp_path / "metrics.jsonl").stat()
    log.rewind(1)
    assert (tmp_path / "metrics.jsonl").stat() == before


def test_rows_that_somebody_cut_off_are_missed(model_dir, capsys):
    log = RunLog(model_dir)
    log.say_what_is_missing(0)
    log.write("train", 10, {})
    log.say_what_is_missing(10)
    assert capsys.readouterr().out == ""
    log.say_what_is_missing(30)
    assert "ends at step 10: its rows from there to step 30 were lost" in capsys.readouterr().out


def test_a_wall_clock_that_jumps_changes_only_the_time_column(
    model_dir, tmp_path, monkeypatch, capsys
):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    real = time.time
    progress = Progress(total_steps=4, global_batch=8)
    progress.start(0)
    for step, hours in ((1, 0), (2, -5), (3, 5), (4, -1)):
        monkeypatch.setattr(time, "time", lambda hours=hours: real() + 3600 * hours)
        # The wait as a TPU's host would see the jump: by hours, either way.
        values = {"loss": 1.0, "learning_rate": 0.1, "skipped_examples": 0}
        speed = progress.update(step, {**values, "input_wait_seconds": 3600.0 * hours})
        assert 0.0 <= speed["input_wait"] <= 1.0 and speed["images_per_second"] > 0
        log = RunLog(model_dir)  # a process each, as after a restart
        log.rewind(step)
        log.write("train", step, {**values, **speed})
    assert steps(RunLog(model_dir)) == [1, 2, 3, 4]
    times = [row["time"] for row in RunLog(model_dir).rows()]
    assert times[1] < times[3] < times[0] < times[2]
    assert all("left 0:0" in line for line in capsys.readouterr().out.splitlines())
    events = EventAccumulator(str(tmp_path / "tensorboard" / "train"))
    events.Reload()
    assert sorted(event.step for event in events.Tensors("loss")) == [1, 2, 3, 4]


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
    measured = loop(clock, progress, 10, seconds=4.0, wait=1.0)
    assert 0.01 < measured.pop("memory_gb") < 100
    assert measured == {
        "images_per_second": 20.0,
        "images_per_second_per_device": 20.0,
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


def test_epoch_speed_a_device_and_bad_steps_are_told(clock, capsys):
    progress = Progress(total_steps=40, global_batch=8, devices=2, steps_per_epoch=4.0)
    progress.start(0)
    measured = loop(clock, progress, 10, seconds=4.0, bad_steps=2)
    assert measured["epoch"] == 2.5
    assert measured["images_per_second_per_device"] == 10.0
    line = capsys.readouterr().out
    assert "25%  epoch 2.50  loss" in line and "20 images/s  10 a device" in line
    assert line.endswith("GB  bad steps 2\n")


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
