"""The compiler's client: what it says of a failure, and with the real compiler what it finds."""

import importlib.util
import re
from pathlib import Path

import pytest
import tensorflow as tf

from vit_tf.compilation import CHIPS, Compiled, Program, compile_program, lower, tpu_compiler
from vit_tf.compilation.tpu_compiler import parse_memory

HAS_COMPILER = all(importlib.util.find_spec(name) for name in ("jax", "libtpu"))
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="needs the extra [tpu]")
EMPTY = Program(b"", "empty", 0)


@pytest.mark.parametrize(
    ("message", "needed", "available"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 21.24G of 15.75G hbm. "
            "Exceeded hbm capacity by 5.49G.",
            21.24 * 2**30,
            15.75 * 2**30,
        ),
        (
            "E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (512.5M) exceeds available HBM (7.48G). HLO module: step.",
            512.5 * 2**20,
            7.48 * 2**30,
        ),
        ("INTERNAL: something else", 0, 0),
    ],
)
def test_needs_are_read_off_the_compilers_messages(message, needed, available):
    assert parse_memory(message) == (pytest.approx(needed), pytest.approx(available))


def test_aliased_outputs_need_no_memory_of_their_own():
    compiled = Compiled("v5e:2x2", 100, 40, 30, 20, 10, 5)
    assert compiled.peak_bytes == 40 + 30 - 20 + 10 + 5
    assert compiled.fits
    assert not Compiled("v5e:2x2", 64, 40, 30, 20, 10, 5).fits


def test_a_failure_does_not_fit_and_says_what_it_needs():
    compiled = Compiled("v5e:2x2", 100, failure="out of memory", needed_bytes=120)
    assert (compiled.peak_bytes, compiled.too_large, compiled.fits) == (120, True, False)
    assert not Compiled("v5e:2x2", 100, failure="no such op").too_large


def test_without_jax_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(tpu_compiler.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[tpu\]'"):
        compile_program(EMPTY, "v5e:2x2")


def test_more_replicas_than_devices_are_refused():
    with pytest.raises(ValueError, match="v5e:2x2 has 4 devices; given replicas=8"):
        compile_program(EMPTY, "v5e:2x2", replicas=8)


def test_a_compiler_that_dies_takes_nobody_with_it(monkeypatch, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text("raise SystemError('core dumped')")
    monkeypatch.setattr(tpu_compiler, "_WORKER", str(worker))
    monkeypatch.setattr(tpu_compiler, "compiler_version", lambda: "1")
    with pytest.raises(RuntimeError, match="status 1 and no answer for empty: .*core dumped"):
        compile_program(EMPTY, "v5e:2x2")


def test_long_work_is_said(monkeypatch, tmp_path, capsys):
    worker = tmp_path / "worker.py"
    worker.write_text("import sys, time; time.sleep(2); open(sys.argv[2], 'w').write('{}')")
    monkeypatch.setattr(tpu_compiler, "_WORKER", str(worker))
    monkeypatch.setattr(tpu_compiler, "_SAID_EVERY", 0.5)
    monkeypatch.setattr(tpu_compiler, "compiler_version", lambda: "1")
    compile_program(EMPTY, "v5e:2x2")
    assert "compiling empty for v5e:2x2 ... 1 s" in capsys.readouterr().err


def test_the_room_imports_no_other_room():
    texts = [path.read_text() for path in Path(tpu_compiler.__file__).parent.glob("*.py")]
    imported = {found for text in texts for found in re.findall(r"^from (vit_tf\.\w+)", text, re.M)}
    assert imported == {"vit_tf.compilation", "vit_tf.suggestions"}  # the latter imports no room


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", CHIPS)
def test_a_product_compiles_for_every_generation(name):
    weight = tf.Variable(tf.ones([512, 512]))

    def step(images):
        weight.assign_add(images @ weight)

    compiled = compile_program(lower(step, tf.TensorSpec([512, 512])), name)
    assert compiled.fits
    assert compiled.flops == pytest.approx(2 * 512**3, rel=0.01)
    assert compiled.argument_bytes == 2 * 4 * 512**2
    assert compiled.alias_bytes == 4 * 512**2  # the weight's new value lies where the old one did


@needs_compiler
@pytest.mark.slow
def test_what_is_too_large_is_told_by_the_compiler():
    def step(images):
        return tf.reduce_sum(tf.linalg.matmul(images, images) ** 2, axis=1)

    program = lower(step, tf.TensorSpec([150_000, 150_000], tf.bfloat16))
    compiled = compile_program(program, "v5e:2x2")
    assert compiled.too_large
    assert compiled.peak_bytes > 40 * 2**30
    assert compiled.available_bytes == pytest.approx(CHIPS["v5e"].hbm_bytes, rel=0.001)


@needs_compiler
@pytest.mark.slow
def test_dropout_keeps_no_numbers_in_memory():
    def step(images):
        return tf.nn.experimental.stateless_dropout(images, 0.1, seed=[1, 2])

    images = tf.TensorSpec([1024, 1024], tf.bfloat16)
    compiled = compile_program(lower(step, images), "v5e:2x2")
    assert compiled.bytes_accessed < 20 * 1024**2  # Philox takes 84 bytes a number
    assert compiled.temp_bytes < 1024**2


@needs_compiler
@pytest.mark.slow
def test_what_was_compiled_once_is_read(tmp_path):
    def program():
        return lower(lambda images: images @ images, tf.TensorSpec([256, 256]), name="product")

    first = compile_program(program(), "v5e:1x1", cache_dir=tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_text(kept.read_text().replace(f'"flops": {first.flops}', '"flops": 1.0'))
    assert compile_program(program(), "v5e:1x1", cache_dir=tmp_path).flops == 1.0
    assert compile_program(program(), "v5e:2x2", cache_dir=tmp_path).flops == first.flops
    assert len(list(tmp_path.iterdir())) == 2
