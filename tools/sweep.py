r"""Runs one configuration with many values: a grid or a list of gin bindings.

  python tools/sweep.py --gin_file=gin/quickstart.gin --sweep_dir=runs/sweep \
      --grid='Optimization.learning_rate = [0.001, 0.003]' --grid='RunConfig.steps = [300, 600]'

Each run is a process of tools/train.py with a --model_dir of its own, <sweep_dir>/<its values>, and
can be looked at, resumed, evaluated and exported as any other. --jobs=N of them run at a time;
--gpus=0,1,2,3 gives each of four jobs a GPU of its own.

--sweep_dir is the only state: the same command again skips what is done and goes on with what was
interrupted (Ctrl-C or SIGTERM lets the runs save first; a second Ctrl-C does not wait for that).
Runs that failed are reported with their last error, and started again by --retry. More values in
the grid are further runs. tensorboard --logdir=<sweep_dir> shows all curves.

  --grid='RunConfig.steps = [500, 2500]'   an axis; several make the product
  --grid=gin/sweeps/augreg.gin             a file of axes, one a line
  --list=runs.txt                          a run a line: bindings separated by ;
  --seeds=0,1,2                            each run with each seed; the table has their mean and std

At the end a table, the best run first by --metric (a name in the evaluation rows of metrics.jsonl)
in the --select=last or best evaluation, and summary.csv, summary.json and summary.png. The best
value of many evaluations on one split flatters; choose on another split than the one reported.

Where one machine is outgrown, --command_template submits each run once instead of starting it. In
it {command} is the run's command, {model_dir} its folder, {name} its name, {job} the name as
schedulers take it; what they are put into needs no further quotes. What is submitted must see
--sweep_dir and the data under the same paths. Later --mode=summary collects what there is.

  SLURM        --command_template='sbatch --job-name={job} --gres=gpu:1 --requeue \
                   --signal=B:TERM@120 --output={model_dir}/slurm-%j.txt --wrap="exec {command}"'
  Kubernetes   --command_template='kubectl create job {job} --image=reg/vit_tf -- sh -c {command}'
  XManager     --command_template='xmanager launch launcher.py -- --run={job} --command={command}',
               where launcher.py starts one job, xm.CommandsList([FLAGS.command])
  a script     --command_template='bash submit.sh {job} {model_dir} {command}'

Exit status: 0 all runs are done (or submitted); 1 some failed, or an error; 75 or 130 (Ctrl-C)
interrupted, start the same command again.
An error is one line; VIT_TF_TRACEBACK=1 in the environment also shows where it was raised.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors come as exceptions, the rest is noise

from absl import app, flags, logging

_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "gin file of all runs; several times")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "a binding of all runs; several times")
_SWEEP_DIR = flags.DEFINE_string("sweep_dir", None, "folder of the runs", required=True)
_GRID = flags.DEFINE_multi_string("grid", [], "an axis of the grid, or a file of axes")
_LIST = flags.DEFINE_string("list", None, "file with the bindings of a run on each line")
_SEEDS = flags.DEFINE_list("seeds", [], "seeds that each run is started with")
_JOBS = flags.DEFINE_integer("jobs", 1, "runs at a time", lower_bound=1)
_GPUS = flags.DEFINE_list("gpus", [], "GPUs, of which each runs one job (instead of --jobs)")
_RETRY = flags.DEFINE_bool("retry", False, "starts failed and submitted runs again")
_TEMPLATE = flags.DEFINE_string("command_template", None, "command that submits a run")
_METRIC = flags.DEFINE_string("metric", "accuracy", "what runs are judged by")
_SELECT = flags.DEFINE_enum("select", "last", ["last", "best"], "which evaluation counts")
_LOWER = flags.DEFINE_bool("lower_is_better", False, "whether the metric is a loss or an error")
_MODE = flags.DEFINE_enum("mode", "run", ["run", "summary"], "summary only reads what there is")

_EXAMPLE = "e.g. --grid='Optimization.learning_rate = [0.001, 0.003]'"


def main(argv: list[str]) -> None:
    """Does what --mode says; an expected error is one clear line."""
    if len(argv) > 1:
        _fail(f"unknown arguments: {' '.join(argv[1:])}; {_EXAMPLE}")
    logging.set_verbosity(logging.WARNING)
    try:
        sys.exit(_sweep())
    except (ValueError, OSError) as error:
        if os.environ.get("VIT_TF_TRACEBACK"):
            raise
        _fail(f"{error}\n(VIT_TF_TRACEBACK=1 shows where it was raised)")


def _sweep() -> int:
    from vit_tf.training.sweeps.folder import SweepFolder
    from vit_tf.training.sweeps.grid import grid_runs, listed_runs
    from vit_tf.training.sweeps.summary import Summary
    from vit_tf.training.sweeps.sweep import Sweep

    judging = (_METRIC.value, _SELECT.value, _LOWER.value)
    folder, status = SweepFolder(_SWEEP_DIR.value), 0
    if _MODE.value == "run":
        if not _GIN_FILE.value:
            raise ValueError("--gin_file says what to train and is missing")
        given = [bool(_GRID.value), bool(_LIST.value)]
        if all(given) or not any([*given, _SEEDS.value]):
            raise ValueError(f"give --grid or --list, which say what the runs are; {_EXAMPLE}")
        seeds = [int(seed) for seed in _SEEDS.value]
        runs = listed_runs(_LIST.value, seeds) if _LIST.value else grid_runs(_GRID.value, seeds)
        sweep = Sweep(_SWEEP_DIR.value, _GIN_FILE.value, _GIN_PARAM.value, runs)
        status = sweep.run(_JOBS.value, _GPUS.value, _RETRY.value, _TEMPLATE.value, *judging)
    runs = folder.runs()
    if not runs:
        raise ValueError(f"there is no run in {folder.path}")
    summary = Summary(folder, runs, *judging)
    print(f"\n{summary.table()}\n\n{'  '.join(summary.write())}", flush=True)
    return status


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    app.run(main)
