"""Features are computed once, kept whole, checked, and gone on with after any end."""

import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest

from vit_tf.data import Input, TFDSSource, tfrecord
from vit_tf.evaluation import extract
from vit_tf.evaluation.extractor import Extractor
from vit_tf.evaluation.feature_cache import FeatureCache
from vit_tf.evaluation.featurizers import ModelFeaturizer
from vit_tf.models import create_model
from vit_tf.models.vit import ViT

OPS = "decode|resize(8)|value_range(-1, 1)"
NAMES = ["pre_logits", "block00/out:gap"]
TINY = {
    "image_size": 8,
    "patch_size": 4,
    "width": 16,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 24,
    "num_classes": 10,
}


def make_model(**changes):
    keras.utils.set_random_seed(0)
    return create_model("vit", **{**TINY, **changes})


def split_of(folder, split="test", ops=OPS, batch_size=50):
    return Input(TFDSSource(str(folder), split), ops, batch_size, training=False)


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def test_split(digits_dir):
    return split_of(digits_dir)


@pytest.fixture(scope="module")
def uncached(model, test_split):
    return extract(model, test_split, NAMES)


@pytest.fixture
def asked(monkeypatch):
    """The tensors that were asked of models, once a trace."""
    calls = []
    run = ModelFeaturizer.run

    def noted(self, images, tensors):
        calls.append(list(tensors))
        return run(self, images, tensors)

    monkeypatch.setattr(ModelFeaturizer, "run", noted)
    return calls


def assert_same(found, expected):
    assert list(found.features) == list(expected.features)
    np.testing.assert_array_equal(found.labels, expected.labels)
    for name, values in expected.features.items():
        np.testing.assert_array_equal(found.features[name], values)


def the_folder(cache_dir):
    (folder,) = cache_dir.iterdir()
    return folder


def left_in(cache_dir):
    return sorted(path.name for path in cache_dir.rglob("*") if path.is_file())


def test_a_second_call_reads_what_the_first_computed(
    model, test_split, uncached, asked, tmp_path, capsys
):
    assert_same(extract(model, test_split, NAMES, tmp_path), uncached)
    assert len(asked) == 1
    again = extract(model, test_split, NAMES, tmp_path)
    assert_same(again, uncached)
    assert len(asked) == 1
    assert all(isinstance(values, np.memmap) for values in again.features.values())
    assert again.num_classes == 10 and again.name == uncached.name
    # The folder says what it is, and the run how large.
    about = json.loads((the_folder(tmp_path) / "about.json").read_text())
    assert about["model"] == "ViT" and "vit_tf.evaluation.extract" in about["what"]
    assert about["made_from"]["preprocess"].startswith("decode|resize(8")
    assert f"of 360 examples, 48.4 kB: {tmp_path}" in capsys.readouterr().err
    assert not [name for name in left_in(tmp_path) if "partial" in name or "tmp" in name]


def test_a_further_name_is_added_and_nothing_done_again(model, test_split, asked, tmp_path):
    extract(model, test_split, "pre_logits", tmp_path)
    both = extract(model, test_split, ["pre_logits", "block01/mlp"], tmp_path)
    assert asked == [["pre_logits"], ["block01/mlp"]]
    assert_same(both, extract(model, test_split, ["pre_logits", "block01/mlp"]))


def folder_of(model, data):
    return FeatureCache("cache", Extractor(model, data, "pre_logits")).folder


def test_neither_batch_size_nor_name_nor_the_files_place_make_other_features(
    model, test_split, digits_dir, tmp_path
):
    own = folder_of(model, test_split)
    assert folder_of(model, split_of(digits_dir, batch_size=72)) == own
    copy = Path(shutil.copytree(digits_dir, tmp_path / "digits/1.0.0"))
    (copy / "checksums.sha256").touch()
    assert folder_of(model, split_of(copy)) == own
    other = ViT(**{**TINY, "name": "other"})
    other.set_weights(model.get_weights())
    assert folder_of(other, test_split) == own


@pytest.mark.parametrize("change", ["weights", "architecture", "precision", "ops", "split", "file"])
def test_what_the_features_depend_on_is_in_the_key(change, model, test_split, digits_dir, tmp_path):
    other, data = model, test_split
    if change == "weights":
        other = make_model()
        other.weights[-4].assign(other.weights[-4] + 1e-6)
    elif change == "architecture":
        other = make_model(activation="gelu")  # with the same weights
    elif change == "precision":
        other = make_model(dtype="mixed_bfloat16")
    elif change == "ops":
        data = split_of(digits_dir, ops="decode|resize(8)|value_range(0, 1)")
    elif change == "split":
        data = split_of(digits_dir, split="test[:100]")
    else:
        copy = Path(shutil.copytree(digits_dir, tmp_path / "digits/1.0.0"))
        alter(next(copy.glob("*-test.tfrecord-00000-*")))
        data = split_of(copy)
    assert folder_of(other, data) != folder_of(model, test_split)


class Passes:
    """The batches that were computed; Ctrl-C comes before batch `stop_at`."""

    def __init__(self):
        self.steps = []
        self.stop_at = None


@pytest.fixture
def passes(monkeypatch):
    passes = Passes()
    whole_pass = Extractor.batches

    def noted(self, start_step=0):
        for batch in whole_pass(self, start_step):
            if batch.step == passes.stop_at:
                raise KeyboardInterrupt
            passes.steps.append(batch.step)
            yield batch

    monkeypatch.setattr(Extractor, "batches", noted)
    return passes


def test_a_pass_that_was_stopped_is_gone_on_with(model, test_split, uncached, passes, tmp_path):
    passes.stop_at = 5
    with pytest.raises(KeyboardInterrupt):
        extract(model, test_split, NAMES, tmp_path)
    assert not (the_folder(tmp_path) / "pre_logits.npy").exists()
    passes.stop_at = None
    found = extract(model, test_split, NAMES, tmp_path)
    assert passes.steps == list(range(8))  # none twice
    assert_same(found, uncached)
    assert not [name for name in left_in(tmp_path) if "partial" in name]


def test_a_pass_that_was_stopped_before_its_files_were_published_computes_nothing(
    model, test_split, uncached, passes, tmp_path, monkeypatch
):
    with monkeypatch.context() as stopped:

        def interrupt(self, arrays):
            raise KeyboardInterrupt

        stopped.setattr(FeatureCache, "_publish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            extract(model, test_split, NAMES, tmp_path)
    assert_same(extract(model, test_split, NAMES, tmp_path), uncached)
    assert passes.steps == list(range(8))


def test_a_part_of_another_batch_size_is_not_gone_on_with(
    model, test_split, uncached, passes, digits_dir, tmp_path
):
    """Its last bits may differ."""
    passes.stop_at = 5
    with pytest.raises(KeyboardInterrupt):
        extract(model, split_of(digits_dir, batch_size=40), NAMES, tmp_path)
    passes.stop_at, passes.steps = None, []
    assert_same(extract(model, test_split, NAMES, tmp_path), uncached)
    assert passes.steps == list(range(8))


def truncate(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 7)


def alter(path):
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"altered")


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("pre_logits.npy", truncate, "has 23,161 bytes instead of 23,168"),
        ("pre_logits.npy", alter, "is not what was written (another SHA-256)"),
        ("pre_logits.npy", Path.unlink, "is missing"),
        ("pre_logits.json", truncate, "cannot be read"),
        ("labels_of_examples-*.npy", truncate, "bytes instead of"),
    ],
)
def test_what_is_not_as_it_was_written_is_said_and_computed_again(
    model, test_split, uncached, tmp_path, capsys, file, damage, message
):
    extract(model, test_split, NAMES, tmp_path)
    (path,) = the_folder(tmp_path).glob(file)
    damage(path)
    capsys.readouterr()
    assert_same(extract(model, test_split, NAMES, tmp_path), uncached)
    said = capsys.readouterr().err
    assert str(path) in said and message in said and "computed again" in said
    extract(model, test_split, NAMES, tmp_path)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("limit", [100, 6_000, 30_000])
def test_a_full_disk_is_a_clear_error_and_leaves_nothing_half_written(
    model, test_split, uncached, tmp_path, limit
):
    names = ["pre_logits", "pixels"]  # 23 kB and 276 kB
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OSError, match="no room for the features .* or choose another cache_"):
            extract(model, test_split, names, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert left_in(tmp_path) == [".lock"]
    found = extract(model, test_split, names, tmp_path)
    np.testing.assert_array_equal(found.features["pre_logits"], uncached.features["pre_logits"])


def test_a_folder_that_cannot_be_written_is_named(model, test_split):
    with pytest.raises(OSError, match="/proc/features/.* cannot be written"):
        extract(model, test_split, "pre_logits", "/proc/features")


def test_of_two_that_want_the_same_one_computes(
    model, test_split, uncached, passes, tmp_path, capsys
):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(extract(model, test_split, NAMES, tmp_path)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    for features in found:
        assert_same(features, uncached)
    assert passes.steps == list(range(8))


def test_skipped_records_are_left_out_as_without_a_cache(model, digits_dir, tmp_path):
    folder = damaged_copy(digits_dir, tmp_path / "data", record=3)
    data = Input(TFDSSource(folder, "test"), OPS, 50, training=False, on_bad_record="skip")
    expected = extract(model, data, "pre_logits")
    assert len(expected) == 359
    for _ in range(2):
        assert_same(extract(model, data, "pre_logits", tmp_path / "cache"), expected)


def damaged_copy(digits_dir, folder, record):
    """The digits with one test record whose image cannot be decoded, and sound checksums."""
    shutil.copytree(digits_dir, folder)
    path = next(folder.glob("*-test.tfrecord-00000-*"))
    offset = tfrecord.offset_of(str(path), record)
    content = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", content[offset : offset + 8])
    data = slice(offset + 12, offset + 12 + length)
    content[data] = content[data].replace(b"PNG", b"GNP")
    checksum = tfrecord.masked_crc32c(bytes(content[data]))
    content[data.stop : data.stop + 4] = struct.pack("<I", checksum)
    path.write_bytes(content)
    return str(folder)


_EXTRACT = """
import sys, time
sys.path[:0] = [{tests!r}]
import numpy as np
from test_feature_cache import *
from vit_tf.evaluation import feature_cache
feature_cache._SAVE_EVERY_SECONDS = 0.0
whole_pass = Extractor.batches
def slow(self, start_step=0):
    for batch in whole_pass(self, start_step):
        time.sleep({seconds})
        print("batch", batch.step, flush=True)
        yield batch
Extractor.batches = slow
found = extract(make_model(), split_of({data!r}), NAMES, {cache_dir!r})
np.savez({out!r}, **found.features, labels=found.labels)
"""


def start_extraction(digits_dir, cache_dir, out, seconds=0.0):
    text = _EXTRACT.format(
        tests=str(Path(__file__).parent),
        data=str(digits_dir),
        cache_dir=str(cache_dir),
        out=str(out),
        seconds=seconds,
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, env=environment
    )


def batches_until(process, last):
    """Reads the numbers of the batches that a process computed up to one."""
    steps = []
    for line in process.stdout:
        steps.append(int(line.split()[1]))
        if steps[-1] == last:
            break
    return steps


@pytest.mark.slow
def test_a_killed_extraction_is_gone_on_with_and_equals_one_that_was_not(digits_dir, tmp_path):
    whole = start_extraction(digits_dir, tmp_path / "whole", tmp_path / "whole.npz")
    assert batches_until(whole, 7) == list(range(8))
    assert whole.wait() == 0

    killed = start_extraction(digits_dir, tmp_path / "cache", tmp_path / "a.npz", seconds=0.2)
    batches_until(killed, 4)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    # Two go on at the same time; one of them computes, and only what is missing.
    both = [
        start_extraction(digits_dir, tmp_path / "cache", tmp_path / f"{name}.npz") for name in "bc"
    ]
    steps = [int(line.split()[1]) for process in both for line in process.stdout]
    assert [process.wait() for process in both] == [0, 0]
    assert steps in (list(range(3, 8)), list(range(4, 8)))
    for name in "bc":
        with np.load(tmp_path / f"{name}.npz") as found, np.load(tmp_path / "whole.npz") as first:
            assert sorted(found) == sorted(first)
            for key in first:
                np.testing.assert_array_equal(found[key], first[key])
