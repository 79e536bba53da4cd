"""What `import vit_tf` alone gives."""

import subprocess
import sys

import vit_tf


def test_every_public_name_is_there():
    for name in vit_tf.__all__:
        assert callable(getattr(vit_tf, name)), name


def test_a_saved_model_is_loaded_by_a_process_that_only_imports_vit_tf(tmp_path):
    path = tmp_path / "model.keras"
    vit_tf.create_model("vit_ti16", depth=1, num_classes=2).save(path)
    code = f"import keras, vit_tf; print(keras.saving.load_model({str(path)!r}).variant)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert loaded.stdout.strip() == "vit_ti16", loaded.stderr


def test_importing_does_not_start_tensorflow():
    # Devices, TPUs and workers can be set up only before.
    code = (
        "import vit_tf.training.run, tensorflow as tf;"
        "cpu = tf.config.list_physical_devices('CPU');"
        "two = [tf.config.LogicalDeviceConfiguration()] * 2;"
        "tf.config.set_logical_device_configuration(cpu[0], two);"
        "print(len(tf.config.list_logical_devices('CPU')))"
    )
    started = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert started.stdout.strip() == "2", started.stderr
