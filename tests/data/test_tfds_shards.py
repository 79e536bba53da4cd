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
    message = "tfds:mnits/x: TFDS has no dataset 'mnits'; did you mean mnist"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        prepare_tfds("mnits/x", tmp_path)
