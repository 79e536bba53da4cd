"""Evaluators run within training, leave it undisturbed, and none is lost to a stop."""

import os
import signal

import numpy as np
import pytest
import tensorflow as tf
from processes import assert_same_run, rows, run, start, tensors

from vit_tf.data import Input, TFDSSource
from vit_tf.evaluation import ProbeEvaluator, extract
from vit_tf.evaluation.probes import FewShotProbe, Probe, ProbeResult
from vit_tf.training import Ema
from vit_tf.training.model_dir import ModelDir
from vit_tf.training.preemption import Preempted
from vit_tf.training.run_log import RunLog
from vit_tf.training.state import load_weights

OPS = "decode|resize(8)|value_range(-1, 1)"
SHOTS = {"shots": (1, 5), "seeds": (0, 1)}


class Mean(Probe):
    """Costs nothing, and tells all features apart."""

    name, features = "mean", ("pre_logits",)

    def evaluate(self, train, test):
        values = [split.features["pre_logits"].mean(dtype=np.float64) for split in (train, test)]
        return ProbeResult({"train": values[0], "test": values[1]}, [], "test")


@pytest.fixture
def make_evaluator(digits_dir):
    """`make_evaluator(name="digits", **arguments of ProbeEvaluator)`."""

    def split(which, ops):
        return Input(TFDSSource(digits_dir, which), ops, batch_size=60, training=False)

    def make(name="digits", ops=OPS, probe=None, **arguments):
        inputs = (split("train[:200]", ops), split("test[:100]", ops))
        return ProbeEvaluator(probe or Mean(), *inputs, name=name, **arguments)

    return make


def with_evaluators(estimator, *evaluators):
    estimator.evaluators = list(evaluators)
    return estimator


def probe_rows(model_dir):
    return [row for row in rows(model_dir) if row["kind"] == "probe"]


def curves(model_dir, kind="probe"):
    """Steps of every TensorBoard scalar of a kind."""
    found = {}
    for path in tf.io.gfile.glob(f"{model_dir}/tensorboard/{kind}/*"):
        for event in tf.compat.v1.train.summary_iterator(path):
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    return found


SMALL = {"depth": 1, "dropout": 0.3, "stochastic_depth": 0.3}
CONFIG = {
    "steps": 4,
    "eval_interval": 2,
    "steps_per_loop": 1,
    "jit_compile": False,
    "model": SMALL,
}
AT_THE_END = {**CONFIG, "eval_interval": 4}


def test_training_with_evaluators_gives_the_same_bits_as_without(
    make_estimator, make_evaluator, train_input, eval_input, tmp_path, capsys
):
    plain = make_estimator(tmp_path / "plain", **CONFIG)
    plain.train_and_evaluate(train_input, eval_input)
    capsys.readouterr()
    estimator = make_estimator(tmp_path / "probed", **CONFIG)
    traces = []
    start_run = estimator._start
    estimator._start = lambda *args: traces.append(start_run(*args)) or traces[-1]
    first = make_evaluator("first", every=1, probe=FewShotProbe(**SHOTS))
    with_evaluators(estimator, first, make_evaluator("second"))
    estimator.train_and_evaluate(train_input, eval_input)

    one, other = tensors(tmp_path / "plain", 4), tensors(tmp_path / "probed", 4)
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)
    assert traces[0].loop.num_traces == 1
    others = [row for row in rows(tmp_path / "probed") if row["kind"] != "probe"]
    assert others == rows(tmp_path / "plain")

    found = probe_rows(tmp_path / "probed")
    steps = {
        name: [row["step"] for row in found if row["evaluator"] == name]
        for name in ("first", "second")
    }
    assert steps == {"first": [1, 2, 3, 4], "second": [2, 4]}
    assert found[0]["probe"] == "few_shot" and 0 < found[0]["5_shot"] <= 1
    tags = curves(tmp_path / "probed")
    assert tags["few_shot/first/5_shot"] == [1, 2, 3, 4]
    assert tags["mean/second/test"] == [2, 4]
    said = [line for line in capsys.readouterr().out.splitlines() if " at step " in line]
    assert [line.split(":")[0] for line in said] == [
        "first at step 1",
        "evaluation at step 2",
        "first at step 2",
        "second at step 2",
        "first at step 3",
        "evaluation at step 4",
        "first at step 4",
        "second at step 4",
    ]
    # Nothing was left to do, and nothing is done again.
    estimator.train_and_evaluate(train_input, eval_input)
    assert probe_rows(tmp_path / "probed") == found


@pytest.mark.slow
def test_what_is_evaluated_are_the_weights_of_the_step(
    make_estimator, make_evaluator, train_input, tmp_path
):
    estimator = with_evaluators(
        make_estimator(**AT_THE_END), make_evaluator(probe=FewShotProbe(**SHOTS))
    )
    estimator.train(train_input)
    (row,) = probe_rows(tmp_path / "run")
    model = make_estimator(tmp_path / "other", model=SMALL).model
    load_weights(model, str(tmp_path / "run/checkpoints/ckpt-4"))
    features = [extract(model, data, "pre_logits") for data in make_evaluator().inputs]
    expected = FewShotProbe(**SHOTS).evaluate(*features).summary
    assert {name: row[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("evaluate", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_averages_are_evaluated_where_the_run_evaluates_them(
    make_estimator, make_evaluator, train_input, tmp_path, evaluate
):
    ema = Ema(decay=0.5, evaluate=evaluate)
    cache = tmp_path / "cache"
    estimator = with_evaluators(
        make_estimator(ema=ema, **AT_THE_END),
        make_evaluator(),
        make_evaluator("kept", cache_dir=cache),
    )
    estimator.train(train_input)
    row, kept = probe_rows(tmp_path / "run")
    model = make_estimator(tmp_path / "other", model=SMALL).model
    load_weights(model, str(tmp_path / "run/checkpoints/ckpt-4"), averages=evaluate)
    expected = make_evaluator()(model).summary
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert {name: kept[name] for name in expected} == pytest.approx(expected)
    # The cache knows the averages by their own values.
    made = len(list(cache.iterdir()))
    make_evaluator(cache_dir=cache)(model)
    assert len(list(cache.iterdir())) == made == 2


def test_two_replicas_evaluate_each_example_once(make_estimator, make_evaluator, train_input):
    found = []
    for strategy in ("cpu", "mirrored"):
        estimator = make_estimator(f"/nowhere/{strategy}", strategy=strategy, model=SMALL)
        assert estimator.strategy.num_replicas_in_sync == (1 if strategy == "cpu" else 2)
        found.append(make_evaluator()(estimator.model, estimator.strategy).summary)
    assert found[0] == pytest.approx(found[1])


class Stopped(Exception):
    pass


@pytest.mark.slow
def test_an_evaluator_that_was_stopped_runs_on_resume_and_the_others_not_again(
    make_estimator, make_evaluator, train_input, eval_input, tmp_path
):
    class Stopping:
        def __init__(self, evaluator):
            self._evaluator = evaluator
            self.name, self.every, self.probe = evaluator.name, None, evaluator.probe
            self.check = evaluator.check

        def __call__(self, *arguments):
            raise Stopped

    def both(second):
        return with_evaluators(
            make_estimator(tmp_path / "run", **CONFIG), make_evaluator("first"), second
        )

    with pytest.raises(Stopped):
        both(Stopping(make_evaluator("second"))).train_and_evaluate(train_input, eval_input)
    assert [row["evaluator"] for row in probe_rows(tmp_path / "run")] == ["first"]
    both(make_evaluator("second")).train_and_evaluate(train_input, eval_input)
    found = [(row["step"], row["evaluator"]) for row in probe_rows(tmp_path / "run")]
    assert found == [(2, "first"), (2, "second"), (4, "first"), (4, "second")]

    whole = with_evaluators(
        make_estimator(tmp_path / "whole", **CONFIG),
        make_evaluator("first"),
        make_evaluator("second"),
    )
    whole.train_and_evaluate(train_input, eval_input)
    assert_same_run(tmp_path / "run", tmp_path / "whole", 4)


@pytest.mark.slow
def test_a_run_that_was_preempted_at_its_end_evaluates_its_end(
    make_estimator, make_evaluator, train_input, tmp_path
):
    evaluator = make_evaluator("first")

    class Preempting:
        """A machine is taken away while the first evaluator works at the last step."""

        name, every, probe, check = "first", None, evaluator.probe, evaluator.check

        def __call__(self, *arguments):
            os.kill(os.getpid(), signal.SIGTERM)
            return evaluator(*arguments)

    estimator = make_estimator(**AT_THE_END)
    with pytest.raises(Preempted):
        with_evaluators(estimator, Preempting(), make_evaluator("second")).train(train_input)
    assert [row["evaluator"] for row in probe_rows(tmp_path / "run")] == ["first"]
    again = make_estimator(**AT_THE_END)
    with_evaluators(again, make_evaluator("first"), make_evaluator("second")).train(train_input)
    found = [(row["step"], row["evaluator"]) for row in probe_rows(tmp_path / "run")]
    assert found == [(4, "first"), (4, "second")]


@pytest.mark.slow
def test_evaluate_runs_them_on_its_checkpoint(
    make_estimator, make_evaluator, train_input, eval_input, tmp_path
):
    make_estimator(**CONFIG).train(train_input)
    estimator = with_evaluators(make_estimator(**CONFIG), make_evaluator(every=3))
    estimator.evaluate(eval_input, checkpoint="2")
    assert not probe_rows(tmp_path / "run")
    assert [row["step"] for row in beside(tmp_path)] == [2]
    estimator.continuous_eval(eval_input, timeout=5)
    assert [row["step"] for row in beside(tmp_path)][-1] == 4


def beside(tmp_path):
    log = RunLog(ModelDir(tmp_path / "run"), "metrics_eval.jsonl")
    return [row for row in log.rows() if row["kind"] == "probe"]


def test_intervals_in_other_units_end_with_loops(make_estimator, train_input):
    config = {**CONFIG, "steps": 40, "steps_per_loop": 5, "eval_interval": 10}
    run = make_estimator(**config)._start(train_input, None)
    assert run.steps_between("40%", "every") == 15  # of 16 steps
    assert run.steps_between("1 epochs", "every") == 20  # of 22.5
    assert run.steps_between("2 steps", "every") == 5
    assert run.steps_between(15, "every") == 15
    assert run.steps_between(None, "every") == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"every": 7},
            "ProbeEvaluator.every of 'digits' is 7 steps, of which RunConfig.steps_per_loop 5 is "
            "no divisor; take 5, or set RunConfig.steps_per_loop = 1",
        ),
        ({"every": "7 miles"}, "ProbeEvaluator.every of 'digits' must be a duration"),
        ({"ops": "decode|resize(12)|value_range(-1,1)"}, "evaluator 'digits': ViT takes images"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(
    make_estimator, make_evaluator, train_input, tmp_path, arguments, message
):
    config = {**CONFIG, "steps": 40, "steps_per_loop": 5, "eval_interval": 10}
    estimator = with_evaluators(make_estimator(**config), make_evaluator(**arguments))
    with pytest.raises(ValueError) as error:
        estimator.train(train_input)
    assert message in str(error.value)
    assert not tf.io.gfile.exists(str(tmp_path / "run" / "metrics.jsonl"))


EVALUATORS = [
    "run.evaluators = [@a/ProbeEvaluator, @b/ProbeEvaluator]",
    "a/ProbeEvaluator.name = 'a'",
    "b/ProbeEvaluator.name = 'b'",
    "ProbeEvaluator.probe = @FewShotProbe()",
    "FewShotProbe.shots = (1, 5)",
    "ProbeEvaluator.train_input = @learn/Input()",
    "ProbeEvaluator.test_input = @test/Input()",
    "learn/Input.source = @learn/TFDSSource()",
    "test/Input.source = @test/TFDSSource()",
    "learn/TFDSSource.split = 'train[:200]'",
    "test/TFDSSource.split = 'test[:100]'",
    *(
        binding
        for scope in ("learn", "test")
        for binding in (
            f"{scope}/TFDSSource.data_dir = %DATA_DIR",
            f"{scope}/Input.preprocess = '{OPS}'",
            f"{scope}/Input.batch_size = 60",
            f"{scope}/Input.training = False",
        )
    ),
    "RunConfig.steps = 4",
    "RunConfig.eval_interval = 2",
]


@pytest.mark.slow
def test_a_run_killed_in_the_midst_of_an_evaluation_runs_it_again_and_ends_as_one_that_was_not(
    digits_dir, tmp_path
):
    killed = start(tmp_path / "run", digits_dir, *EVALUATORS, mode="train_and_eval")
    for line in killed.stdout:
        if line.startswith("a at step 2"):  # b is at work
            killed.kill()
            break
    killed.wait()
    assert [row["evaluator"] for row in probe_rows(tmp_path / "run")] == ["a"]
    said = run(tmp_path / "run", digits_dir, *EVALUATORS, mode="train_and_eval")
    lines = [line.split(":")[0] for line in said.splitlines() if " at step " in line]
    assert lines == [
        "b at step 2",
        "evaluation at step 4",
        "a at step 4",
        "b at step 4",
    ]
    run(tmp_path / "whole", digits_dir, *EVALUATORS, mode="train_and_eval")
    assert_same_run(tmp_path / "run", tmp_path / "whole", 4)


def test_two_of_one_name_are_refused(make_estimator, make_evaluator, train_input):
    estimator = with_evaluators(make_estimator(), make_evaluator(), make_evaluator())
    with pytest.raises(ValueError, match="2 evaluators have the name 'digits'"):
        estimator.train(train_input)


def test_the_probes_own_splits_must_fit_each_other(digits_dir):
    source = TFDSSource(digits_dir, "train")
    held_out = Input(TFDSSource(digits_dir, "test"), OPS, 60, training=False)
    with pytest.raises(ValueError, match="set Input.training = False for digits"):
        ProbeEvaluator(FewShotProbe(), Input(source, OPS, 60, training=True), held_out, "x")
