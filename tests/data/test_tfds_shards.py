import re

import pytest
import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import download_manager

from vit_tf.data.tfds_shards import prepare_tfds


@pytest.mark.parametrize(
    ("fault", "raised", "message"),
    [
        (
            requests.exceptions.ConnectionError("no route"),
            OSError,
            "tfds:mnist: the download failed (no route); check the network and run the same "
            "command again",
        ),
        (
            download_manager.NonMatchingChecksumError("checksum differs"),
            OSError,
            "tfds:mnist: the download failed (checksum differs); check the network and run the "
            "same command again",
        ),
        (
            AssertionError("Manual directory x does not exist"),
            ValueError,
            "tfds:mnist: TFDS cannot prepare it: Manual directory x does not exist",
        ),
    ],
)
def test_failed_downloads_say_what_to_do(tmp_path, monkeypatch, fault, raised, message):
    def fail(*args, **kwargs):
        raise fault

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(raised, match=f"^{re.escape(message)}$"):
        prepare_tfds("mnist", tmp_path)


def test_an_unknown_name_gets_the_closest(tmp_path):
    message = "tfds:mnits/x: TFDS has no dataset 'mnits'. Did you mean 'mnist"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        prepare_tfds("mnits/x", tmp_path)


def test_a_beam_dataset_is_prepared_by_the_runner_that_is_asked_for(tmp_path, monkeypatch):
    pytest.importorskip("apache_beam")
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    run, runs = FnApiRunner.run_pipeline, []
    monkeypatch.setattr(FnApiRunner, "run_pipeline", lambda *args: runs.append(args) or run(*args))
    base = tfds.testing.DummyBeamDataset
    type("TinyBeam", (base,), {"__module__": base.__module__})  # a name that TFDS knows
    summary = prepare_tfds("tiny_beam", tmp_path, num_shards=1, beam_options=["runner=FnApiRunner"])
    assert summary.split_sizes == {"train": 3}
    assert len(runs) == 1
    data = tfds.builder_from_directory(summary.directory).as_dataset(split="train")
    assert sorted(example["id"] for example in tfds.as_numpy(data)) == [0, 1, 2]
