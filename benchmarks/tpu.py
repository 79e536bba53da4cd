"""Training steps as the TPU compiler weighs them, side by side with JAX big_vision; without a TPU.

  make benchmark-tpu BIG_VISION=/path/to/big_vision JAX_PYTHON=/path/to/python

Both steps are compiled for one replica on a TPU v5e: same batch, images of 224 pixels, optimizer,
loss (softmax), pooling, float32 weights and bfloat16 products. Ours is the `TrainStep` that runs,
with what it logs. See `tpu_big_vision.py` for the other, and for what JAX_PYTHON needs. Without a
checkout, big_vision's figures are those of the last run in `results/tpu.json`; with `--models` the
other models' figures are kept too. A compilation takes from 40 seconds to many minutes.

  bytes_vs_big_vision         bytes that a step reads and writes
  temporaries_vs_big_vision   memory of intermediate values

Where blocks are computed again (`_remat`), big_vision loops over them. XLA counts a loop's bytes
once, so bytes are compared with the same blocks unrolled, temporaries with the loop.
"""

import argparse
import dataclasses
import datetime
import functools
import gc
import json
import os
import subprocess
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from results_file import describe_machine, describe_versions, write_result

TOPOLOGY = "v5e:2x2"
IMAGE_SIZE = 224
RESULT = Path(__file__).parent / "results" / "tpu.json"


@dataclasses.dataclass(frozen=True)
class Case:
    """A training step of both sides.

    Attributes:
      model: registered name.
      variant: big_vision's name of it.
      batch: images a replica.
      remat: whether blocks are computed again in the backward pass.
      pool: big_vision's name of the pooling, which in ours is the model's own.
      optimizer: "momentum" (float32) or "adafactor" (Scaling ViT's, momentum in bfloat16).
    """

    model: str
    variant: str
    batch: int
    remat: bool = False
    pool: str = "tok"
    optimizer: str = "momentum"


# Batches that leave room in the 16 GiB of a v5e.
CASES = {
    "vit_s16": Case("vit_s16", "S/16", 128),
    "vit_b16": Case("vit_b16", "B/16", 128),
    "vit_l16": Case("vit_l16", "L/16", 32),
    "vit_b16_remat": Case("vit_b16", "B/16", 128, remat=True),
    "vit_l16_remat": Case("vit_l16", "L/16", 32, remat=True),
    "vit_g14_remat": Case("vit_g14", "g/14", 8, remat=True, pool="map", optimizer="adafactor"),
}


def ours(case: Case) -> dict:
    """Compiles this project's step and returns the compiler's figures."""
    import keras
    import tensorflow as tf

    import vit_tf
    from vit_tf.compilation import compile_program, lower
    from vit_tf.compilation.tpu_compiler import compiler_version
    from vit_tf.training.optimizers import MomentumSGD, ScalingAdafactor
    from vit_tf.training.run_length import RunLength
    from vit_tf.training.slice_strategy import SliceStrategy
    from vit_tf.training.step import TrainStep
    from vit_tf.training.unset_weights import unset_weights

    keras.config.set_dtype_policy("mixed_bfloat16")
    strategy = SliceStrategy(1)
    task = vit_tf.Classification(
        lambda: vit_tf.create_model(case.model, num_classes=1000, dropout=0.0)
    )
    if case.optimizer == "momentum":
        optimizer = functools.partial(MomentumSGD, accumulator_dtype="float32")
    else:
        optimizer = ScalingAdafactor
    optimization = vit_tf.Optimization(optimizer, clip_norm=None)
    config = vit_tf.RunConfig(
        steps=1000,
        optimization=optimization,
        jit_compile=True,
        remat="blocks" if case.remat else "none",
        bad_steps=None,
    )
    with unset_weights(), strategy.scope():
        model = task.build_model()
        optimization.build(model, RunLength(1000, case.batch, 1_281_167))
        step = TrainStep(task, model, config, strategy, case.batch)
    specs = {
        "image": tf.TensorSpec([case.batch, IMAGE_SIZE, IMAGE_SIZE, 3]),
        "label": tf.TensorSpec([case.batch], tf.int32),
        "mask": tf.TensorSpec([case.batch]),
    }

    def train_step(batch):
        strategy.run(step, args=(batch,))

    with strategy.scope():
        program = lower(train_step, specs)
    compiled = compile_program(program, TOPOLOGY)
    if compiled.failure:
        return {"failure": compiled.failure}
    return {
        "tflop": compiled.flops / 1e12,
        "gigabytes_accessed": compiled.bytes_accessed / 1e9,
        "temporary_gigabytes": compiled.temp_bytes / 1e9,
        "argument_gigabytes": compiled.argument_bytes / 1e9,
        "versions": {"libtpu": compiler_version()},
    }


def big_vision(case: Case, python: str, checkout: str) -> dict:
    """Compiles big_vision's step and returns the compiler's figures."""

    def compiled(remat: str) -> dict:
        command = [
            python,
            str(Path(__file__).with_name("tpu_big_vision.py")),
            f"--big_vision={checkout}",
            f"--variant={case.variant}",
            f"--batch={case.batch}",
            f"--image_size={IMAGE_SIZE}",
            f"--pool={case.pool}",
            f"--optimizer={case.optimizer}",
            f"--topology={TOPOLOGY}",
            f"--remat={remat}",
        ]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout.splitlines()[-1])

    if not case.remat:
        return compiled("none")
    looped, unrolled = compiled("scan"), compiled("unrolled")
    counted = {name: unrolled[name] for name in ("tflop", "gigabytes_accessed")}
    unrolled_temporaries = {"unrolled_temporary_gigabytes": unrolled["temporary_gigabytes"]}
    return looped | counted | unrolled_temporaries


def read_runs() -> dict[str, dict]:
    """What was measured last, by model."""
    return json.loads(RESULT.read_text())["runs"] if RESULT.exists() else {}


def ratios_of(run: dict) -> dict[str, float]:
    """What one model's figures are to big_vision's, where both have them."""
    own, other = run.get("ours", {}), run.get("big_vision", {})
    names = {
        "bytes_vs_big_vision": "gigabytes_accessed",
        "temporaries_vs_big_vision": "temporary_gigabytes",
    }
    shared = {ratio: name for ratio, name in names.items() if name in own and name in other}
    return {ratio: round(own[name] / other[name], 3) for ratio, name in shared.items()}


def arguments() -> argparse.Namespace:
    """The command line's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(CASES), help="of " + ", ".join(CASES))
    parser.add_argument("--big_vision", help="folder of big_vision's checkout")
    parser.add_argument("--jax_python", help="Python of an environment with JAX and Flax")
    args = parser.parse_args()
    args.models = args.models.split(",")
    unknown = [name for name in args.models if name not in CASES]
    if unknown:
        parser.error(f"--models: no {', '.join(unknown)}; there are {', '.join(CASES)}")
    if bool(args.big_vision) != bool(args.jax_python):
        parser.error("--big_vision and --jax_python go together")
    return args


def main() -> None:
    """Measures the models asked for and writes the ratios of all that were ever measured."""
    args = arguments()
    known = read_runs()
    missing = [name for name in args.models if "big_vision" not in known.get(name, {})]
    if missing and not args.big_vision:
        raise SystemExit(
            f"{RESULT} has no figures of big_vision for {', '.join(missing)}; give --big_vision "
            "and --jax_python"
        )
    print(describe_machine(), describe_versions())
    today = {"date": datetime.date.today().isoformat()}
    for name in args.models:
        case = CASES[name]
        run = {"case": dataclasses.asdict(case), "ours": ours(case) | today}
        gc.collect()  # a model and its optimizer refer to each other
        if args.big_vision:
            run["big_vision"] = big_vision(case, args.jax_python, args.big_vision) | today
        runs = read_runs()  # others may have been measured meanwhile
        runs[name] = run = runs.get(name, {}) | run
        ratios = {name: ratios_of(runs[name]) for name in CASES if name in runs}
        write_result("tpu", ratios, runs)
        print(name, json.dumps(run | ratios[name]), flush=True)


if __name__ == "__main__":
    main()
