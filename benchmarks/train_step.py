r"""Training on the CPU, side by side: vit_tf, keras-hub, official.vision and timm in PyTorch.

  make benchmark-train-step TORCH_PYTHON=/path/to/python

ViT-Ti/16, S/16 and B/16, 224 pixels, 16 images a step, two threads, float32 and bfloat16.
TORCH_PYTHON is the Python of an environment with torch and timm, whose processes import nothing of
this project; without it timm is left out, as keras-hub is where it is not installed
(`pip install keras-hub`).

Every contender is a process of its own, see `step_contender.py`. They start one after the other,
which is when the time to the first step is taken; then a round asks each in turn for `--steps`
steps. All at once need 30 GiB for B/16; `--peers_at_once=1` pairs ours with one peer after the
other, in less than 12. Models that a run does not measure keep their result. A ratio of speed is of
the median seconds of a step within a round, and the median of the rounds is reported; more than 1
is faster than the peer. The two of first step and memory are of
seconds and megabytes; less than 1 is better than the peer. For each model:

  train_f32_vs_best_tf       the faster of keras-hub and official.vision, both in float32
  train_bf16_vs_best_tf      the same in bfloat16
  train_f32_vs_timm_compile  timm through torch.compile, float32
  train_bf16_vs_timm_compile the same in bfloat16
  first_step_vs_keras_hub    seconds from the start of the process to the end of the first step
  peak_rss_vs_keras_hub      peak memory of the process; both as the worse of the two precisions
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from results_file import describe_machine, describe_versions, read_result, write_result

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("vit_tf", "keras_hub", "official", "timm", "timm_compile")
DTYPES = {"float32": "f32", "bfloat16": "bf16"}
QUIET = {
    **os.environ,
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "-1",
    "OMP_NUM_THREADS": "2",
    "KERAS_BACKEND": "tensorflow",
    "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
}

Rounds = list[dict[str, float]]  # by round, a contender's median seconds


class Contender:
    """A process that runs one library's model; see `step_contender.py`."""

    def __init__(self, python: str, library: str, model: str, dtype: str, work: str):
        self.name = f"{library}_{DTYPES[dtype]}"
        script = str(Path(__file__).with_name("step_contender.py"))
        self._process = subprocess.Popen(
            [python, script, library, model, dtype, work],
            cwd=ROOT,
            env=QUIET,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.first_s = self._answer()["first_s"]
        self.cpu_s: list[float] = []
        self.peak_mb = 0.0

    def seconds(self, repeats: int) -> float:
        """Median wall seconds of `repeats` times the work."""
        try:
            self._process.stdin.write(f"{repeats}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        answer = self._answer()
        self.peak_mb = answer["peak_mb"]
        self.cpu_s += answer["cpu_s"]
        return statistics.median(answer["s"])

    def end(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        while line and not line.startswith("{"):  # what a library prints
            line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        return json.loads(line)

    def _ended(self) -> RuntimeError:
        status = self._process.wait()
        killed = ", killed: with too little memory for all, give --peers_at_once=1"
        return RuntimeError(f"{self.name} ended with status {status}{killed * (status == -9)}")


def pythons(torch_python: str | None) -> dict[str, str]:
    """Library -> Python that runs it, of those that are installed."""
    found = {library: sys.executable for library in LIBRARIES[:3]}
    if importlib.util.find_spec("keras_hub") is None:
        print("keras-hub is not installed and left out: pip install keras-hub")
        del found["keras_hub"]
    return found | (dict.fromkeys(LIBRARIES[3:], torch_python) if torch_python else {})


def groups(pythons: dict[str, str], at_once: int) -> list[dict[str, str]]:
    """Ours with so many of the others, until each had its turn."""
    ours, *peers = pythons
    return [
        {library: pythons[library] for library in (ours, *peers[start : start + at_once])}
        for start in range(0, len(peers), at_once)
    ]


def measure(
    model: str, dtype: str, work: str, pythons: dict[str, str], rounds: int, repeats: int
) -> tuple[Rounds, dict[str, dict[str, float]]]:
    """Median seconds a round, and what else is known, of every contender by name."""
    contenders = [
        Contender(python, library, model, dtype, work) for library, python in pythons.items()
    ]
    for contender in contenders:
        contender.seconds(1)  # warms up
        contender.cpu_s.clear()
    found = []
    for number in range(rounds):
        turn = {c.name: c.seconds(repeats) for c in contenders[:: (-1) ** number]}
        found.append(dict(sorted(turn.items())))
    facts = {}
    for contender in contenders:
        contender.end()
        seconds = statistics.median(turn[contender.name] for turn in found)
        facts[contender.name] = {
            "images/s": round(16 / seconds, 2),
            "processor s": round(statistics.median(contender.cpu_s), 3),
            "first s": round(contender.first_s, 1),
            "peak MB": round(contender.peak_mb),
        }
        print(f"{model:5}{work:10}{contender.name:18}", facts[contender.name], flush=True)
    return found, facts


def speed_ratios(grouped: list[Rounds], dtype: str, work: str) -> dict[str, float]:
    """Ours against the better TensorFlow peer and against `torch.compile`, as far as measured."""
    short = DTYPES[dtype]
    found = {}  # by the peer's name, the median of its rounds with ours
    for rounds in grouped:
        for name in rounds[0]:
            turns = [turn[name] / turn[f"vit_tf_{short}"] for turn in rounds]
            found[name] = round(statistics.median(turns), 2)
    peers = {
        "best_tf": [f"keras_hub_{short}", f"official_{short}"],
        "timm_compile": [f"timm_compile_{short}"],
    }
    return {
        f"{work}_{short}_vs_{peer}": min(found[name] for name in names if name in found)
        for peer, names in peers.items()
        if any(name in found for name in names)
    }


def cost_ratios(facts: dict[str, dict[str, float]]) -> dict[str, float]:
    """Time to the first step and peak memory, ours over keras-hub's: the worse precision."""
    shorts = [short for short in DTYPES.values() if f"keras_hub_{short}" in facts]
    names = {"first_step_vs_keras_hub": "first s", "peak_rss_vs_keras_hub": "peak MB"}
    return {
        ratio: round(max(facts[f"vit_tf_{s}"][k] / facts[f"keras_hub_{s}"][k] for s in shorts), 2)
        for ratio, k in names.items()
        if shorts
    }


def run(work: str, text: str) -> None:
    """The command line of `train_step.py` and `inference.py`: measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch_python", help="Python of an environment with torch and timm")
    parser.add_argument("--models", nargs="+", default=["ti16", "s16", "b16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="steps in each round")
    parser.add_argument(
        "--peers_at_once",
        type=int,
        default=len(LIBRARIES) - 1,
        help="so many others beside ours at a time; 1 takes the least memory [all]",
    )
    arguments = parser.parse_args()
    print("machine  ", describe_machine())
    print("versions ", describe_versions(), flush=True)
    who = pythons(arguments.torch_python)
    name = "train_step" if work == "train" else work
    ratios, runs = (read_result(name).get(part, {}) for part in ("ratios", "runs"))
    for model in arguments.models:
        ratios[model], runs[model] = {}, {"contenders": {}}
        for dtype, short in DTYPES.items():
            grouped = []
            for group in groups(who, arguments.peers_at_once):
                rounds, facts = measure(
                    model, dtype, work, group, arguments.rounds, arguments.steps
                )
                grouped.append(rounds)
                runs[model]["contenders"] = facts | runs[model]["contenders"]  # ours: the first
            ratios[model] |= speed_ratios(grouped, dtype, work)
            runs[model][f"seconds by round, {short}"] = grouped
        if work == "train":
            ratios[model] |= cost_ratios(runs[model]["contenders"])
        print(model, ratios[model], flush=True)
        file = write_result(name, ratios, runs)
    print("result   ", file)


if __name__ == "__main__":
    run("train", __doc__)
