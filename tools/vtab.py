r"""Measures a pre-trained model on VTAB-1k: 19 tasks of 1,000 training images each.

  python tools/vtab.py --gin_file=gin/vtab/vtab1k.gin --grid=gin/sweeps/vtab.gin \
      --out_dir=runs/vtab --gin_param='DATA_DIR = "/data/tfds"'

Another model: --gin_param='create_model.name = "vit_s16"' --gin_param='WEIGHTS = "augreg_in21k"',
or WEIGHTS = "runs/mine/checkpoints/ckpt-100000".

Each point of the grid is trained on a task's train800 and measured on its val200; the best is
trained on both, once for each of --seeds, and measured on the test split, which nothing else sees.
Then the tasks' accuracies, the means of natural, specialized and structured tasks, and of all.
Without --grid the configuration is measured as it is.

--out_dir is the only state: the same command again goes on, as tools/sweep.py does, whose --jobs,
--gpus, --retry and --command_template (with it, start the command again for the final runs) work
here too. Files: vtab.csv, vtab.json; sweep/ and final/ hold the runs.

  --mode=run       trains, chooses and measures
  --mode=summary   prints what there is
  --mode=data      prints how to get the data sets

  --tasks=natural,dtd,kitti_distance   some groups or tasks; all by default

Exit status: 0 done; 1 a run failed, or an error; 75 or 130 interrupted, start the command again.
An error is one line; VIT_TF_TRACEBACK=1 in the environment also shows where it was raised.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors come as exceptions, the rest is noise

from absl import app, flags, logging

_GIN_FILE = flags.DEFINE_multi_string("gin_file", ["gin/vtab/vtab1k.gin"], "the configuration")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "a binding that wins over the files")
_OUT_DIR = flags.DEFINE_string("out_dir", None, "folder of the runs and results")
_TASKS = flags.DEFINE_list("tasks", [], "tasks or groups of them [all]")
_GRID = flags.DEFINE_multi_string("grid", [], "an axis, or a file of axes, see tools/sweep.py")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "seeds of the final runs")
_JOBS = flags.DEFINE_integer("jobs", 1, "runs at a time", lower_bound=1)
_GPUS = flags.DEFINE_list("gpus", [], "GPUs, of which each runs one job (instead of --jobs)")
_RETRY = flags.DEFINE_bool("retry", False, "starts failed and submitted runs again")
_TEMPLATE = flags.DEFINE_string("command_template", None, "command that submits a run")
_MODE = flags.DEFINE_enum("mode", "run", ["run", "summary", "data"], "what to do")


def main(argv: list[str]) -> None:
    """Does what --mode says; an expected error is one clear line."""
    if len(argv) > 1:
        _fail(f"unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    from vit_tf.training.vtab import VTAB, choose_tasks, data_table, vtab_table

    status = 0
    try:
        tasks = choose_tasks(_TASKS.value)
        if _MODE.value == "data":
            print(data_table(tasks))
            return
        if not _OUT_DIR.value:
            raise ValueError("--out_dir says where the runs lie and is missing")
        seeds = [int(seed) for seed in _SEEDS.value]
        vtab = VTAB(_OUT_DIR.value, _GIN_FILE.value, _GIN_PARAM.value, tasks, _GRID.value, seeds)
        if _MODE.value == "run":
            how = {"jobs": _JOBS.value, "gpus": _GPUS.value, "retry": _RETRY.value}
            status = vtab.run(**how, template=_TEMPLATE.value)
        print(f"\n{vtab_table(vtab.results())}\n\n{'  '.join(vtab.write())}", flush=True)
    except (ValueError, OSError) as error:
        if os.environ.get("VIT_TF_TRACEBACK"):
            raise
        _fail(f"{error}\n(VIT_TF_TRACEBACK=1 shows where it was raised)")
    sys.exit(status)


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    app.run(main)
