"""Training in processes that are killed, asked to stop, or work together."""

import os
import random
import signal
import time

import numpy as np
import pytest
from processes import assert_same_run, rows, run, start, worker_environments

pytestmark = pytest.mark.slow

STEPS = ["RunConfig.steps = 60", "RunConfig.steps_per_loop = 2", "RunConfig.eval_interval = 20"]


@pytest.fixture(scope="module")
def whole(digits_dir, tmp_path_factory):
    """The run that was never stopped."""
    model_dir = tmp_path_factory.mktemp("whole")
    run(model_dir, digits_dir, *STEPS, "RunConfig.checkpoint_interval = 2", mode="train_and_eval")
    return model_dir


def test_sigkill_at_random_moments_changes_nothing(whole, digits_dir, tmp_path):
    """Kills at random steps, and as soon as a file of a half-written checkpoint is seen."""
    chance = random.Random(0)
    kills = {"random": 0, "writing": 0}
    # Never the same run twice: what is left decides where the next one starts.
    for attempt in range(30):
        process = start(
            tmp_path,
            digits_dir,
            *STEPS,
            "RunConfig.checkpoint_interval = 2",
            mode="train_and_eval",
            start_new_session=True,
        )
        kind = "writing" if attempt % 2 else "random"
        if sum(kills.values()) < 6 and _wait_for_moment(process, tmp_path, kind, chance):
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills[kind] += 1
            continue
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        break
    assert kills["random"] >= 2 and kills["writing"] >= 2, kills
    assert_same_run(whole, tmp_path, step=60)


def _wait_for_moment(process, model_dir, kind, chance) -> bool:
    """Waits for the moment to kill; False if the process ended before."""
    checkpoints = model_dir / "checkpoints"
    done = _complete(checkpoints)
    wanted = done + chance.randint(1, 4)
    pause = chance.random() * 0.05
    while process.poll() is None:
        if _complete(checkpoints) >= wanted:
            if kind == "random":
                time.sleep(pause)
                return process.poll() is None
            if any("temp" in name for name in _names(checkpoints)):
                return True
    return False


def _names(folder):
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _complete(checkpoints) -> int:
    """Number of the newest checkpoint, in units of the checkpoint interval."""
    steps = [int(n.split("-")[1].split(".")[0]) for n in _names(checkpoints) if ".index" in n]
    return max(steps, default=0) // 2


def test_sigterm_saves_and_the_same_command_goes_on(whole, digits_dir, tmp_path):
    # Checkpoints only at the end: what is there after SIGTERM was saved because of it.
    settings = [*STEPS, "RunConfig.checkpoint_interval = 60", "RunConfig.keep_checkpoints = 9"]
    process = start(tmp_path, digits_dir, *settings, mode="train_and_eval")
    while not (tmp_path / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == os.EX_TEMPFAIL, output
    assert "SIGTERM: saving" in output and "the same command goes on from there" in output
    (saved,) = (int(n[5:-6]) for n in os.listdir(tmp_path / "checkpoints") if ".index" in n)
    assert 0 < saved < 60
    assert rows(tmp_path)[-1]["step"] == saved // 2 * 2
    output = run(tmp_path, digits_dir, *settings, mode="train_and_eval")
    assert f"from step {saved}" in output
    assert_same_run(whole, tmp_path, step=60)


def test_two_workers_agree_with_one_process(digits_dir, tmp_path):
    settings = [
        "RunConfig.steps = 12",
        "RunConfig.steps_per_loop = 2",
        "RunConfig.eval_interval = 6",
        # Replicas draw masks of their own, so only without dropout are the numbers comparable.
        "create_model.dropout = 0.0",
        "create_model.stochastic_depth = 0.0",
        "run.evaluators = [@probed/ProbeEvaluator]",
        "probed/ProbeEvaluator.name = 'digits'",
        "probed/ProbeEvaluator.probe = @KNNProbe()",
        "probed/ProbeEvaluator.train_input = @eval/Input()",
        "probed/ProbeEvaluator.test_input = @eval/Input()",
        "KNNProbe.k = (10,)",
    ]
    one = tmp_path / "one"
    run(one, digits_dir, *settings, mode="train_and_eval")
    two = tmp_path / "two"
    outputs = _run_workers(two, digits_dir, settings)
    assert "loss" in outputs[0] and "loss" not in outputs[1]  # the chief alone reports
    kinds = [row["kind"] for row in rows(one)]
    assert kinds == [row["kind"] for row in rows(two)] and kinds.count("probe") == 2
    for first, second in zip(rows(one), rows(two), strict=True):
        assert first["step"] == second["step"]
        if first["kind"] == "probe":  # of 360 examples one may fall to the other side
            assert second["10_nn"] == pytest.approx(first["10_nn"], abs=2 / 360)
            continue
        assert second["loss"] == pytest.approx(first["loss"], abs=1e-5)
        assert second.get("examples") == first.get("examples")
    left = [name for name in os.listdir(two) if "worker" in name]
    assert not left, "the second worker's share of the checkpoints is removed"

    # Both leave together at the same step when one is asked to stop, and go on together.
    longer = ["RunConfig.steps = 400", *settings[1:]]
    outputs = _run_workers(two, digits_dir, longer, stop_second=True)
    assert all("goes on from there" in output for output in outputs)


def _run_workers(model_dir, digits_dir, settings, stop_second=False) -> list[str]:
    processes = [
        start(
            model_dir,
            digits_dir,
            *settings,
            "RunConfig.strategy = 'multi_worker'",
            mode="train_and_eval",
            flags=["--allow_config_change"] * stop_second,
            env=env,
        )
        for env in worker_environments(2)
    ]
    if stop_second:
        before = len(rows(model_dir))
        while len(rows(model_dir)) <= before:
            assert all(process.poll() is None for process in processes)
            time.sleep(0.05)
        processes[1].send_signal(signal.SIGTERM)
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == (os.EX_TEMPFAIL if stop_second else 0), output
    return outputs


def test_two_virtual_devices_from_the_command_line(digits_dir, tmp_path):
    output = run(
        tmp_path,
        digits_dir,
        "RunConfig.steps = 4",
        "RunConfig.strategy = 'mirrored'",
        "RunConfig.virtual_cpus = 2",
    )
    assert "2 x CPU, MirroredStrategy" in output
    assert "128 = 2 replicas x 64" in output
    assert np.isfinite(rows(tmp_path)[-1]["loss"])
