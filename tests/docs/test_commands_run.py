"""The commands of the README and of the tools' own help run, in a folder as a reader has it.

Trainings are planned by `test_pages.py`. Only sizes differ from what a reader has: models of public
names are shrunken, as is what would be downloaded; data sets hold a few images.
"""

import dataclasses
import importlib
import shutil
from pathlib import Path

import gin
import numpy as np
import pytest
import tensorflow as tf
import tools_in_process
from test_pages import CALLS, ROOT
from tiny_records import foreign_example, write_records

import vit_tf
from vit_tf.checkpoints.public.addresses import cache_path
from vit_tf.checkpoints.public.catalogue import find
from vit_tf.data.image_files import list_image_folder
from vit_tf.data.shards import write_dataset
from vit_tf.models import registry

pytestmark = pytest.mark.slow

# Commands that hold one of these are given by another test, or by nobody here.
ELSEWHERE = {
    "--beam_pipeline_options": "tests/data/test_beam_shards.py",
    "--server=": "tests/export/test_predict_server.py",
    "benchmarks/": "takes hours",
    "--help": "tests/tools/test_make_tfrecords.py",
    "convert_export.py": "tests/export/runtimes/test_convert_export_tool.py",
    "data_service.py": "tests/data/test_service.py",
    "demo.py": "tests/export/test_demo_browser.py",
    "gin/fewshot/big_vision.gin": "tests/recipes/test_fewshot_files.py",
    "imagenet_real.gin": "tests/training/test_multi_label_task.py",
    "model_table.py": "tests/analysis/test_model_table.py",
    "run.pth:": "tests/checkpoints",
    "scaling_law.py": "tests/tools/test_scaling_law_tool.py",
    "sweep.py": "tests/tools/test_sweep_tool.py",
    "tools/train.py": "planned by test_pages.py",
    "tpu_compile.py": "tests/tools/test_tpu_compile.py",
    "vtab.py": "tests/training/test_vtab_runs.py",
}
FIRST = ("make_tfrecords.py", "export.py")  # whose shards and SavedModels others read
GIVEN = {
    text: call
    for text, (file, call) in sorted(
        CALLS.items(), key=lambda item: [tool not in item[0] for tool in FIRST]
    )
    if (file.name == "README.md" or file.parent.name == "tools")
    and not any(part in text for part in ELSEWHERE)
}
SMALL = {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 16}


def write_jpeg(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    path.write_bytes(tf.io.encode_jpeg(pixels).numpy())


def class_folders(folder, splits, classes, size, count=2):
    for split in splits:
        for label in range(classes):
            for number in range(count):
                write_jpeg(folder / split / f"class{label}" / f"{number}.jpg", size)


def write_shards(name, splits, classes, size, count=2):
    class_folders(Path("images", name), splits, classes, size, count)
    collection = list_image_folder(Path("images", name))
    write_dataset(collection, Path("data"), name, num_shards=1, progress=False)


def run_tool(name, *arguments):
    gin.clear_config()
    assert tools_in_process.run(ROOT / "tools" / f"{name}.py", arguments) == 0


def write_weights():
    """The files that commands name, and those that would be downloaded, of shrunken models."""
    tags = ("augreg_in21k", 21843), ("augreg_in21k_ft_in1k", 1000)
    for model in ("vit_b16", "vit_s16"):
        for tag, classes in tags:
            kept = cache_path(find(model, tag).url)
            kept.parent.mkdir(parents=True, exist_ok=True)
            vit_tf.save_checkpoint(vit_tf.create_model(model, num_classes=classes), str(kept))
    vit_b16 = vit_tf.create_model("vit_b16", num_classes=1000)
    for file in ("B_16.npz", "vit_b16.npz"):
        vit_tf.save_checkpoint(vit_b16, file)
    vit_tf.save_checkpoint(vit_tf.create_model("deit_b16", num_classes=1000), "deit_base.pth")
    sizes = {"image_size": 32, "patch_size": 8, **SMALL}
    vit_tf.create_model("vit", num_classes=10, **sizes).save("model.keras")


def write_data():
    """Photographs in class folders and in a flat one, and shards."""
    class_folders(Path("class_folders"), ("train", "test"), 5, (80, 96))
    rows = [f"{number}.jpg,{'ab'[number % 2]}" for number in range(4)]
    for number in range(4):
        write_jpeg(Path("flat", f"{number}.jpg"), (80, 96))
    Path("flat", "labels.csv").write_text("\n".join(["path,label", *rows]))
    for name in ("folder", "more_photos", "photos_by_class"):
        Path(name).symlink_to("class_folders/test")
    Path("photo.jpg").symlink_to("flat/0.jpg")
    for name in ("more", "x"):
        Path(name, "deep").mkdir(parents=True)
        tf.io.write_file(f"{name}/deep/0.png", tf.io.encode_png(np.zeros((40, 50, 3), np.uint8)))
    write_shards("cifar10", ("train", "test"), 10, (32, 32))
    for name in ("flowers5", "omniglot_small1", "clothing10"):
        write_shards(name, ("train", "test"), 5, (40, 48), 6)
    write_shards("imagenet2012", ("validation",), 1000, (16, 16), 1)
    run_tool("make_tfrecords", "--source=digits", "--out_dir=data")
    Path("runs/quickstart").mkdir(parents=True)
    Path("runs/quickstart/data").symlink_to(Path("data").absolute())
    Path("data/imagenet").mkdir()
    record = foreign_example(Path("photo.jpg").read_bytes(), 7)
    write_records("data/imagenet/train-00000-of-00001", [record])


def write_runs():
    """Runs of two steps, exported."""
    for gin_file, run, data in (
        ("recipes/cifar10", "runs/cifar10", "data/cifar10"),
        ("quickstart", "runs/quickstart", "runs/quickstart/data/digits"),
    ):
        about = [f"--gin_file=gin/{gin_file}.gin", f"--model_dir={run}"]
        about.append(f"--gin_param=DATA_DIR = '{data}'")
        steps = ("RunConfig.epochs = None", "RunConfig.steps = 2", "cosine.warmup = 0")
        steps += ("train/Input.batch_size = 4", "RunConfig.jit_compile = False")
        shorter = [f"--gin_param={binding}" for binding in steps]
        run_tool("train", *about, *shorter, "--mode=train_and_eval")
        run_tool("export", *about, "--checkpoint=best")
    Path("runs/flowers").symlink_to("cifar10")


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A folder with all that the commands name."""
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("VIT_TF_CACHE", str(folder / "cache"))
        download = importlib.import_module("vit_tf.checkpoints.public.download")
        patch.setattr(download, "check_file", lambda *_: None)
        entries = dict(registry._ENTRIES)
        for name in ("vit_b16", "vit_s16", "deit_b16"):
            smaller = {**entries[name].config, **SMALL}
            entries[name] = dataclasses.replace(entries[name], config=smaller)
        patch.setattr(registry, "_ENTRIES", entries)
        (folder / "tools").symlink_to(ROOT / "tools")
        shutil.copytree(ROOT / "gin", folder / "gin")
        for file in (folder / "gin" / "data").glob("*.gin"):
            kept = (line for line in file.open() if "expected_examples" not in line)
            file.write_text("".join(kept))
        for name in ("imagenet.txt", "labels.txt"):
            (folder / name).write_text("\n".join(f"class {n}" for n in range(1000)))
        write_data()
        write_weights()
        write_runs()
        yield folder
    gin.clear_config()


@pytest.mark.parametrize("text", GIVEN, ids=GIVEN)
def test_a_command_runs(text, reader, capsys):
    photos = reader / "photos"
    photos.unlink(missing_ok=True)
    photos.symlink_to("flat" if "labels.csv" in text or "*.jpg" in text else "class_folders")
    name, *arguments = (word.replace("=/data/", "=data/") for word in GIVEN[text])
    gin.clear_config()
    status = tools_in_process.run(ROOT / name, arguments)
    assert status == 0, capsys.readouterr().err
