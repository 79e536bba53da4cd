"""A part of `serving.py`: one way of running ViT-S/16, in a process of its own.

Called as `python serving_contender.py NAME PATH`; answers each line on stdin, `BATCH REPEATS`, with
one of JSON on stdout: the seconds of each repeat, and of the process the peak memory in MB. The
first answer comes without a question: the seconds of loading and of the first request.

It imports no more than what it runs, so that peers may live in an environment without vit_tf.
"""

import json
import sys
import time
from collections.abc import Callable

import numpy as np
from step_contender import THREADS, peak_mb, register_torchvision_operators

Forward = Callable[[np.ndarray], np.ndarray]


def saved_model(path: str) -> Forward:
    """The signature `model` of an export, loaded with TensorFlow alone."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    loaded = tf.saved_model.load(path)
    signature = loaded.signatures["model"]

    def forward(images: np.ndarray) -> np.ndarray:
        return signature(images=tf.constant(images))["logits"].numpy()

    forward.loaded = loaded  # a signature holds its variables only weakly
    return forward


def converted(path: str) -> Forward:
    """What `vit_tf.export.runtimes.convert` wrote."""
    from vit_tf.export.runtimes import load

    run = load(path, THREADS)
    return lambda images: run(images)["logits"]


def timm(precision: str, compiled: bool) -> Forward:
    """Runs timm's `vit_small_patch16_224` in PyTorch."""
    import torch

    register_torchvision_operators(torch)
    import timm

    torch.set_num_threads(THREADS)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    model = timm.create_model("vit_small_patch16_224", num_classes=1000).eval().to(dtype)
    run = torch.compile(model) if compiled else model

    def forward(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(dtype)
            return run(inputs).float().numpy()

    return forward


def make(name: str, path: str) -> Forward:
    """Loads the contender called `name`."""
    if name.startswith("timm"):
        _, precision, *compiled = name.split("_")
        return timm(precision, bool(compiled))
    return saved_model(path) if name.startswith("saved_model") else converted(path)


def main(name: str, path: str) -> None:
    """Loads, says how long it took, and answers questions until stdin ends."""
    start = time.perf_counter()
    forward = make(name, path)
    loaded = time.perf_counter()
    rng = np.random.default_rng(0)
    forward(rng.uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32))
    first = time.perf_counter()
    print(json.dumps({"load_s": loaded - start, "first_request_s": first - loaded}), flush=True)
    for line in sys.stdin:
        batch, repeats = map(int, line.split())
        images = rng.uniform(-1, 1, (batch, 224, 224, 3)).astype(np.float32)
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            logits = forward(images)
            seconds.append(time.perf_counter() - start)
        assert logits.shape == (batch, 1000) and np.isfinite(logits).all()
        print(json.dumps({"seconds": seconds, "peak_mb": peak_mb()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:3])
