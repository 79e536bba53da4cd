"""Sweeps: which runs there are, what they record, how they are stopped, what is said of them."""

import csv
import json
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

import gin
import pytest
import tensorflow as tf

from vit_tf.training.sweeps.folder import SweepFolder, measured
from vit_tf.training.sweeps.grid import SweepRun, grid_runs, listed_runs, varying
from vit_tf.training.sweeps.local import LocalRuns
from vit_tf.training.sweeps.submit import job_name, submission, submit_all
from vit_tf.training.sweeps.summary import Summary
from vit_tf.training.sweeps.sweep import Sweep

RATES = "Optimization.learning_rate = [0.001, 1e-2]"
STEPS = "RunConfig.steps = [500, 2500]"


# Grids and lists


def test_a_grid_is_the_product_of_its_axes():
    runs = grid_runs([RATES, STEPS])
    assert [run.name for run in runs] == [
        "learning_rate=0.001,steps=500",
        "learning_rate=0.001,steps=2500",
        "learning_rate=0.01,steps=500",
        "learning_rate=0.01,steps=2500",
    ]
    assert runs[1].bindings == ["Optimization.learning_rate = 0.001", "RunConfig.steps = 2500"]
    assert varying(runs) == ["Optimization.learning_rate", "RunConfig.steps"]
    assert varying(runs[:2]) == ["RunConfig.steps"]


def test_the_preset_grid_is_that_of_augreg():
    runs = grid_runs(["gin/sweeps/augreg.gin"])
    rates, steps = (0.001, 0.003, 0.01, 0.03), (500, 2500, 10000, 20000)
    expected = {(str(rate), str(step)) for rate in rates for step in steps}
    assert {tuple(run.values.values()) for run in runs} == expected


def test_references_macros_and_strings_stay_what_gin_has():
    (axis,) = ["create_model.name = ['vit_b16', 'ViT-B/16']"]
    runs = grid_runs([axis, "RunConfig.ema = [@Ema(), %X, None]"])
    assert [run.bindings[1] for run in runs[:3]] == [
        "RunConfig.ema = @Ema()",
        "RunConfig.ema = %X",
        "RunConfig.ema = None",
    ]
    names = [run.name for run in runs]
    assert len(set(names)) == 6
    assert not any(set(name) & set("/@%()' ") for name in names)


def test_seeds_multiply_the_runs():
    runs = grid_runs([STEPS], seeds=(0, 7))
    assert [run.name for run in runs][:2] == ["steps=500,seed=0", "steps=500,seed=7"]
    assert runs[1].bindings == [
        "RunConfig.steps = 500",
        "RunConfig.seed = 7",
        "train/Input.seed = 7",
    ]
    assert varying(runs) == ["RunConfig.steps", "RunConfig.seed"]
    assert [run.name for run in grid_runs([], seeds=(3,))] == ["seed=3"]


def test_a_list_has_a_run_on_each_line(tmp_path):
    file = tmp_path / "runs.txt"
    file.write_text("# two\nRunConfig.steps = 500; cosine.warmup = 5\n\nRunConfig.steps = 900\n")
    runs = listed_runs(str(file))
    assert [run.name for run in runs] == ["steps=500,warmup=5", "steps=900"]
    assert runs[0].values == {"RunConfig.steps": "500", "cosine.warmup": "5"}


def test_equal_last_names_are_told_apart_by_their_whole_names():
    (run,) = grid_runs(["train/Input.batch_size = [8]", "eval/Input.batch_size = [9]"])
    assert run.name == "train.Input.batch_size=8,eval.Input.batch_size=9"


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("RunConfig.steps = 500", "an axis of a grid is a list of values, RunConfig.steps = "),
        ("RunConfig.steps = []", "is a list of values"),
        ("RunConfig.steps = [5, 5", "gin cannot read"),
        ("RunConfig.steps = [1]\nRunConfig.steps = [2]", "RunConfig.steps twice"),
        ("include 'x=y.gin'", "only bindings are expected"),
    ],
)
def test_what_is_no_grid_is_refused(grid, message):
    with pytest.raises(ValueError, match=message):
        grid_runs([grid])
    with pytest.raises(FileNotFoundError, match="no file 'RunConfig.steps'"):
        grid_runs(["RunConfig.steps"])


# What a run is judged by

ROWS = [
    {"kind": "train", "step": 1, "accuracy": 1.0},
    {"kind": "eval", "step": 10, "accuracy": 0.5, "loss": 1.0},
    {"kind": "eval", "step": 20, "accuracy": 0.7, "loss": 0.8},
    {"kind": "eval", "step": 30, "accuracy": 0.6, "loss": 0.9},
]


def test_last_and_best_evaluations():
    assert measured(ROWS, "accuracy", "last") == (0.6, 30)
    assert measured(ROWS, "accuracy", "best") == (0.7, 20)
    assert measured(ROWS, "loss", "best", lower=True) == (0.8, 20)
    assert measured(ROWS[:1], "accuracy", "last") is None


# Processes


def child(text):
    """A run that is a small Python program."""
    return lambda run: [sys.executable, "-u", "-c", text, run.name]


def make_runs(*names):
    return [SweepRun(name, {"RunConfig.steps": name}) for name in names]


@pytest.fixture
def folder(tmp_path):
    return SweepFolder(tmp_path / "sweep")


def test_ends_are_recorded_as_what_they_are(folder, capsys):
    text = (
        "import os, signal, sys, time; name = sys.argv[1]\n"
        "if name == '3': print('Traceback'); print('error: no such gin file'); sys.exit(1)\n"
        "if name == '4': os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.exit({'1': 0, '2': 75}.get(name, 130))"
    )
    runs = make_runs("1", "2", "3", "4", "5")
    status = LocalRuns(folder, child(text), jobs=2).start_all(runs)
    assert status == 1
    states = [folder.state(run) for run in runs]
    assert states == ["done", "interrupted", "failed", "interrupted", "interrupted"]
    assert folder.about(runs[2])["error"] == "error: no such gin file"
    assert "with status 1" in (out := capsys.readouterr().out)
    assert "error: no such gin file" in out
    assert LocalRuns(folder, child(text)).start_all([runs[1]]) == 75
    assert LocalRuns(folder, child(text)).start_all([runs[0]]) == 0
    assert folder.runs() == runs


def test_so_many_run_at_a_time(folder, tmp_path):
    text = (
        "import glob, os, pathlib, sys, time\n"
        f"mine = pathlib.Path({str(tmp_path)!r}, 'running' + sys.argv[1]); mine.touch()\n"
        f"print(len(glob.glob({str(tmp_path)!r} + '/running*'))); time.sleep(0.5); mine.unlink()\n"
        "print(os.environ.get('CUDA_VISIBLE_DEVICES'))"
    )
    runs = make_runs("1", "2", "3", "4", "5")
    assert LocalRuns(folder, child(text), gpus=["4", "7"]).start_all(runs) == 0
    logs = [Path(folder.model_dir(run), "sweep_log.txt").read_text().split() for run in runs]
    assert max(int(log[0]) for log in logs) == 2
    assert {log[1] for log in logs} == {"4", "7"}


POLITE = (
    "import signal, sys, time\n"
    "def leave(*_): print('saved', flush=True); sys.exit(75)\n"
    "signal.signal(signal.SIGTERM, leave); print('step 3/9', flush=True); time.sleep(60)"
)


def interrupt(numbers, folder, runs):
    """Sends signals to this process once the first runs are at work."""

    def at_work(run):
        log = Path(folder.model_dir(run), "sweep_log.txt")
        return log.exists() and b"step" in log.read_bytes()

    def send():
        while not all(map(at_work, runs)):
            time.sleep(0.05)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.3)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_stops_the_runs_politely_and_starts_no_more(folder, number, status):
    runs = make_runs("1", "2", "3")
    thread = interrupt([number], folder, runs[:2])
    assert LocalRuns(folder, child(POLITE), jobs=2).start_all(runs) == status
    thread.join()
    assert [folder.state(run) for run in runs] == ["interrupted", "interrupted", None]
    assert "saved" in Path(folder.model_dir(runs[0]), "sweep_log.txt").read_text()


def test_a_second_ctrl_c_does_not_wait(folder):
    runs = make_runs("1")
    stubborn = POLITE.replace("sys.exit(75)", "None")
    thread = interrupt([signal.SIGINT, signal.SIGINT], folder, runs)
    began = time.monotonic()
    assert LocalRuns(folder, child(stubborn)).start_all(runs) == 130
    thread.join()
    assert time.monotonic() - began < 30
    assert folder.state(runs[0]) == "interrupted"


def test_progress_is_told_now_and_then(folder, capsys):
    text = "import time; print('step 5/9  loss 1'); time.sleep(1.5)"
    LocalRuns(folder, child(text), every=0.3).start_all(make_runs("a", "b"))
    out = capsys.readouterr().out
    assert "1 running, 1 waiting" in out
    assert "1 running, 0 waiting, 1 done" in out
    assert "a  step 5/9  loss 1" in out


# The folder


def test_one_sweep_at_a_time_and_its_orphans_count(folder):
    with folder.locked() as lock:
        refused = pytest.raises(FileExistsError, match=f"process {os.getpid()}, or runs that")
        with refused, SweepFolder(folder.path).locked():
            pass
        run = make_runs("1")[0]
        local = LocalRuns(folder, child("import time; time.sleep(1.5)"))
        orphan = local._start(run, None, lock)
    with pytest.raises(FileExistsError, match="that outlived it"), folder.locked():
        pass
    orphan.process.wait()
    with folder.locked():
        pass


def test_a_name_stands_for_its_bindings(folder):
    run = SweepRun("steps=5", {"RunConfig.steps": "5"})
    assert folder.state(run) is None
    folder.keep(run, "done")
    assert folder.state(run) == "done"
    with pytest.raises(ValueError, match="holds a run with the bindings"):
        folder.state(SweepRun("steps=5", {"other/RunConfig.steps": "5"}))


def write_metrics(folder, run, accuracy, steps=30, total=30):
    path = Path(folder.model_dir(run))
    path.mkdir(parents=True, exist_ok=True)
    row = {"kind": "eval", "step": steps, "accuracy": accuracy, "loss": 1 - accuracy}
    (path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (path / "model.json").write_text(json.dumps({"total_steps": total}))


# Submission


def test_words_of_a_template_need_no_quotes_of_their_own():
    run = SweepRun("lr=0.01,name=ViT", {})
    command = ["python", "t.py", "--gin_param=a.b = 'it''s \"so\"'"]
    words = submission(
        'sbatch --job-name={job} --output={model_dir}/%j.txt --wrap "exec {command}"',
        run,
        command,
        "/runs/a b",
    )
    assert words[:3] == ["sbatch", "--job-name=lr-0-01-name-vit", "--output=/runs/a b/%j.txt"]
    assert words[3] == "--wrap"
    assert shlex.split(words[4]) == ["exec", *command]
    assert job_name("A" * 80 + "-") == "a" * 63
    with pytest.raises(ValueError, match="needs {command} and may have others of"):
        submission("sbatch {comand}", run, command, "")
    assert submission("sh -c 'cd ${HOME}; {command}'", run, ["ls"], "")[2] == "cd ${HOME}; ls"


def test_runs_are_submitted_once_and_collected_when_complete(folder, tmp_path, capsys):
    runs = make_runs("1", "2")
    template = f"sh -c 'echo {{name}} >> {tmp_path}/queue; echo job {{name}}; true {{command}}'"
    assert submit_all(folder, runs, template, lambda run: ["x"]) == 0
    assert (tmp_path / "queue").read_text().split() == ["1", "2"]
    assert [folder.state(run) for run in runs] == ["submitted", "submitted"]
    assert folder.about(runs[1]) == {"answer": "job 2"}
    write_metrics(folder, runs[0], 0.5, steps=30)
    write_metrics(folder, runs[1], 0.4, steps=20)
    assert [folder.state(run) for run in runs] == ["done", "submitted"]
    assert submit_all(folder, runs[1:], "false {command}", lambda run: ["x"]) == 1
    assert folder.state(runs[1]) == "failed"
    assert submit_all(folder, runs[1:], "nosuchtool {command}", lambda run: ["x"]) == 1
    assert "nosuchtool: No such file" in capsys.readouterr().out


# Summaries


@pytest.fixture
def finished(folder):
    runs = grid_runs([RATES, STEPS], seeds=(0, 1))
    for place, run in enumerate(runs):
        write_metrics(folder, run, 0.1 * place)
        folder.keep(run, "done")
    return folder, runs


def test_the_table_has_the_best_first(finished):
    folder, runs = finished
    folder.keep(runs[-1], "failed", error="error: disk full")
    summary = Summary(folder, runs)
    lines = summary.table().splitlines()
    assert lines[0].split() == ["learning_rate", "steps", "seed", "accuracy", "step", "state"]
    assert lines[2].split() == ["0.01", "2500", "0", "0.6000", "30", "done"]
    assert summary.best.run == runs[-2]  # the failed one, though its value is larger, is not
    assert summary.table().endswith(f"failed: {runs[-1].name}\nerror: disk full")
    assert Summary(folder, runs, "loss", lower=True).best.value == pytest.approx(0.4)


def test_seeds_are_put_together(finished):
    first = Summary(*finished).over_seeds()[0]
    assert first["name"] == "learning_rate 0.01, steps 2500"
    assert first["mean"] == pytest.approx(0.65)
    assert first["std"] == pytest.approx(0.1 / 2**0.5)
    assert first["seeds"] == 2


def test_files_say_what_the_table_says(finished):
    folder, runs = finished
    paths = Summary(folder, runs).write()
    assert [os.path.basename(p) for p in paths] == ["summary.csv", "summary.json", "summary.png"]
    with open(paths[0]) as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["run"] == runs[-1].name
    assert float(rows[0]["accuracy"]) == pytest.approx(0.7)
    content = json.loads(Path(paths[1]).read_text())
    assert content["best"] == runs[-1].name
    assert len(content["runs"]) == 8
    assert tf.io.decode_png(Path(paths[2]).read_bytes()).shape[0] > 200


def test_a_metric_that_nobody_measured_is_refused(finished):
    with pytest.raises(ValueError, match="no metric|no evaluation has a metric 'acuracy'. Did you"):
        Summary(*finished, metric="acuracy")


# The whole


@pytest.fixture
def clear_gin():
    yield
    gin.clear_config()


def test_wrong_bindings_are_found_before_anything_starts(tmp_path, clear_gin):
    runs = grid_runs(["Optimization.lerning_rate = [1, 2]"])
    message = r"the run lerning_rate=1 cannot be: (?s:.*)Did you mean 'learning_rate"
    with pytest.raises(ValueError, match=message):
        Sweep(tmp_path / "s", ["gin/quickstart.gin"], [], runs)
    assert not (tmp_path / "s").exists()


def test_a_folder_belongs_to_one_configuration_and_its_grid_may_grow(tmp_path, clear_gin):
    def claim(grids, *params):
        sweep = Sweep(tmp_path / "s", ["gin/quickstart.gin"], params, grid_runs(grids))
        sweep.folder.claim(sweep._parsed, {name for run in sweep.runs for name in run.values})
        for run in sweep.runs:
            sweep.folder.keep(run, "done")
        return sweep

    claim([RATES])
    claim([RATES, "RunConfig.steps = [3]"])  # a further axis
    claim(["AdamW.weight_decay = [0.1, 0.2]"])  # another one
    assert len(SweepFolder(tmp_path / "s").runs()) == 6
    with pytest.raises(
        ValueError, match=r"began with another configuration:\n  -create_model.depth"
    ):
        claim([RATES], "create_model.depth = 3")


def test_a_run_is_a_command_that_a_person_could_type(tmp_path, clear_gin):
    sweep = Sweep(tmp_path / "s", ["gin/quickstart.gin"], ["cosine.warmup = 1"], grid_runs([STEPS]))
    command = sweep.command(sweep.runs[0])
    assert command[1].endswith("tools/train.py")
    assert command[-3:] == [
        "--gin_param=cosine.warmup = 1",
        "--gin_param=RunConfig.steps = 500",
        f"--model_dir={tmp_path}/s/steps=500",
    ]
