"""Folders of runs become points: FLOPs of all steps, error after the last, nothing left unsaid."""

import json
import re

import pytest

from vit_tf.analysis.flops import count_flops
from vit_tf.checkpoints import create_model
from vit_tf.models import LoRA
from vit_tf.training.model_dir import ModelDir
from vit_tf.training.run_log import RunLog
from vit_tf.training.scaling_runs import scaling_runs

VIT = {
    "name": "vit",
    "image_size": 32,
    "patch_size": 8,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 64,
    "num_classes": 5,
}
TRANSFORMER = {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 32}
MIXER = {"width": 16, "depth": 1, "tokens_mlp_dim": 8, "channels_mlp_dim": 16}
CONFIG = "run.train_input = @train/Input\ntrain/Input.batch_size = {batch}\nrun.task = @Task\n"


@pytest.fixture
def write_run(tmp_path):
    """Writes what a run of a model leaves; returns its folder."""

    def write(name, model, steps=10, accuracy=0.75, batch="8", at=None, config=CONFIG):
        folder = ModelDir(str(tmp_path / "runs" / name))
        folder.claim(model, steps)
        folder.write_text("config.gin", config.format(batch=batch))
        log = RunLog(folder)
        log.write("train", steps, {"accuracy": 1.0, "loss": 0.1})
        log.write("eval", 1, {"accuracy": 0.125, "loss": 2.0})
        log.write("eval", at or steps, {"accuracy": accuracy, "loss": 0.5})
        return folder.path

    return write


@pytest.fixture(scope="module")
def small():
    return create_model(**VIT, width=32)


def test_a_run_is_three_forward_passes_of_each_image_and_its_last_error(write_run, small, tmp_path):
    path = write_run("a", small)
    expected = 3 * count_flops(small) * 10 * 8
    for folder in (tmp_path / "runs", path):  # of runs, or of one
        found = scaling_runs(folder)
        assert [(p.compute, p.error, p.name) for p in found.points] == [(expected, 0.25, path)]
        assert found.left_out == {}


@pytest.mark.parametrize(
    ("family", "own"),
    [
        ("deit_distilled", {"patch_size": 16, **TRANSFORMER}),
        ("flexivit", {"patch_size": 16, **TRANSFORMER}),
        ("hybrid", {"resnet_stages": (1, 1), "resnet_width_factor": 0.5, **TRANSFORMER}),
        ("mixer", {"patch_size": 16, **MIXER}),
        ("bit", {"resnet_stages": (1, 1), "resnet_width_factor": 0.5}),
    ],
)
def test_models_of_every_family_are_built_again_from_their_record(write_run, family, own, tmp_path):
    model = create_model(family, image_size=(32, 64), num_classes=3, **own)
    write_run("a", model, steps=1, batch="1")
    (point,) = scaling_runs(tmp_path / "runs").points
    assert point.compute == 3 * count_flops(model)
    assert point.model == type(model).__name__


def test_low_rank_matrices_are_not_counted(write_run, small, tmp_path):
    write_run("a", create_model(**VIT, width=32, lora=LoRA(rank=2)))
    (point,) = scaling_runs(tmp_path / "runs").points
    assert point.compute == 3 * count_flops(small) * 10 * 8


def test_models_of_one_name_are_told_apart_by_what_differs(write_run, small, tmp_path):
    write_run("a", small)
    write_run("b", create_model(**VIT, width=48))
    write_run("c", create_model(**VIT, width=32), steps=20)
    write_run("d", create_model("vit_ti16", image_size=32, num_classes=5, depth=1))
    names = [point.model for point in scaling_runs(tmp_path / "runs").points]
    assert names == ["ViT width 32", "ViT width 48", "ViT width 32", "vit_ti16"]


def test_the_size_of_a_batch_may_stand_in_a_macro(write_run, small, tmp_path):
    write_run("a", small, batch="%BATCH", config=CONFIG + "BATCH = %HALF\nHALF = 4\n")
    (point,) = scaling_runs(tmp_path / "runs").points
    assert point.compute == 3 * count_flops(small) * 10 * 4


def test_another_metric_of_the_evaluation(write_run, small, tmp_path):
    write_run("a", small)
    path = write_run("b", small)
    RunLog(ModelDir(path)).write("probe", 10, {"10_shot": 0.5})
    found = scaling_runs(tmp_path / "runs", "10_shot")
    assert [(point.error, point.name) for point in found.points] == [(0.5, path)]
    assert list(found.left_out.values()) == ["no evaluation has the metric '10_shot'"]


def test_what_is_no_point_is_left_out_and_told_why(write_run, small, tmp_path):
    whole = write_run("whole", small)
    paths = {
        "evaluated at step 5, and is to train 10": write_run("early", small, at=5),
        "it has no config.gin": write_run("unknown", small),
        "does not tell the size of its batches, train/Input.batch_size": write_run(
            "own", small, config="run.train_input = @train/Input\n"
        ),
        "its config.gin cannot be read": write_run("broken", small, config="a = = 3\n"),
        "error is a share .* given 0: ": write_run("perfect", small, accuracy=1.0),
        "its model.json is damaged": write_run("damaged", small),
        "no family of models is registered whose class is Other": write_run("other", small),
        "Unrecognized keyword arguments passed to ViT: .*colour": write_run("newer", small),
        "its training has not begun": str(tmp_path / "runs" / "waiting"),
    }
    runs = tmp_path / "runs"
    (runs / "unknown" / "config.gin").unlink()
    (runs / "damaged" / "model.json").write_text('{"class": ')
    record = json.loads((runs / "other" / "model.json").read_text())
    (runs / "other" / "model.json").write_text(json.dumps({**record, "class": "Other"}))
    record["config"]["colour"] = "blue"
    (runs / "newer" / "model.json").write_text(json.dumps(record))
    (runs / "waiting").mkdir()
    (runs / "waiting" / "sweep_run.json").write_text("{}")
    (runs / "pictures").mkdir()  # no run

    found = scaling_runs(runs)
    assert [point.name for point in found.points] == [whole]
    assert found.left_out.keys() == set(paths.values())
    for reason, path in paths.items():
        assert re.search(reason, found.left_out[path])


def test_a_folder_without_runs_is_refused(tmp_path):
    (tmp_path / "runs").mkdir()
    for folder in (tmp_path / "runs", tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match="there is no run in .* model.json"):
            scaling_runs(folder)
