"""Tables, CSV and JSON hold what the probes measured, and say what the splits lack."""

import csv
import io
import json

import numpy as np
import pytest

from vit_tf.evaluation.class_coverage import coverage_notes
from vit_tf.evaluation.feature_set import FeatureSet
from vit_tf.evaluation.probe_report import Measurement, csv_text, json_text, results_table
from vit_tf.evaluation.probes import FewShotProbe, ProbeResult

SHOTS = ProbeResult(
    {"1_shot": 0.4, "1_shot_low": 0.0, "1_shot_high": 0.85, "5_shot": 0.625},
    [
        {"probe": "few_shot", "shots": 1, "seed": 0, "accuracy": 0.4},
        {"probe": "few_shot", "shots": 5, "seed": 0, "accuracy": 0.625},
    ],
    "5_shot",
)
LINEAR = ProbeResult(
    {"accuracy": 0.5, "learning_rate": 0.0001},
    [{"probe": "linear", "learning_rate": 0.0001, "accuracy": 0.5}],
    "accuracy",
)
MEASUREMENTS = [
    Measurement("vit", "flowers", "few_shot", SHOTS, 5, 100, 50),
    Measurement("vit", "flowers", "linear", LINEAR, 5, 100, 50),
    Measurement("pixels, 32", "flowers", "few_shot", SHOTS, 5, 100, 50),
]


def test_a_table_a_kind_of_probe_in_percent():
    assert results_table(MEASUREMENTS) == "\n".join(
        [
            "few_shot  model            1_shot  5_shot",
            "flowers   vit         40.0 ± 45.0    62.5",
            "flowers   pixels, 32  40.0 ± 45.0    62.5",
            "",
            "linear   model  accuracy  learning_rate",
            "flowers  vit        50.0         0.0001",
        ]
    )


def test_csv_has_every_measurement_with_its_model_and_data():
    rows = list(csv.DictReader(io.StringIO(csv_text(MEASUREMENTS))))
    assert [(row["model"], row["probe"], row["shots"], row["accuracy"]) for row in rows] == [
        ("vit", "few_shot", "1", "0.4"),
        ("vit", "few_shot", "5", "0.625"),
        ("vit", "linear", "", "0.5"),
        ("pixels, 32", "few_shot", "1", "0.4"),
        ("pixels, 32", "few_shot", "5", "0.625"),
    ]


def test_json_has_summaries_and_sizes_too():
    first, *_ = json.loads(json_text(MEASUREMENTS))["results"]
    assert first["result"]["summary"] == SHOTS.summary and first["result"]["rows"] == SHOTS.rows
    sizes = {name: first[name] for name in ("num_classes", "train_examples", "test_examples")}
    assert sizes == {"num_classes": 5, "train_examples": 100, "test_examples": 50}


def split(labels, classes=4):
    labels = np.array(labels)
    features = np.random.default_rng(0).normal(size=(len(labels), 3)).astype(np.float32)
    return FeatureSet({"pre_logits": features}, labels, classes, name="a split")


def test_classes_of_too_few_examples_are_told():
    train, test = split([0, 0, 1, 1, 2, 2, 3]), split([0, 1, 2, 3])
    with pytest.warns(UserWarning, match="fewer than 2"):
        result = FewShotProbe(shots=(1, 2), seeds=(0, 1)).evaluate(train, test)
    (note,) = coverage_notes(train, test, [result])
    assert note.startswith("1 of 4 classes have fewer than 2 training examples")


def test_classes_without_a_training_example_bound_what_can_be_right():
    (note,) = coverage_notes(split([0, 0, 1]), split([0, 1, 2, 3]), [])
    assert note.startswith("2 of the test split's classes have no training example, so that at ")
    assert "most 50.0% can be right" in note
    assert coverage_notes(split([0, 1, 2]), split([0, 1]), []) == []
