"""gin/fewshot: big_vision's data sets, splits and preprocessing, alone and beside a recipe."""

from pathlib import Path

import gin
import pytest

from vit_tf import planning
from vit_tf.evaluation.probes import FewShotProbe, KNNProbe
from vit_tf.training import configuration
from vit_tf.training.run import run  # noqa: F401, gin knows it then

ROOT = Path(__file__).resolve().parents[2]
# big_vision, configs/common_fewshot.py, with the sizes that TFDS documents.
BIG_VISION = {
    "caltech101": ("train", 3059, "test", 6084, 102),
    "cars196": ("train", 8144, "test", 8041, 196),
    "cifar100": ("train", 50000, "test", 10000, 100),
    "dtd": ("train", 1880, "test", 1880, 47),
    "oxford_iiit_pet": ("train", 3680, "test", 3669, 37),
    "uc_merced": ("train[:1000]", 1000, "train[1000:]", 1100, 21),
    "imagenet2012": ("train[:65000]", 65000, "validation", 50000, 1000),
}


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


def evaluators(*files: str, bindings=()):
    """What the files name, made without their data."""
    configuration.parse([f"gin/{file}.gin" for file in files], bindings)
    with planning.planning() as noted:
        made = [make() for make in configuration.bound_value("run.evaluators")]
    return made, [file.name for file in noted]


def facts(evaluator):
    train, test = evaluator.inputs
    assert isinstance(evaluator.probe, FewShotProbe)
    ops = "decode|resize(256)|central_crop(224)|value_range(-1, 1)"
    assert {str(data.preprocess).replace('"', "'") for data in evaluator.inputs} == {ops}
    assert not train.training and not test.training
    assert train.num_classes == test.num_classes
    return train.source.num_examples, test.source.num_examples, train.num_classes


@pytest.mark.parametrize("name", BIG_VISION)
def test_a_data_set_alone(name):
    (evaluator,), noted = evaluators(f"fewshot/{name}", bindings=["FEW_SHOT_DIR = '/d'"])
    train, train_examples, test, test_examples, classes = BIG_VISION[name]
    assert evaluator.name == name and noted == [f"/d/{name}"]
    assert facts(evaluator) == (train_examples, test_examples, classes)
    splits = [
        configuration.bound_value(f"fewshot/{name}/{split}/TFDSSource.split")
        for split in ("train", "test")
    ]
    assert splits == [train, test]


@pytest.mark.parametrize("recipe", ["recipes/augreg_i21k_b32", "finetune/vit_cifar100"])
def test_all_of_them_beside_a_recipe(recipe):
    made, _ = evaluators(recipe, "fewshot/big_vision")
    expected = {name: row for name, row in BIG_VISION.items() if name != "imagenet2012"}
    assert [evaluator.name for evaluator in made] == list(expected)
    for evaluator, (_, train_examples, _, test_examples, classes) in zip(
        made, expected.values(), strict=True
    ):
        assert facts(evaluator) == (train_examples, test_examples, classes)
    # Nothing of the evaluators reaches the recipe's own inputs.
    assert configuration.bound_value("train/Input.preprocess") is not None
    assert configuration.bound_value("Input.preprocess") is None


def test_the_small_local_one_has_two_probes():
    configuration.parse(["gin/fewshot/flowers5.gin"])
    names = configuration.bound_value("run.evaluators")
    assert len(names) == 2
    kinds = [
        configuration.bound_value(f"{scope}/ProbeEvaluator.probe")
        for scope in ("fewshot", "knn/flowers5")
    ]
    assert [type(kind) for kind in kinds] == [FewShotProbe, KNNProbe]


def test_every_file_names_its_source_and_how_to_get_the_data():
    for file in (ROOT / "gin/fewshot").glob("*.gin"):
        text = file.read_text()
        assert text.startswith("# ")
        if file.stem in {*BIG_VISION, "flowers5"}:
            assert "# Shards: python tools/make_tfrecords.py --source=" in text, file
