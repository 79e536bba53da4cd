"""What is measured between the loops of a run: when it is due, and what it leaves in the log."""

import contextlib
import dataclasses
import functools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import keras
import tensorflow as tf

from vit_tf.evaluation.probes import ProbeResult
from vit_tf.training.progress import duration
from vit_tf.training.run_length import Duration
from vit_tf.training.run_log import RunLog

Weights = Callable[[], contextlib.AbstractContextManager]

# Ends of names that are left out of the printed line.
_BOUNDS = ("_low", "_high")


class Evaluator(Protocol):
    """What `Estimator.evaluators` holds, such as a `vit_tf.evaluation.ProbeEvaluator`."""

    name: str
    every: Duration | None

    def check(self, model: keras.Model) -> None:
        """Raises ValueError if it cannot evaluate a model."""

    def __call__(
        self, model: keras.Model, strategy: tf.distribute.Strategy, weights: Weights
    ) -> ProbeResult:
        """Evaluates a model, which has its weights within the scope that `weights` makes."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One thing that a run measures.

    Attributes:
      kind: of its rows in the log, `"eval"` or `"probe"`.
      evaluator: which of several wrote a row of that kind; None for the only one.
      every: steps between two.
      run: measures and logs; is told the step.
    """

    kind: str
    evaluator: str | None
    every: int
    run: Callable[[int], None]

    def is_due(self, step: int, total_steps: int) -> bool:
        """Whether to evaluate after a step: at multiples of `every`, and at the end."""
        return step > 0 and (step % self.every == 0 or step == total_steps)

    def is_logged(self, rows: Sequence[Mapping[str, Any]], step: int) -> bool:
        """Whether the log has its row of a step."""
        return any(
            row["step"] == step
            and row["kind"] == self.kind
            and row.get("evaluator") == self.evaluator
            for row in rows
        )


def next_stop(evaluations: Sequence[Evaluation], step: int, total_steps: int) -> int:
    """The first step after one at which something is due."""
    stops = [(step // each.every + 1) * each.every for each in evaluations]
    return min([total_steps, *stops])


def check_evaluators(evaluators: Sequence[Evaluator], model: keras.Model) -> None:
    """Raises ValueError if two have one name, or one of them cannot evaluate the model."""
    counts = Counter(evaluator.name for evaluator in evaluators)
    for evaluator in evaluators:
        if counts[evaluator.name] > 1:
            raise ValueError(
                f"{counts[evaluator.name]} evaluators have the name {evaluator.name!r}; their "
                "curves would be one"
            )
        try:
            evaluator.check(model)
        except ValueError as error:
            raise ValueError(f"evaluator {evaluator.name!r}: {error}") from error


def as_evaluations(
    evaluators: Sequence[Evaluator],
    steps_between: Callable[[Duration | None, str], int],
    **arguments: Any,
) -> list[Evaluation]:
    """Evaluators as parts of a run.

    Args:
      evaluators: what is run.
      steps_between: an evaluator's `every`, and its name for errors, in steps.
      **arguments: of `run_evaluator`.
    """
    return [
        Evaluation(
            "probe",
            evaluator.name,
            steps_between(evaluator.every, f"ProbeEvaluator.every of {evaluator.name!r}"),
            functools.partial(run_evaluator, evaluator, **arguments),
        )
        for evaluator in evaluators
    ]


def run_evaluator(
    evaluator: Evaluator,
    step: int,
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    log: RunLog,
    weights: Weights | None = None,
) -> None:
    """Evaluates, prints a line and logs a row.

    Args:
      evaluator: what is run.
      step: that the model is of.
      model: what is evaluated.
      strategy: where it runs.
      log: where the row goes.
      weights: of averages, instead of the model's own.
    """
    start = time.monotonic()
    result = evaluator(model, strategy, weights or contextlib.nullcontext)
    probe = evaluator.probe.name
    log.write(
        "probe",
        step,
        result.summary,
        about={"evaluator": evaluator.name, "probe": probe},
        curves=f"{probe}/{evaluator.name}/",
    )
    if log.is_chief:
        averaged = " (averaged weights)" if weights else ""
        numbers = "  ".join(
            f"{name} {value:.4f}"
            for name, value in result.summary.items()
            if not name.endswith(_BOUNDS)
        )
        seconds = duration(time.monotonic() - start)
        print(f"{evaluator.name} at step {step}{averaged}: {numbers}  in {seconds}", flush=True)


def say_evaluation(
    step: int, values: Mapping[str, float], seconds: float, averaged: bool, best: bool
) -> None:
    """Prints the line of an evaluation of the task.

    Args:
      step: that the model is of.
      values: what `EvalLoop` returned.
      seconds: that it took.
      averaged: whether averages of the weights were evaluated.
      best: whether no evaluation before was better.
    """
    numbers = "  ".join(
        f"{name} {value:.4f}" for name, value in values.items() if "examples" not in name
    )
    left_out = values.get("left_out_examples")
    without = f" ({left_out:,} without a label left out)" if left_out else ""
    print(
        f"evaluation at step {step}{' (averaged weights)' if averaged else ''}: {numbers}  on "
        f"{values['examples']:,} examples{without} in {duration(seconds)}"
        f"{'  (best so far)' if best else ''}",
        flush=True,
    )
