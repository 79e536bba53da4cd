"""A Compact Transformer and a ViT of as many parameters on CIFAR-10, of the same budget.

  make benchmark-compact DATA_DIR=data/cifar10

Trains CCT-2/3x2 (0.28 million parameters) and, with the same recipe (`compact.gin`), a ViT of the
same depth and width whose MLP makes up for the tokenizer. What was stopped goes on; what is
finished is only reported again. Two pictures show what the ViT has learned: where it looks on
scikit-learn's photographs, three times as high as the images of its training, and its position
embeddings.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from results_file import describe_machine, describe_versions, write_result
from sklearn.datasets import load_sample_images

import vit_tf
from vit_tf.analysis.attention_maps import attention_maps, plot_attention_maps
from vit_tf.analysis.position_similarity import model_position_similarity, plot_position_similarity

_ROOT = Path(__file__).resolve().parents[1]
_RESULTS = _ROOT / "benchmarks" / "results"
_CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # mean and deviation, as the recipe
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
    picture = _RESULTS / "compact.png"
    _curves(runs).savefig(picture, dpi=110)
    vit = arguments.runs_dir / MODELS["ViT"]["name"]
    _attention(vit).savefig(_RESULTS / "compact_attention.png", dpi=100)
    _positions(vit).savefig(_RESULTS / "compact_positions.png", dpi=70)
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


def _trained_vit(model_dir: Path, image_size: tuple[int, int]) -> keras.Model:
    """The ViT after its training, its positions resized for images of another size."""
    model = vit_tf.create_model(**{**MODELS["ViT"], "image_size": image_size}, num_classes=10)
    vit_tf.load_checkpoint(model, str(model_dir))
    return model


def _attention(model_dir: Path) -> Figure:
    photos = np.stack(load_sample_images().images[::-1])  # 427 x 640 pixels, CC BY 2.0
    size = (96, 144)
    mean, deviation = _CIFAR10
    images = (tf.image.resize(photos / 255, size, antialias=True).numpy() - mean) / deviation
    maps = attention_maps(_trained_vit(model_dir, size), images.astype(np.float32))
    return plot_attention_maps(photos, {"attention": maps["rollout"]}, panel=3)


def _positions(model_dir: Path) -> Figure:
    similarity = model_position_similarity(_trained_vit(model_dir, (32, 32)))
    return plot_position_similarity({"similarity of position embeddings": similarity})


if __name__ == "__main__":
    main()
