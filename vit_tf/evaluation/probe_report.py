"""Measurements of probes, models and data sets together, as a table, CSV and JSON."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Sequence

from vit_tf.analysis.text_table import text_table
from vit_tf.evaluation.probes import ProbeResult

# What a probe has chosen, beside shares in [0, 1].
_SETTINGS = ("c", "l2", "learning_rate")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a probe found for a model on a data set.

    Args:
      model: name of the model.
      data: name of the data set.
      probe: name of the kind of probe.
      result: of the probe.
      num_classes: of the data set.
      train_examples: that the probe could learn from.
      test_examples: that it was measured on.
    """

    model: str
    data: str
    probe: str
    result: ProbeResult
    num_classes: int
    train_examples: int
    test_examples: int


def results_table(measurements: Sequence[Measurement]) -> str:
    """A table for each kind of probe, shares in percent.

    A figure with a confidence interval is followed by the interval's longer half.
    """
    tables = []
    for probe in dict.fromkeys(m.probe for m in measurements):
        of_probe = [m for m in measurements if m.probe == probe]
        summaries = [m.result.summary for m in of_probe]
        names = _names(name for summary in summaries for name in summary)
        names = [name for name in names if not name.endswith(("_low", "_high"))]
        lines = [[probe, "model", *names]]
        for m in of_probe:
            lines.append([m.data, m.model, *(_cell(m.result.summary, name) for name in names)])
        tables.append(text_table(lines))
    return "\n\n".join(tables)


def csv_text(measurements: Sequence[Measurement]) -> str:
    """Every single measurement, a line each; columns that a probe does not have are empty."""
    rows = [
        {"model": m.model, "data": m.data, "probe": m.probe} | row
        for m in measurements
        for row in m.result.rows
    ]
    table = io.StringIO()
    writer = csv.DictWriter(table, _names(n for row in rows for n in row), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def json_text(measurements: Sequence[Measurement]) -> str:
    """All there is to know of each measurement, as a list under `"results"`."""
    results = []
    for m in measurements:
        about = {field.name: getattr(m, field.name) for field in dataclasses.fields(m)}
        results.append(about | {"result": dataclasses.asdict(m.result)})
    return json.dumps({"results": results}, indent=1) + "\n"


def _names(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _cell(summary: dict[str, float], name: str) -> str | None:
    if name not in summary:
        return None
    if name in _SETTINGS:
        return f"{summary[name]:g}"
    if f"{name}_low" not in summary:
        return f"{100 * summary[name]:.1f}"
    # The wider side: the other may end at 0 or 1.
    half = max(summary[f"{name}_high"] - summary[name], summary[name] - summary[f"{name}_low"])
    return f"{100 * summary[name]:.1f} ± {100 * half:.1f}"
