r"""Speed of exported models, side by side with timm in PyTorch: ViT-S/16 at 224 pixels on the CPU.

  make benchmark-serving TORCH_PYTHON=/path/to/python

TORCH_PYTHON is the Python of an environment with torch and timm (`pip install torch timm`); its
processes import nothing of this project. Without it, the exported models are measured alone.

Every contender is a process of its own, with two threads, that stays alive. A round asks each of
them in turn for `--bursts` batches of 16 images and for 20 single ones; a ratio is of images a
second at batch 16 within a round, and the median of the rounds is reported. Images are preprocessed
beforehand on all sides. Beside the ratios: median and 99th percentile of the latency at batch 1,
peak memory, seconds to load and to answer the first request.

  f32_vs_timm_eager     the exported SavedModel in float32, and timm in float32
  bf16_vs_f32           the exported SavedModel in bfloat16, and in float32
  bf16_vs_timm_eager    the exported SavedModel in bfloat16, and timm in bfloat16
  best_vs_timm_compile  the fastest of the exported models that computes in floats, and timm in
                        bfloat16 through torch.compile
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

import numpy as np
from results_file import describe_machine, describe_versions, write_result

ROOT = Path(__file__).resolve().parents[1]
CONVERTED = (
    "litert_float32", "litert_float16", "litert_dynamic_int8", "litert_int8",
    "onnx", "openvino", "openvino_bf16",
)  # fmt: skip
TIMM = ("timm_float32", "timm_bfloat16", "timm_bfloat16_compiled")
QUIET = {
    **os.environ,
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "-1",
    "OMP_NUM_THREADS": "2",
}


class Contender:
    """A process that runs the model one way; see `serving_contender.py`."""

    def __init__(self, name: str, path: str, python: str):
        self.name = name
        script = str(Path(__file__).with_name("serving_contender.py"))
        self._process = subprocess.Popen(
            [python, script, name, path],
            cwd=ROOT,
            env=QUIET,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.start = self._answer()
        self.peak_mb = 0.0
        self.single: list[float] = []

    def seconds(self, batch: int, repeats: int) -> list[float]:
        """Seconds of each of `repeats` batches of `batch` images."""
        self._process.stdin.write(f"{batch} {repeats}\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.peak_mb = answer["peak_mb"]
        return answer["seconds"]

    def end(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self._process.wait()}")
        return json.loads(line)


def export(folder: str) -> dict[str, str]:
    """Exports ViT-S/16 with fresh weights both ways and converts it; paths by contender's name."""
    from vit_tf.export.runtimes import convert

    photos = resources.files("sklearn.datasets.images")
    paths = {}
    for precision in ("float32", "bfloat16"):
        where = os.path.join(folder, precision)
        command = [
            sys.executable, "tools/export.py", "--model=vit_s16", "--weights=none",
            f"--images={photos}", f"--export_dir={where}", f"--precision={precision}",
        ]  # fmt: skip
        subprocess.run(command, cwd=ROOT, env=QUIET, check=True, stdout=subprocess.DEVNULL)
        paths[f"saved_model_{precision}"] = os.path.join(where, "1")
    images = list(np.random.default_rng(1).uniform(-1, 1, (8, 224, 224, 3)).astype(np.float32))
    for kind in CONVERTED:
        output = os.path.join(folder, kind)
        paths[kind] = convert(paths["saved_model_float32"], kind, output, images)
    return paths


def measure(contenders: list[Contender], rounds: int, bursts: int) -> list[dict[str, float]]:
    """Images a second of every contender at batch 16, a dict a round."""
    for contender in contenders:
        contender.seconds(16, 2)  # compiles and warms up
        contender.seconds(1, 3)
    found = []
    for number in range(rounds):
        rates = {}
        for contender in contenders[:: (-1) ** number]:
            rates[contender.name] = round(16 / statistics.median(contender.seconds(16, bursts)), 2)
            contender.single += contender.seconds(1, 20)
        found.append(dict(sorted(rates.items())))
        print(f"round {number + 1} of {rounds}: {found[-1]}", flush=True)
    return found


def ratios_of(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The ratios that the module's text names, as far as both sides were measured."""
    names = rounds[0]
    floats = [n for n in names if not n.startswith("timm") and "int8" not in n]
    best = max(floats, key=lambda name: statistics.median(r[name] for r in rounds))
    pairs = {
        "f32_vs_timm_eager": ("saved_model_float32", "timm_float32"),
        "bf16_vs_f32": ("saved_model_bfloat16", "saved_model_float32"),
        "bf16_vs_timm_eager": ("saved_model_bfloat16", "timm_bfloat16"),
        "best_vs_timm_compile": (best, "timm_bfloat16_compiled"),
    }
    return {
        ratio: round(statistics.median(r[ours] / r[theirs] for r in rounds), 2)
        for ratio, (ours, theirs) in pairs.items()
        if ours in names and theirs in names
    }


def main() -> None:
    """Exports, measures and writes `results/serving.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch_python", help="Python of an environment with torch and timm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bursts", type=int, default=3, help="batches of 16 images a round")
    arguments = parser.parse_args()
    print("machine  ", describe_machine())
    print("versions ", describe_versions(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        paths = export(folder)
        contenders = [Contender(name, path, sys.executable) for name, path in paths.items()]
        if arguments.torch_python:
            contenders += [Contender(name, "", arguments.torch_python) for name in TIMM]
        rounds = measure(contenders, arguments.rounds, arguments.bursts)
        for contender in contenders:
            contender.end()
    facts = {}
    for contender in contenders:
        latency = (1000 * np.percentile(contender.single, [50, 99])).tolist()
        facts[contender.name] = {
            "images/s at batch 16": round(statistics.median(r[contender.name] for r in rounds), 1),
            "p50 ms": round(latency[0], 1),
            "p99 ms": round(latency[1], 1),
            "peak MB": round(contender.peak_mb),
            "load s": round(contender.start["load_s"], 2),
            "first request s": round(contender.start["first_request_s"], 2),
        }
        print(f"{contender.name:24}", facts[contender.name])
    ratios = ratios_of(rounds)
    path = write_result("serving", ratios, {"contenders": facts, "images/s by round": rounds})
    for name, value in ratios.items():
        print(f"{name:24} {value:.2f}")
    print("result   ", path)


if __name__ == "__main__":
    main()
