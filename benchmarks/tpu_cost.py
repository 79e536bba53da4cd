"""How a training step's cost grows with model, resolution and batch, as a TPU's compiler has it.

  make benchmark-tpu-cost

AugReg's recipe on ImageNet-1k, on 64 chips of v5e, by `tools/tpu_compile.py`; no TPU is needed. One
thing varies at a time around ViT-S/16, 224 pixels and 64 images a chip, which is the recipe's own
batch. Writes `results/tpu_cost.json` and a picture, `docs/tpu_cost.png`, and prints a table. A
compilation takes about a minute; what was compiled before is taken from the tool's cache.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from matplotlib.figure import Figure
from results_file import write_result

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "tpu_cost.png"
TOPOLOGY = "v5e:8x8"


@dataclasses.dataclass(frozen=True)
class Case:
    """A training step: gin file of the model, pixels a side, images a chip."""

    model: str = "vit_s16"
    image_size: int = 224
    batch: int = 64


VARIED = {
    "model": [Case(model=name) for name in ("vit_ti16", "vit_s16", "vit_b16", "vit_l16")],
    "image_size": [Case(image_size=size) for size in (160, 224, 320, 448)],
    "batch": [Case(batch=size) for size in (16, 32, 64, 128, 256)],
}
# Of a step: what is drawn, how it is read off a result, and its unit.
MEASURES = {
    "FLOPs": (lambda step: step["flops"] / 1e12, "TFLOP"),
    "memory traffic": (lambda step: step["bytes_accessed"] / 1e9, "GB"),
    "temporaries": (lambda step: step["temp_bytes"] / 1e9, "GB"),
    "arguments": (lambda step: step["argument_bytes"] / 1e9, "GB"),
}


def compiled(case: Case) -> dict:
    """Compiles a case's step and returns what the tool says of it."""
    preprocess = f"decode|inception_crop({case.image_size})|flip_lr|value_range(-1, 1)"
    command = [
        sys.executable,
        "tools/tpu_compile.py",
        "--gin_file=gin/recipes/augreg_i1k.gin",
        f"--gin_file=gin/models/{case.model}.gin",
        f'--gin_param=train/Input.preprocess = "{preprocess}"',
        f"--gin_param=create_model.image_size = {case.image_size}",
        f"--topology={TOPOLOGY}",
        f"--batch_per_chip={case.batch}",
        "--format=json",
    ]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    steps = json.loads(done.stdout) if done.stdout else []
    if not steps or (steps[0]["failure"] and not steps[0]["needed_bytes"]):
        raise SystemExit(f"{case} was not compiled; see above")
    return steps[0]


def table(steps: dict[Case, dict]) -> str:
    """A row a case, in Markdown."""
    names = "".join(f" {name}, {unit} |" for name, (_, unit) in MEASURES.items())
    lines = [f"| model | pixels | images |{names} at most, images/s |", "|---" * 8 + "|"]
    for case, step in steps.items():
        cells = [case.model, str(case.image_size), str(case.batch)]
        if step["failure"]:
            cells += [f"does not fit: {step['needed_bytes'] / 2**30:.1f} GiB", *[""] * 4]
        else:
            cells += [f"{measure(step):.3g}" for measure, _ in MEASURES.values()]
            chip = TOPOLOGY.partition(":")[0]
            cells.append(f"{step['bounds'][chip]['images_per_second_per_chip']:,.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(steps: dict[Case, dict]) -> Figure:
    """A panel for each thing that varies; on logarithmic axes proportion is a straight line."""
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    titles = {"model": "model", "image_size": "pixels a side", "batch": "images a chip"}
    panels = figure.subplots(1, len(VARIED), sharey=True)
    for axis, (varied, cases) in zip(panels, VARIED.items(), strict=True):
        fitting = [case for case in cases if not steps[case]["failure"]]
        values = [getattr(case, varied) for case in fitting]
        for name, (measure, unit) in MEASURES.items():
            heights = [measure(steps[case]) for case in fitting]
            axis.plot(values, heights, marker="o", markersize=4, label=f"{name}, {unit}")
        if varied != "model":
            axis.set_xscale("log", base=2)
            axis.set_xticks(values, [str(value) for value in values])
            axis.minorticks_off()
        axis.set_yscale("log")
        axis.set_xlabel(titles[varied])
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(MEASURES), frameon=False)
    return figure


def main() -> None:
    """Compiles all cases; writes the figures and the picture."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    steps = {}
    for case in (case for cases in VARIED.values() for case in cases):
        if case not in steps:
            print(f"{case} ...", file=sys.stderr, flush=True)
            steps[case] = compiled(case)
    write_result("tpu_cost", {}, [step | dataclasses.asdict(case) for case, step in steps.items()])
    plot(steps).savefig(PICTURE, dpi=110)
    print(table(steps))


if __name__ == "__main__":
    main()
