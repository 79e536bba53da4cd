"""Speed of a training step on several processes and on several devices of one process.

python benchmarks/scaling.py

All are on this machine and on loopback. A device computes with one thread, and each process may use
as many cores as it has devices, its own where there are enough. Beside them so many runs that know
nothing of each other: what the machine itself gives when all of its cores are busy.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from absl import app, flags, logging

_COUNTS = flags.DEFINE_list("counts", ["1", "2", "4"], "numbers of processes and of devices")
_GLOBAL_BATCH = flags.DEFINE_integer("global_batch", 32, "images a step where it stays the same")
_OWN_BATCH = flags.DEFINE_integer("own_batch", 8, "images of a replica where that stays the same")
_STEPS = flags.DEFINE_integer("steps", 15, "steps of which the median counts")
_MODEL = flags.DEFINE_string("model", "vit_ti16", "registered model")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 128, "pixels")
_KIND = flags.DEFINE_string("kind", None, "measure this kind alone, in this process")
_COUNT = flags.DEFINE_integer("count", 1, "with --kind: how many")
_KINDS = ("unrelated", "processes", "devices")
_DTYPES = ("float32", "bfloat16")


def measure(kind: str, count: int) -> list[dict[str, float | str | int]]:
    """Times training steps and their all-reduce; every process of a cluster calls it."""
    import tensorflow as tf

    from vit_tf.training.strategies import create_strategy

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(max(2, count))
    if count == 1 or kind == "unrelated":
        strategy, count = create_strategy("cpu"), 1
    elif kind == "processes":
        strategy = create_strategy("multi_worker")
    else:
        strategy = create_strategy("mirrored", virtual_cpus=count)
    batches = {"fixed global batch": _GLOBAL_BATCH.value, "fixed own batch": None}
    return [
        {"kind": kind, "batch": name, "all_reduce": dtype}
        | _time_step(strategy, size or count * _OWN_BATCH.value, dtype)
        for name, size in batches.items()
        for dtype in _DTYPES[: 1 if count == 1 else None]
    ]


def _time_step(strategy, batch_size: int, dtype: str) -> dict[str, float]:
    import numpy as np
    import tensorflow as tf

    import vit_tf
    from vit_tf.training.gradients import sum_over_replicas
    from vit_tf.training.optimization import Optimization
    from vit_tf.training.run_length import RunLength
    from vit_tf.training.step import TrainStep

    size = _IMAGE_SIZE.value
    task = vit_tf.Classification(lambda: vit_tf.create_model(_MODEL.value, image_size=size))
    optimization = Optimization()
    config = vit_tf.RunConfig(optimization=optimization, all_reduce_dtype=dtype)
    with strategy.scope():
        model = task.build_model()
        optimization.build(model, RunLength(1000))
    step = TrainStep(task, model, config, strategy, batch_size)
    share = batch_size // strategy.num_replicas_in_sync
    batch = {
        "image": np.random.default_rng(0).uniform(-1, 1, (share, size, size, 3)).astype("float32"),
        "label": np.arange(share) % 1000,
        "mask": np.ones(share, np.float32),
    }
    shares = strategy.experimental_distribute_values_from_function(
        lambda context: {name: tf.constant(value) for name, value in batch.items()}
    )

    def all_reduce():
        gradients = [0.5 * tf.convert_to_tensor(weight) for weight in model.trainable_weights]
        return sum(tf.reduce_sum(total) for total in sum_over_replicas(gradients, dtype))

    seconds = _median_seconds(tf.function(lambda: strategy.run(step, args=(shares,))))
    of_sum = _median_seconds(tf.function(lambda: strategy.run(all_reduce)))
    several = strategy.num_replicas_in_sync > 1
    return {
        "images": batch_size,
        "images_per_second": round(batch_size / seconds, 2),
        "step_seconds": round(seconds, 4),
        "all_reduce_seconds": round(of_sum, 4) if several else 0.0,
        "all_reduce_share": round(of_sum / seconds, 3) if several else 0.0,
    }


def _median_seconds(function) -> float:
    for _ in range(2):  # traces, and brings all to where it stays
        function()
    seconds = []
    for _ in range(_STEPS.value):
        start = time.monotonic()
        function()
        seconds.append(time.monotonic() - start)
    return statistics.median(seconds)


def launch(kind: str, count: int) -> list[dict]:
    """Measures in processes of their own; returns what the first found, for all of them."""
    processes = 1 if kind == "devices" else count
    clustered = kind == "processes" and count > 1
    sockets = [socket.socket() for _ in range(processes)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    cores = sorted(os.sched_getaffinity(0))
    started = []
    for index in range(processes):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        own = set(cores[:count]) if kind == "devices" else {cores[index % len(cores)]}
        started.append(
            subprocess.Popen(
                [sys.executable, *sys.argv, f"--kind={kind}", f"--count={count}"],
                env=os.environ | ({"TF_CONFIG": json.dumps(config)} if clustered else {}),
                stdout=subprocess.PIPE,
                text=True,
                preexec_fn=lambda own=own: os.sched_setaffinity(0, own),
            )
        )
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"{count} {kind} failed; see above")
    found = [json.loads(output.splitlines()[-1]) for output in outputs]
    if kind == "unrelated":
        for row, *others in zip(*found, strict=True):
            total = sum(each["images_per_second"] for each in (row, *others))
            row["images_per_second"] = round(total, 2)
    return [{**row, "count": count} for row in found[0]]


def main(_) -> None:
    """Measures one number of processes or devices, or all of them and what each gains."""
    logging.set_verbosity(logging.WARNING)
    if _KIND.value:
        print(json.dumps(measure(_KIND.value, _COUNT.value)))
        return
    from results_file import write_result

    runs: list[dict] = []
    for kind in _KINDS:
        for count in map(int, _COUNTS.value):
            print(f"{count} {kind} ...", file=sys.stderr, flush=True)
            runs += launch(kind, count)
    # One of each kind is the same program; the machine is not as fast at all times.
    single = {
        batch: statistics.median(
            row["images_per_second"] for row in runs if row["count"] == 1 and row["batch"] == batch
        )
        for batch in {row["batch"] for row in runs}
    }
    ratios: dict[str, float] = {}
    print(f"{'':28}{'batch':20}{'all-reduce':12}{'images/s':>9}{'efficiency':>12}{'in sum':>8}")
    for row in runs:
        ratio = row["images_per_second"] / single[row["batch"]]
        row["efficiency"] = round(ratio / row["count"], 3)
        _print(row)
        if row["count"] > 1:
            batch = row["batch"].replace(" ", "_")
            name = f"{row['count']}_{row['kind']}_{batch}_{row['all_reduce']}_vs_1"
            ratios[name] = round(ratio, 3)
    print(write_result("scaling", ratios, runs))


def _print(row: dict) -> None:
    where = f"{row['count']} {row['kind']}"
    print(
        f"{where:28}{row['batch']:20}{row['all_reduce']:12}{row['images_per_second']:9.1f}"
        f"{row['efficiency']:12.2f}{row['all_reduce_share']:8.0%}"
    )


if __name__ == "__main__":
    app.run(main)
