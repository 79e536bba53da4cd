"""Shipped recipes compile for v5e, at full width and their own batch, with two blocks.

Depth repeats the same ops; all the rest of a step (task, mixing, teachers, optimizer, averages) is
the recipe's own. Of recipes that differ in nothing else, one is here, and of the convolutional
hybrids the one that takes the fewest minutes. `tools/tpu_compile.py` compiles each of them whole.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HAS_COMPILER = all(importlib.util.find_spec(name) for name in ("jax", "libtpu"))
DEPTH = ["create_model.depth = 2"]
STUDENT = ["student/create_model.depth = 2"]
STAGES = ["create_model.resnet_stages = (1, 1)"]
TEACHER = ["teacher/create_model.resnet_stages = (1, 1)"]
# What makes a recipe shallow, and the batch of a chip where 64 of them do not share its own.
RECIPES = {
    "augreg_i1k_s16": (DEPTH, None),
    "bit_i1k": (STAGES, None),
    "cosub_b16": (DEPTH, None),
    "deit3_b16": (DEPTH, None),
    "deit_ti16_distilled": ([*STUDENT, *TEACHER], None),
    "levit_256_distilled": (["student/create_model.depth = 1", *TEACHER], None),
    "mixer_b16_i1k": (DEPTH, None),
    "scaling_vit_gigantic14": (DEPTH, 8),
}


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="needs the extra [tpu]")
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_compiles_for_v5e_at_its_batch(name):
    bindings, batch = RECIPES[name]
    command = [sys.executable, "tools/tpu_compile.py", f"--gin_file=gin/recipes/{name}.gin"]
    command += [f"--gin_param={binding}" for binding in bindings]
    command += ["--topology=v5e:8x8", "--format=json", "--cache_dir="]
    command += [f"--batch_per_chip={batch}"] if batch else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (measured,) = json.loads(done.stdout)
    assert measured["fits"] and measured["devices"] == 64
