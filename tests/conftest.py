"""Fixtures shared by the whole suite."""

import contextlib
import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from pathlib import Path

import pytest
import tensorflow as tf

# Two devices, so that distribution is tested in the same process as everything else.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


def pytest_collection_finish() -> None:
    """What was imported stays: nobody needs to look through it for garbage again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference checkpoints (`golden/`) and real images (`data/`)."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("VIT_TF_SHARED", root.parent / "shared"))
    if not (folder / "golden").is_dir():
        message = f"{folder} holds no golden/; set VIT_TF_SHARED to the folder that does"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of the handwritten digits: 1,437 training and 360 test images of 8x8 pixels."""
    from vit_tf.data.digits import digits_collection
    from vit_tf.data.shards import write_dataset

    out = tmp_path_factory.mktemp("shards")
    written = write_dataset(digits_collection(), out, "digits", num_shards=2, progress=False)
    return str(written.directory)


@pytest.fixture(scope="session", autouse=True)
def exports_checked_here():
    """Exports are checked in this process: one of its own each would cost the suite minutes.

    Tests of that process ask for `in_fresh_process`.
    """
    from vit_tf.export import check, fresh_process

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "served_outputs", fresh_process.run_signatures)
        yield


@pytest.fixture(scope="session")
def in_fresh_process():
    """Makes scopes in which exports are checked as users' are, in a process without `vit_tf`."""
    from vit_tf.export import check, served_outputs

    @contextlib.contextmanager
    def scope():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(check, "served_outputs", served_outputs.served_outputs)
            yield

    return scope
