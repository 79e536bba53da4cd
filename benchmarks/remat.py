"""Peak memory of training under each policy of rematerialisation, a process a policy.

python benchmarks/remat.py --model=vit_s16 --batch_size=32
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from absl import app, flags

_MODEL = flags.DEFINE_string("model", "vit_s16", "registered model, at 224 pixels")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "images a step")
_STEPS = flags.DEFINE_integer("steps", 3, "steps to train")
_POLICY = flags.DEFINE_string("policy", None, "measure this policy alone, in this process")
_POLICIES = ("none", "mlp", "attention", "blocks")


def measure(policy: str) -> dict[str, float]:
    """Trains a few steps; returns the loss, the process's peak memory in MB and the seconds."""
    import numpy as np
    import tensorflow as tf

    import vit_tf

    images = np.random.default_rng(0).uniform(-1, 1, (_BATCH_SIZE.value, 224, 224, 3))
    batch = {"image": images.astype(np.float32), "label": np.arange(_BATCH_SIZE.value) % 1000}
    with tempfile.TemporaryDirectory() as folder:
        task = vit_tf.Classification(lambda: vit_tf.create_model(_MODEL.value))
        steps = _STEPS.value
        settings = {"steps_per_loop": 1, "checkpoint_interval": steps, "strategy": "cpu"}
        config = vit_tf.RunConfig(steps=steps, remat=policy, **settings)
        start = time.monotonic()
        with open(os.devnull, "w") as silence:
            sys.stdout, shown = silence, sys.stdout
            values = vit_tf.Estimator(task, folder, config).train(
                lambda: tf.data.Dataset.from_tensors(batch).repeat()
            )
            sys.stdout = shown
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {"loss": values["loss"], "peak_mb": peak, "seconds": time.monotonic() - start}


def main(_) -> None:
    """Measures one policy, or all and what each saves."""
    if _POLICY.value:
        print(json.dumps(measure(_POLICY.value)))
        return
    from results_file import write_result

    runs = {}
    for policy in _POLICIES:
        command = [sys.executable, *sys.argv, f"--policy={policy}"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        runs[policy] = json.loads(done.stdout.splitlines()[-1])
        shown = "  ".join(f"{name} {value:,.4g}" for name, value in runs[policy].items())
        print(f"{policy:10} {shown}", flush=True)
    kept = runs["none"]["peak_mb"]
    ratios = {f"{p}_vs_none_peak": round(runs[p]["peak_mb"] / kept, 3) for p in _POLICIES[1:]}
    print(write_result("remat", ratios, {"model": _MODEL.value, "policies": runs}), ratios)


if __name__ == "__main__":
    app.run(main)
