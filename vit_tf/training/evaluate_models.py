"""Accuracy of models on data sets: what `tools/evaluate.py` does."""

import csv
import io
import json
import os
import time
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from vit_tf.analysis.text_table import text_table
from vit_tf.data import Input, TFDSSource
from vit_tf.evaluation.accuracy import measure_accuracy
from vit_tf.evaluation.featurizers import SavedModelFeaturizer
from vit_tf.evaluation.named_data import NamedData
from vit_tf.training import configuration
from vit_tf.training.inputs import named_data_errors
from vit_tf.training.named_models import NamedModel

# What a table shows of a result.
_SHOWN = ("model", "data", "labels", "accuracy", "top5_accuracy", "mean_class_accuracy", "examples")

_DETAILS = ("classes", "confusion")  # of a result, for JSON alone


def evaluate_models(
    models: Sequence[NamedModel],
    data: Sequence[NamedData],
    batch_size: int = 64,
    own_preprocessing: bool = True,
) -> list[dict[str, Any]]:
    """Measures each model on each data set, and says so as it goes.

    Args:
      models: see `load_models`.
      data: data sets, each with the one split to evaluate. If there is none, the evaluation data
        of the parsed gin configuration is taken.
      batch_size: images at a time.
      own_preprocessing: whether a SavedModel is given the encoded images, so that it does what it
        does when it serves, and not the preprocessing of its `NamedModel`.

    Returns:
      Of each pair a dict: `"model"`, `"data"`, `"split"`, `"labels"` (`"one"`, or `"several"`:
      accuracy is then ReaL accuracy), what `Accuracy.figures` and `details` give, and
      `"preprocess"`.

    Raises:
      ValueError: if there is no data, or it does not fit a model, naming both.
      FileNotFoundError: if data is not there.
    """
    if not data and configuration.bound_value("run.eval_input") is None:
        if configuration.bound_value("run.evaluators"):
            return []
        raise ValueError(
            "name data: --dataset=cifar10=data/cifar10:test, or a --gin_file with run.eval_input"
        )
    rows = []
    for model in models:
        measured = _Measured(model, own_preprocessing)
        for one in data or [None]:
            rows.append(measured.on(one, batch_size))
            print(_line(rows[-1]), flush=True)
    return rows


def evaluate_probes(models: Sequence[NamedModel]) -> list[dict[str, Any]]:
    """Runs the evaluators of the parsed gin configuration (`run.evaluators`) on each model.

    Args:
      models: see `load_models`.

    Returns:
      Of each model and evaluator a dict: `"model"`, `"data"`, `"probe"` and the probe's summary.

    Raises:
      ValueError: if an evaluator's features or images do not fit a model.
    """
    evaluators = [make() for make in configuration.bound_value("run.evaluators") or ()]
    rows = []
    for model in models:
        for evaluator in evaluators:
            summary = evaluator(model.model).summary
            about = {"model": model.name, "data": evaluator.name, "probe": evaluator.probe.name}
            rows.append(about | summary)
            numbers = "  ".join(f"{name} {value:.4g}" for name, value in summary.items())
            print(
                f"{model.name} on {evaluator.name}, {evaluator.probe.name}: {numbers}", flush=True
            )
    return rows


class _Measured:
    """A model as a function of what its batches hold, traced once for all data sets."""

    def __init__(self, model: NamedModel, own_preprocessing: bool):
        self._model = model
        self._served: SavedModelFeaturizer | None = None
        if model.saved_model and own_preprocessing:
            self._served = SavedModelFeaturizer(model.saved_model)
        self._logits = tf.function(model.predict, autograph=False)

    def logits(self, images: tf.Tensor) -> tf.Tensor:
        if self._served:
            return self._served.run(images, ["logits"])["logits"]
        return self._logits(images)

    def on(self, data: NamedData | None, batch_size: int) -> dict[str, Any]:
        """The row of a data set; None is that of the gin configuration."""
        model, held_out = self._model, _input(self._model, data, batch_size)
        name = data.name if data else held_out.source.name
        began = time.monotonic()
        try:
            with named_data_errors(held_out, tf.distribute.get_strategy()):
                batches = self._served.batches(held_out, None, 0) if self._served else held_out()
                classes = (held_out.num_classes, held_out.class_names)
                found = measure_accuracy(self.logits, batches, *classes)
        except ValueError as error:
            raise ValueError(f"{model.name} on {name}: {error}") from error
        figures = found.figures()
        speed = found.examples / (time.monotonic() - began)
        return {
            "model": model.name,
            "data": name,
            "split": data.splits[0] if data else None,
            "labels": "several" if found.multi_label else "one",
            **figures,
            "skipped_examples": len(held_out.skipped),
            "images_per_second": round(speed, 1),
            "preprocess": model.preprocess,
            **found.details(),
        }


def _input(model: NamedModel, data: NamedData | None, batch_size: int) -> Input:
    """A split as a model sees it."""
    if data is None:
        return configuration.bound_value("run.eval_input")(preprocess=model.preprocess)
    source = TFDSSource(data.data_dir, data.splits[0])
    return Input(source, model.preprocess, batch_size, training=False)


def _line(row: dict[str, Any]) -> str:
    numbers = [f"{k} {row[k]:.4f}" for k in ("accuracy", "top5_accuracy") if k in row]
    left_out = row.get("left_out_examples")
    without = f" ({left_out:,} without a label left out)" if left_out else ""
    return (
        f"{row['model']} on {row['data']}: {'  '.join(numbers)}  on {row['examples']:,} examples"
        f"{without}, {row['images_per_second']:,.0f} images/s"
    )


def results_table(rows: Sequence[dict[str, Any]]) -> str:
    """The results as a table for the terminal, and the five commonest mistakes of each."""
    if not rows:
        return ""
    titles = [name for name in _SHOWN if any(name in row for row in rows)]
    table = [
        [f"{v:.4f}" if isinstance(v, float) else v for v in (row.get(name) for name in titles)]
        for row in rows
    ]
    names = {"labels": "labels", "accuracy": "top-1", "top5_accuracy": "top-5"}
    names["mean_class_accuracy"] = "mean of classes"
    text = [text_table([[names.get(title, title) for title in titles], *table])]
    if any(row["labels"] == "several" for row in rows):
        text.append("of several labels, top-1 is ReaL accuracy: the prediction is one of them")
    for row in rows:
        classes = [one["name"] for one in row["classes"]]
        wrong = [(a, b, count) for a, b, count in row["confusion"] if a != b][:5]
        if wrong:
            said = ", ".join(
                f"{classes[a]} as {classes[b] if b < len(classes) else b} {count}"
                for a, b, count in wrong
            )
            text.append(f"mistakes of {row['model']} on {row['data']}: {said}")
    return "\n".join(text)


def write_results(
    rows: Sequence[dict[str, Any]], out_dir: str, probes: Sequence[dict[str, Any]] = ()
) -> list[str]:
    """Writes `evaluation.csv` (the figures), `evaluation.json` (all), and likewise `probes.*`.

    Args:
      rows: see `evaluate_models`.
      out_dir: folder to write to; made if it is not there.
      probes: see `evaluate_probes`.

    Returns:
      The paths of what there was to write.
    """
    tf.io.gfile.makedirs(out_dir)
    paths = []
    for name, some in (("evaluation", rows), ("probes", probes)):
        for suffix, text in (("csv", _csv(some)), ("json", json.dumps(some, indent=1))):
            if some:
                paths.append(os.path.join(out_dir, f"{name}.{suffix}"))
                with tf.io.gfile.GFile(paths[-1], "w") as file:
                    file.write(text)
    return paths


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row if name not in _DETAILS))
    table = io.StringIO()
    writer = csv.DictWriter(table, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()
