"""tools/tpu_compile.py: its report, its search and its errors, without and with the compiler."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from vit_tf.compilation import CHIPS, Compiled, Program, parse_topology
from vit_tf.training import tpu_report
from vit_tf.training.tpu_programs import DeviceProgram
from vit_tf.training.tpu_report import Measured, comparison, find_batch, measure, report

ROOT = Path(__file__).resolve().parents[2]
SLICE = parse_topology("v5e:2x2")
HAS_COMPILER = all(importlib.util.find_spec(name) for name in ("jax", "libtpu"))
GIB = 2**30


def made(batch=128, **more):
    return DeviceProgram("train", Program(b"", "the training step", 0), batch, 4, "tiny", **more)


def verdict(**numbers):
    return Compiled("v5e:2x2", 16 * GIB, **numbers)


def measured(**numbers):
    compiled = verdict(
        argument_bytes=GIB, temp_bytes=4 * GIB, flops=197e12, bytes_accessed=4 * 819e9, **numbers
    )
    return Measured(made(), SLICE, compiled, compiled.flops, compiled.bytes_accessed)


def test_a_report_bounds_the_step_on_every_generation():
    text = report(measured())
    assert "batch 128 a device, 512 in all" in text
    assert "compiles and fits: 5.00 GiB of 16.00 GiB, 31%" in text
    assert "197 TFLOP, 3276.0 GB accessed, 60.1 FLOP a byte" in text
    row = next(line for line in text.splitlines() if line.split()[:1] == ["v5e"])
    assert row.split() == ["v5e", "4000.00", "32", "memory"]
    assert all(f"{name} " in text for name in CHIPS)
    assert measured().as_dict()["bounds"]["v5e"]["seconds"] == 4.0


def test_what_does_not_fit_or_compile_says_so():
    large = dataclasses.replace(measured(), compiled=verdict(failure="oom", needed_bytes=20 * GIB))
    assert "DOES NOT FIT: needs 20.00 GiB of 16.00 GiB" in report(large)
    unknown = dataclasses.replace(measured(), compiled=verdict(failure="no op Fnord\nmore"))
    assert "DOES NOT COMPILE: no op Fnord\n" in report(unknown) + "\n"


def test_two_programs_stand_side_by_side_with_ratios():
    text = comparison(measured(), measured(), ("first", "second"))
    (row,) = [line for line in text.splitlines() if line.startswith("temporaries")]
    assert row.split() == ["temporaries", "4.00", "GiB", "4.00", "GiB", "1.000"]


def test_a_loop_counts_as_often_as_it_runs(monkeypatch):
    counts = {"step": verdict(flops=10.0, bytes_accessed=5.0)}
    counts["body"] = verdict(flops=8.0, bytes_accessed=3.0)
    monkeypatch.setattr(
        tpu_report, "compile_program", lambda program, *rest, **more: counts[program.name]
    )
    looped = DeviceProgram(
        "train", Program(b"", "step", 0), 8, 1, "tiny", Program(b"", "body", 0), 4
    )
    result = measure(looped, SLICE)
    assert (result.flops, result.bytes_accessed) == (10.0 + 3 * 8.0, 5.0 + 3 * 3.0)


@pytest.mark.parametrize(("most", "found"), [(1, 1), (5, 5), (13, 13), (100, 96), (1000, 1000)])
def test_the_search_ends_at_the_largest_batch_that_fits(monkeypatch, most, found):
    class Programs:
        accumulation_steps = 1

        def lower(self, kind, batch):
            return made(batch)

    def judged(program, *rest):
        failure = None if program.batch <= most else "oom"
        return Measured(program, SLICE, verdict(failure=failure, needed_bytes=20 * GIB), 1.0, 1.0)

    monkeypatch.setattr(tpu_report, "measure", judged)
    assert find_batch(Programs(), "train", SLICE).made.batch == found


def test_nothing_fits_a_chip_that_is_too_small(monkeypatch):
    class Programs:
        accumulation_steps = 2

        def lower(self, kind, batch):
            return made(batch)

    large = dataclasses.replace(measured(), compiled=verdict(failure="oom", needed_bytes=20 * GIB))
    monkeypatch.setattr(tpu_report, "measure", lambda *rest: large)
    assert find_batch(Programs(), "train", SLICE) is None


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="needs the extra [tpu]")
def test_the_tool_compiles_a_recipe(tmp_path):
    command = [
        sys.executable,
        "tools/tpu_compile.py",
        "--gin_file=gin/recipes/augreg_i1k_s16.gin",
        "--gin_param=create_model.depth = 1",
        "--topology=v5e:2x2",
        "--batch_per_chip=16",
        f"--cache_dir={tmp_path}/kept",
        f"--out={tmp_path}/out.json",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "compiles and fits" in done.stdout
    (result,) = json.loads((tmp_path / "out.json").read_text())
    assert (result["batch_per_device"], result["devices"], result["fits"]) == (16, 4, True)
    refused = [*command[:3], "--topology=v5:2x2"]
    done = subprocess.run(refused, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2].startswith("error: unknown TPU generation 'v5'")
