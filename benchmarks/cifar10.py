"""CIFAR-10 from scratch: trains gin/recipes/cifar10.gin and reports accuracy and wall time.

  make benchmark-cifar10 DATA_DIR=data/cifar10

A run that was stopped goes on; a finished one is only reported again.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from results_file import describe_machine, describe_versions, write_result

_ROOT = Path(__file__).resolve().parents[1]
_GIN_FILE = "gin/recipes/cifar10.gin"


def main() -> None:
    """Trains if need be, prints the table, keeps the curve and the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data_dir", type=Path, required=True, help="CIFAR-10 shards (tools/make_tfrecords.py)"
    )
    parser.add_argument(
        "--model_dir",
        type=Path,
        default=_ROOT / "runs" / "cifar10",
        help="state of the run; default: runs/cifar10 of the project",
    )
    arguments = parser.parse_args()
    model_dir = arguments.model_dir.absolute()
    command = [
        sys.executable,
        "tools/train.py",
        f"--gin_file={_GIN_FILE}",
        f"--model_dir={model_dir}",
        f"--gin_param=DATA_DIR = {str(arguments.data_dir.absolute())!r}",
    ]
    if not (model_dir / "pictures" / "predictions.png").exists():  # drawn when all else is done
        done = subprocess.run(command, cwd=_ROOT, check=False)
        if done.returncode:
            sys.exit(done.returncode)
    rows = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    evaluations = [row for row in rows if row["kind"] == "eval"]
    minutes = (rows[-1]["time"] - rows[0]["time"]) / 60
    print(f"machine   {describe_machine()}\nversions  {describe_versions()}\n")
    print(f"{'step':>6} {'test accuracy':>14} {'test loss':>10}")
    for row in evaluations:
        print(f"{row['step']:>6} {row['accuracy']:>14.4f} {row['loss']:>10.4f}")
    print(f"\n{minutes:.1f} minutes from the first log line to the last")
    curve = model_dir / "pictures" / "learning_curve.png"
    shutil.copy(curve, _ROOT / "benchmarks" / "results" / "cifar10.png")
    keep = ("step", "accuracy", "top5_accuracy", "loss", "examples")
    runs = [{name: row[name] for name in keep} for row in evaluations]
    path = write_result("cifar10", {}, {"minutes": round(minutes, 1), "evaluations": runs})
    print(f"result    {path}")


if __name__ == "__main__":
    main()
