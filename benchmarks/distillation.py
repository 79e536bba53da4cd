"""A student with and without a teacher on CIFAR-10, of the same budget: trains and compares.

  make benchmark-distillation DATA_DIR=data/cifar10

Trains the teacher once, then for each seed the same student twice: with the labels alone (both of
its heads learn them) and by hard token distillation. What was stopped goes on; what is finished is
only reported again.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from results_file import describe_machine, describe_versions, write_result

_ROOT = Path(__file__).resolve().parents[1]
_GIN_FILE = "benchmarks/distillation.gin"
_TEACHER_SEED, _TEACHER_EPOCHS, _STUDENT_EPOCHS = 100, 5, 2
_STUDENTS = {"without a teacher": "student/Classification", "distilled": "TokenDistillation"}


def main() -> None:
    """Trains what is missing, prints the table and keeps the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data_dir", type=Path, required=True, help="CIFAR-10 shards (tools/make_tfrecords.py)"
    )
    parser.add_argument(
        "--runs_dir",
        type=Path,
        default=_ROOT / "runs" / "distillation",
        help="state of all runs; default: runs/distillation of the project",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the students")
    arguments = parser.parse_args()
    runs, data_dir = arguments.runs_dir.absolute(), arguments.data_dir.absolute()
    print(f"machine   {describe_machine()}\nversions  {describe_versions()}\n", flush=True)

    teacher_dir = runs / "teacher"
    teacher = _train(
        teacher_dir, data_dir, "teacher/Classification", _TEACHER_SEED, _TEACHER_EPOCHS
    )
    weights = f"Teacher.weights = {str(teacher_dir / 'checkpoints')!r}"
    students = {name: [] for name in _STUDENTS}
    for seed in arguments.seeds:
        for name, task in _STUDENTS.items():
            folder = runs / f"{name.split()[0]}-{seed}"
            bindings = [f"train/Input.seed = {seed}"]
            if task == "TokenDistillation":
                bindings.append(weights)
            row = _train(folder, data_dir, task, seed, _STUDENT_EPOCHS, bindings)
            students[name].append({"seed": seed, **row})

    print(f"\nteacher: {teacher['accuracy']:.4f} after {_TEACHER_EPOCHS} epochs")
    print(f"{'seed':>6} " + " ".join(f"{name:>18}" for name in students))
    for rows in zip(*students.values(), strict=True):
        print(f"{rows[0]['seed']:>6} " + " ".join(f"{row['accuracy']:>18.4f}" for row in rows))
    means = {name: statistics.mean(r["accuracy"] for r in rows) for name, rows in students.items()}
    print(f"{'mean':>6} " + " ".join(f"{mean:>18.4f}" for mean in means.values()))
    gain = means["distilled"] - means["without a teacher"]
    path = write_result(
        "distillation", {"gain": round(gain, 4)}, {"teacher": teacher, "students": students}
    )
    print(f"\ngain      {gain:+.4f}\nresult    {path}")


def _train(
    model_dir: Path,
    data_dir: Path,
    task: str,
    seed: int,
    epochs: int,
    bindings: list[str] | None = None,
) -> dict[str, float]:
    """Trains to the end unless that is done; returns the evaluation at the end."""
    all_bindings = [
        f"DATA_DIR = {str(data_dir)!r}",
        f"run.task = @{task}",
        f"RunConfig.epochs = {epochs}",
        f"RunConfig.seed = {seed}",
        *(bindings or []),
    ]
    if not (model_dir / "pictures" / "predictions.png").exists():  # drawn when all else is done
        command = [sys.executable, "tools/train.py", f"--gin_file={_GIN_FILE}"]
        command += [f"--model_dir={model_dir}", *(f"--gin_param={b}" for b in all_bindings)]
        done = subprocess.run(command, cwd=_ROOT, check=False)
        if done.returncode:
            sys.exit(done.returncode)
    rows = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    (last,) = [row for row in rows if row["kind"] == "eval"]
    return {name: last[name] for name in ("step", "accuracy", "loss", "examples")}


if __name__ == "__main__":
    main()
