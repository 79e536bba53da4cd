"""A Compact Transformer and a ViT of as many parameters on CIFAR-10, of the same budget.

  make benchmark-compact DATA_DIR=data/cifar10

Trains CCT-2/3x2 (0.28 million parameters) and, with the same recipe (`compact.gin`), a ViT of the
same depth and width whose MLP makes up for the tokenizer. What was stopped goes on; what is
finished is only reported again.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from matplotlib.figure import Figure
from results_file import describe_machine, describe_versions, write_result

import vit_tf

_ROOT = Path(__file__).resolve().parents[1]
_GIN_FILE = "benchmarks/compact.gin"
MODELS = {
    "CCT-2/3x2": {"name": "cct_2_3x2"},
    "ViT": {
        "name": "vit",
        "image_size": 32,
        "patch_size": 4,
        "width": 128,
        "depth": 2,
        "num_heads": 2,
        "mlp_dim": 256,
        "pool": "token",
    },
}


def main() -> None:
    """Trains what is missing, prints the table, draws the curves and keeps the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data_dir", type=Path, required=True, help="CIFAR-10 shards (tools/make_tfrecords.py)"
    )
    parser.add_argument(
        "--runs_dir",
        type=Path,
        default=_ROOT / "runs" / "compact",
        help="state of the runs; default: runs/compact of the project",
    )
    parser.add_argument("--epochs", type=int, default=20, help="the budget of each")
    arguments = parser.parse_args()
    print(f"machine   {describe_machine()}\nversions  {describe_versions()}\n", flush=True)
    runs = {}
    for title, config in MODELS.items():
        folder = arguments.runs_dir.absolute() / config["name"]
        rows = _train(folder, arguments.data_dir.absolute(), config, arguments.epochs)
        evaluations = [row for row in rows if row["kind"] == "eval"]
        keep = ("step", "accuracy", "loss", "examples")
        runs[title] = {
            "parameters": _parameters(config),
            "minutes": round((rows[-1]["time"] - rows[0]["time"]) / 60, 1),
            "evaluations": [{name: row[name] for name in keep} for row in evaluations],
        }
    print(f"\n{'model':10} {'parameters':>10} {'accuracy':>9} {'minutes':>8}")
    for title, run in runs.items():
        accuracy = run["evaluations"][-1]["accuracy"]
        print(f"{title:10} {run['parameters']:>10,} {accuracy:>9.4f} {run['minutes']:>8.1f}")
    picture = _ROOT / "benchmarks" / "results" / "compact.png"
    _curves(runs).savefig(picture, dpi=110)
    compact, plain = (run["evaluations"][-1]["accuracy"] for run in runs.values())
    gain = round(compact - plain, 4)
    path = write_result("compact", {"gain": gain}, {"epochs": arguments.epochs, **runs})
    print(f"\ngain      {gain:+.4f}\npicture   {picture}\nresult    {path}")


def _parameters(config: dict) -> int:
    sizes = {key: value for key, value in config.items() if key != "name"}
    return vit_tf.count_parameters(config["name"], num_classes=10, **sizes)


def _train(model_dir: Path, data_dir: Path, config: dict, epochs: int) -> list[dict]:
    """Trains to the end unless that is done; returns the rows of the log."""
    bindings = [f"DATA_DIR = {str(data_dir)!r}", f"RunConfig.epochs = {epochs}"]
    bindings += [f"create_model.{key} = {value!r}" for key, value in config.items()]
    if not (model_dir / "pictures" / "predictions.png").exists():  # drawn when all else is done
        command = [sys.executable, "tools/train.py", f"--gin_file={_GIN_FILE}"]
        command += [f"--model_dir={model_dir}", *(f"--gin_param={b}" for b in bindings)]
        done = subprocess.run(command, cwd=_ROOT, check=False)
        if done.returncode:
            sys.exit(done.returncode)
    return [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]


def _curves(runs: dict[str, dict]) -> Figure:
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="test accuracy")
    for title, run in runs.items():
        steps, accuracies = zip(
            *((row["step"], row["accuracy"]) for row in run["evaluations"]), strict=True
        )
        label = f"{title}, {run['parameters'] / 1e6:.2f} M"
        axes.plot(steps, accuracies, marker="o", markersize=3, label=label)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
