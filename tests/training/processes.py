"""Runs `tools/train.py` as a person would, in a process of its own."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "create_model.width = 32",
    "create_model.depth = 2",
    "create_model.num_heads = 2",
    "create_model.mlp_dim = 64",
    "create_model.patch_size = 4",
    "create_model.dropout = 0.1",
    "create_model.stochastic_depth = 0.1",
    "RunConfig.jit_compile = False",
    "cosine.warmup = 2",
]


def start(
    model_dir, digits_dir, *params, mode="train", flags=(), env=None, **kwargs
) -> subprocess.Popen:
    """Starts the quickstart's training at a tiny size; `params` are gin bindings that win."""
    bindings = [f"DATA_DIR = '{digits_dir}'", *TINY, *params]
    command = [
        sys.executable,
        "tools/train.py",
        "--gin_file=gin/quickstart.gin",
        f"--model_dir={model_dir}",
        f"--mode={mode}",
        *flags,
        *(f"--gin_param={binding}" for binding in bindings),
    ]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **kwargs,
    )


def run(*args, **kwargs) -> str:
    """Like `start`, but waits for the end and returns what was printed; must succeed."""
    process = start(*args, **kwargs)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def worker_environments(count: int) -> list[dict[str, str]]:
    """Of each worker of a cluster on this machine: the `TF_CONFIG` that says who it is."""
    with contextlib.ExitStack() as stack:  # all are open at once, or one would be given twice
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        cluster = {"worker": [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]}
    tasks = [{"type": "worker", "index": index} for index in range(count)]
    return [{"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})} for task in tasks]


def rows(model_dir) -> list[dict]:
    """Rows of `metrics.jsonl` without what depends on the clock and the machine."""
    clock = {"time", "images_per_second", "images_per_second_per_device", "input_wait"}
    clock |= {"memory_gb", "device_memory_gb"}
    lines = (Path(model_dir) / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]


def tensors(model_dir, step: int) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint by name."""
    reader = tf.train.load_checkpoint(str(Path(model_dir) / "checkpoints" / f"ckpt-{step}"))
    names = [n for n in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in n]
    return {name: reader.get_tensor(name) for name in names if "save_counter" not in name}


def assert_same_run(one, other, step: int) -> None:
    """Asserts that two runs have equal metrics and, bit for bit, equal states at a step."""
    assert rows(one) == rows(other)
    first, second = tensors(one, step), tensors(other, step)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
