"""Checkpoints are written whole or not at all, and what is damaged is found on reading."""

import os
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from processes import assert_same_run, rows

from vit_tf.training import checkpoint_files
from vit_tf.training.checkpoint_files import CheckpointFiles, damage
from vit_tf.training.checkpoint_writer import CheckpointWriter


@pytest.fixture
def files(tmp_path):
    return CheckpointFiles(str(tmp_path / "checkpoints"))


@pytest.fixture
def state():
    return {
        "model": {"block00/kernel": tf.Variable(tf.random.normal([7, 5])), "b": tf.Variable([1.0])},
        "step": tf.Variable(1, dtype=tf.int64),
        "half": tf.Variable(tf.ones([3], tf.bfloat16)),
    }


@pytest.fixture
def writer(files, state):
    with CheckpointWriter(files, state, keep=3) as writer:
        yield writer


def save(writer, *steps):
    for step in steps:
        writer.save(step)
    writer.wait()


def read(path, name):
    return tf.train.load_checkpoint(path).get_tensor(f"{name}/.ATTRIBUTES/VARIABLE_VALUE")


def names(files):
    return sorted(os.listdir(files.folder))


def test_a_checkpoint_holds_the_state_of_the_moment_though_training_goes_on(
    files, writer, state, monkeypatch
):
    may_write = threading.Event()
    publish = CheckpointFiles.publish
    monkeypatch.setattr(CheckpointFiles, "publish", lambda *a: may_write.wait(9) and publish(*a))
    variables = tf.nest.flatten(state)
    for step in (1, 2):  # the first one also makes the copies
        writer.save(step)
        before = [variable.numpy() for variable in variables]
        for variable in variables:
            variable.assign_add(tf.ones_like(variable))
        assert files.latest() == (files.path(1) if step == 2 else None)
        may_write.set()
        writer.wait()
        may_write.clear()
    restored = tf.nest.map_structure(lambda v: tf.Variable(tf.zeros_like(v)), state)
    tf.train.Checkpoint(**restored).restore(files.path(2)).assert_consumed()
    for value, expected in zip(tf.nest.flatten(restored), before, strict=True):
        np.testing.assert_array_equal(value.numpy(), expected)
    assert tf.train.latest_checkpoint(files.folder) == files.path(2)


def test_the_newest_stay_and_some_for_good(files, state):
    with CheckpointWriter(files, state, keep=2, for_good=lambda step: step % 4 == 0) as writer:
        save(writer, 2, 4, 6, 8, 10, 12)
    assert files.steps() == [4, 8, 10, 12]
    assert tf.train.get_checkpoint_state(files.folder).all_model_checkpoint_paths == [
        files.path(step) for step in (4, 8, 10, 12)
    ]


def test_a_failed_write_is_said_at_the_next_boundary_and_leaves_the_one_before(
    files, writer, monkeypatch
):
    save(writer, 2)

    def fail(self, path):
        with open(f"{path}.data-00000-of-00001", "w") as file:
            file.write("half")
        raise tf.errors.ResourceExhaustedError(None, None, "no space")

    monkeypatch.setattr(tf.train.Checkpoint, "write", fail)
    writer.save(4)  # does not wait, so does not know
    message = r"could not write checkpoint ckpt-4 to .*: no space; \d+ MB are free\. Of the check"
    with pytest.raises(OSError, match=message + "points before, ckpt-2 is intact"):
        while True:
            writer.check()
    assert names(files) == ["checkpoint", "ckpt-2.data-00000-of-00001", "ckpt-2.index"]
    assert damage(files.path(2)) is None
    writer.check()  # said once


def test_an_error_of_training_is_not_hidden_by_one_of_writing(files, state, monkeypatch, capsys):
    def fail(self, path):
        raise OSError("disk full")

    monkeypatch.setattr(tf.train.Checkpoint, "write", fail)
    with pytest.raises(FloatingPointError), CheckpointWriter(files, state, keep=1) as writer:
        writer.save(1)
        raise FloatingPointError("loss is NaN")
    assert "could not write checkpoint ckpt-1" in capsys.readouterr().out


def test_without_the_background_saving_waits_for_the_files(files, state):
    with CheckpointWriter(files, state, keep=1, in_background=False) as writer:
        writer.save(1)
        assert files.steps() == [1]


def test_a_process_that_is_not_the_chief_writes_nothing(files, state):
    with CheckpointWriter(files, state, keep=1, chief=False) as writer:
        save(writer, 1)
    assert not os.path.exists(files.folder)


@pytest.mark.parametrize("moment", ["writing", "data in place", "all in place"])
def test_what_a_killed_write_left_is_removed_at_the_next_start(files, writer, monkeypatch, moment):
    save(writer, 2)
    calls = {"makedirs": 0, "rename": 0, "rmtree": 0}
    kill_before = {"writing": "rename", "data in place": "rename", "all in place": "rmtree"}[moment]
    kill_at = 2 if moment == "data in place" else 1

    class Killed(BaseException):
        pass

    real = getattr(tf.io.gfile, kill_before)

    def count(*args, **kwargs):
        calls[kill_before] += 1
        if calls[kill_before] == kill_at:
            raise Killed
        return real(*args, **kwargs)

    monkeypatch.setattr(tf.io.gfile, kill_before, count)
    with pytest.raises(Killed):
        save(writer, 4)
    monkeypatch.undo()
    assert "ckpt-4.temp" in names(files)
    newest = 4 if moment == "all in place" else 2
    assert files.latest() == files.path(newest)
    assert files.recover() == (newest, [])
    steps = [2, 4] if moment == "all in place" else [2]
    assert names(files) == [
        "checkpoint",
        *(f"ckpt-{s}.{kind}" for s in steps for kind in ("data-00000-of-00001", "index")),
    ]
    assert tf.train.latest_checkpoint(files.folder) == files.path(newest)


def _truncate(path):
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) // 2)


def _flip(path):
    with open(path, "r+b") as file:
        content = bytearray(file.read())
        content[40] ^= 1  # a single bit
        file.seek(0)
        file.write(content)


def _empty(path):
    open(path, "w").close()


@pytest.mark.parametrize("kind", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("harm", [_truncate, _flip, _empty, os.remove])
def test_every_kind_of_damage_is_found_named_and_set_aside(files, writer, kind, harm):
    save(writer, 2, 4, 6)
    harm(f"{files.path(6)}.{kind}")
    step, (problem,) = files.recover()
    assert step == 4
    assert "ckpt-6." + kind.partition("-")[0] in problem
    assert [n for n in names(files) if "6" in n] == []
    kept = {"ckpt-6.index", "ckpt-6.data-00000-of-00001"}
    assert set(os.listdir(files.folder + "/damaged")) == kept - {f"ckpt-6.{kind}"} | (
        {f"ckpt-6.{kind}"} if harm is not os.remove else set()
    )
    assert tf.train.latest_checkpoint(files.folder) == files.path(4)
    assert files.recover() == (4, [])


def test_any_flipped_byte_that_changes_a_value_is_found(files, writer, state):
    save(writer, 1)
    expected = state["model"]["block00/kernel"].numpy()
    silent = 0
    for kind in ("index", "data-00000-of-00001"):
        path = f"{files.path(1)}.{kind}"
        with open(path, "rb") as file:
            content = file.read()
        for place in range(0, len(content), 7):
            harmed = bytearray(content)
            harmed[place] ^= 0xFF
            with open(path, "wb") as file:
                file.write(harmed)
            if damage(files.path(1)) is None:
                silent += 1
                np.testing.assert_array_equal(
                    read(files.path(1), "model/block00.Skernel"), expected
                )
        with open(path, "wb") as file:
            file.write(content)
    assert silent < 15  # TensorFlow does not read a few bytes at the end of the index


def test_where_all_are_damaged_none_is_moved(files, writer):
    save(writer, 2, 4)
    for step in (2, 4):
        _truncate(f"{files.path(step)}.data-00000-of-00001")
    before = names(files)
    for _ in range(2):  # a second start must not begin anew, silently
        step, problems = files.recover()
        assert step is None and len(problems) == 2
        assert names(files) == before


def test_a_killed_removal_is_finished(files, writer):
    save(writer, 2, 4)
    os.remove(f"{files.path(2)}.index")
    assert files.recover() == (4, [])
    assert [name for name in names(files) if "2" in name] == []


def test_one_that_is_replaced_while_it_is_read_is_not_called_damaged(files, writer, monkeypatch):
    save(writer, 2, 4)

    def replaced(path):
        files._remove(4)
        return "gone"

    monkeypatch.setattr(
        checkpoint_files, "damage", lambda p: replaced(p) if p.endswith("-4") else None
    )
    assert files.newest_whole() == (files.path(2), [])


def test_what_was_read_in_full_once_is_not_read_again_for_each_use(files, writer, monkeypatch):
    save(writer, 2)
    assert files.newest_whole() == (files.path(2), [])
    monkeypatch.setattr(checkpoint_files, "damage", lambda path: f"{path} is read again")
    assert files.newest_whole() == (files.path(2), [])
    step, problems = files.recover()  # but a start trusts nobody
    assert step is None and len(problems) == 1


def test_new_checkpoints_are_waited_for_by_a_clock_that_nobody_sets(files, writer, monkeypatch):
    save(writer, 2)
    monkeypatch.setattr(time, "time", lambda: 1e12)
    coming = files.as_they_come(timeout=0.2)
    assert next(coming) == files.path(2)
    save(writer, 4, 6)
    assert next(coming) == files.path(6)
    assert list(coming) == []


# In training


@pytest.fixture(scope="module")
def settings():
    return dict(steps=8, steps_per_loop=1, checkpoint_interval=2, eval_interval=8)


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    make_estimator, train_input, eval_input, tmp_path, settings, capsys
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    make_estimator(whole, **settings).train(train_input)
    estimator = make_estimator(cut, **settings)
    estimator.train(train_input, steps=6)
    harmed = cut / "checkpoints" / "ckpt-6.data-00000-of-00001"
    os.truncate(harmed, 100)
    capsys.readouterr()
    assert estimator.evaluate(eval_input)["examples"] == 360
    said = capsys.readouterr().out
    assert "damaged in" in said and "Taken instead: ckpt-4" in said
    assert "evaluation at step 4" in said
    assert harmed.exists(), "who only reads leaves it where it is"
    with pytest.raises(ValueError, match=r"cannot load .*ckpt-6 into this model"):
        estimator.evaluate(eval_input, checkpoint="6")
    make_estimator(cut, **settings).train(train_input)
    said = capsys.readouterr().out
    assert "damaged checkpoints: ckpt-6.data-00000-of-00001: " in said
    assert "goes on from step 4" in said and "resuming   from step 4" in said
    assert_same_run(whole, cut, step=8)
    assert [row["step"] for row in rows(cut)] == list(range(1, 9))


def test_a_run_of_which_no_checkpoint_is_whole_does_not_begin_anew(
    make_estimator, train_input, tmp_path, settings
):
    make_estimator(tmp_path, **settings).train(train_input, steps=2)
    _truncate(tmp_path / "checkpoints" / "ckpt-2.index")
    message = r"no checkpoint in .*/checkpoints can be read: ckpt-2\.index: .*Bring one back"
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            make_estimator(tmp_path, **settings).train(train_input)


@pytest.mark.parametrize("every", [3, "37.5%"])
def test_keep_every_keeps_the_first_at_or_after_each_multiple(
    make_estimator, train_input, tmp_path, settings, every
):
    settings = {**settings, "keep_every": every, "keep_checkpoints": 1}
    make_estimator(tmp_path, **settings).train(train_input)
    assert CheckpointFiles(str(tmp_path / "checkpoints")).steps() == [4, 6, 8]
