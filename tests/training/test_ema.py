"""Averages of the weights: what they are, and who uses them."""

import functools

import keras
import numpy as np
import pytest
from processes import assert_same_run, tensors
from stepping import Regression, Steps, batches

from vit_tf.data import Mixing
from vit_tf.export import ExportOptions
from vit_tf.export.saved_keras import keras_model_of, model_card
from vit_tf.training import BadSteps, Ema, Estimator, Optimization, RunConfig

EMA = Ema(decay=0.8, warmup=True)


@pytest.mark.parametrize(
    ("strategy", "jit_compile"), [("cpu", False), ("cpu", True), ("mirrored", False)]
)
@pytest.mark.parametrize("warmup", [False, True])
def test_averages_follow_weights_and_batch_statistics(strategy, jit_compile, warmup):
    ema = Ema(decay=0.6, warmup=warmup)
    steps = Steps(Regression(True), strategy, ema=ema, jit_compile=jit_compile)
    expected = [weight.astype(np.float64) for weight in steps.model.get_weights()]
    for number, batch in enumerate(batches(4), start=1):
        weights = steps.run(batch)
        steps.step.average_statistics()
        weights = steps.model.get_weights()
        decay = min(0.6, (1 + number) / (10 + number)) if warmup else 0.6
        expected = [decay * a + (1 - decay) * w for a, w in zip(expected, weights, strict=True)]
    averages = steps.step.averages.variables.values()
    for average, value in zip(averages, expected, strict=True):
        np.testing.assert_allclose(average.numpy(), value, rtol=0, atol=1e-6)
    assert any((a.numpy() != w).any() for a, w in zip(averages, weights, strict=True))


@pytest.fixture(scope="module")
def trained(make_task, train_input, eval_input, tmp_path_factory):
    """A short run with averages: how to make its estimator, its result and its folder."""
    model_dir = tmp_path_factory.mktemp("averaged") / "run"

    def make(ema=EMA):
        optimization = Optimization(learning_rate=3e-3)
        config = RunConfig(
            steps=12, strategy="cpu", eval_interval=12, optimization=optimization, ema=ema
        )
        return Estimator(make_task(depth=1), model_dir, config)

    return make, make().train_and_evaluate(train_input, eval_input), model_dir


def test_the_averages_are_what_is_evaluated_kept_as_best_and_predicted_with(
    trained, eval_input, capsys
):
    make, result, model_dir = trained
    again = make().evaluate(eval_input)
    assert "ckpt-12: its averaged weights are taken" in capsys.readouterr().out
    assert again == {name: result[name] for name in again}
    raw = make(Ema(evaluate=False)).evaluate(eval_input)
    assert "averaged" not in capsys.readouterr().out
    assert raw["loss"] != again["loss"]
    assert make().evaluate(eval_input, checkpoint="best") == again
    saved = tensors(model_dir, 12)
    head = "head.Skernel/.ATTRIBUTES/VARIABLE_VALUE"
    estimator = make()
    next(iter(estimator.predict(eval_input)))
    np.testing.assert_array_equal(estimator.model.head.kernel.numpy(), saved[f"ema/{head}"])
    assert (saved[f"ema/{head}"] != saved[f"model/{head}"]).any()


def test_an_export_serves_the_averages(trained, eval_input, tmp_path):
    import tensorflow as tf

    make, _, _ = trained
    expected = next(iter(make().predict(eval_input)))["probabilities"]
    path = make().export_saved_model(eval_input, tmp_path)
    assert model_card(path)["weights"] == "averages"
    serve = tf.saved_model.load(path)
    record = next(iter(eval_input.encoded()))
    outputs = serve.signatures["serving_default"](image_bytes=record["image"][None])
    np.testing.assert_allclose(outputs["probabilities"][0], expected, rtol=0, atol=1e-5)


def test_an_export_serves_the_weights_themselves_when_these_are_asked_for(
    trained, eval_input, tmp_path
):
    make, result, model_dir = trained
    raw, averages = (ExportOptions(weights=kind) for kind in ("raw", "averages"))
    card = model_card(make().export_saved_model(eval_input, tmp_path, options=raw))
    assert (card["weights"], card["step"]) == ("raw", 12)
    assert card["evaluation"]["step"] == 12
    assert card["evaluation"]["accuracy"] == result["accuracy"]
    kernel = keras_model_of(card).head.kernel.numpy()
    saved = tensors(model_dir, 12)
    head = "head.Skernel/.ATTRIBUTES/VARIABLE_VALUE"
    np.testing.assert_array_equal(kernel, saved[f"model/{head}"])
    with pytest.raises(ValueError, match="best-12 holds no raw weights, only averages ones"):
        make().export_saved_model(eval_input, tmp_path, "best", raw)
    with pytest.raises(ValueError, match="best-12 holds no averages weights, only raw ones"):
        make(None).export_saved_model(eval_input, tmp_path, "best", averages)


@pytest.mark.slow
def test_a_run_with_everything_on_resumes_bit_for_bit(make_estimator, train_input, tmp_path):
    settings = dict(
        model={"depth": 1, "dropout": 0.1, "stochastic_depth": 0.2},
        mixing=Mixing(mixup_alpha=0.8, cutmix_alpha=1.0),
        steps=6,
        steps_per_loop=2,
        checkpoint_interval=2,
        ema=EMA,
        accumulation_steps=2,
        bad_steps=BadSteps(action="skip", norm_above=100.0, loss_factor=50.0),
    )
    make_estimator(tmp_path / "whole", **settings).train(train_input)
    make_estimator(tmp_path / "parts", **settings).train(train_input, steps=4)
    make_estimator(tmp_path / "parts", **settings).train(train_input)
    assert_same_run(tmp_path / "whole", tmp_path / "parts", step=6)


def test_a_keras_optimizer_that_averages_points_to_ema(make_task, train_input, tmp_path):
    adam = functools.partial(keras.optimizers.Adam, use_ema=True)
    config = RunConfig(steps=1, strategy="cpu", optimization=Optimization(adam))
    with pytest.raises(
        ValueError, match=r"Adam\.use_ema must not be set: RunConfig\.ema = @Ema\(\)"
    ):
        Estimator(make_task(), tmp_path, config).train(train_input)


def test_half_weights_cannot_be_averaged(make_estimator, train_input):
    message = "ema needs float32 weights; .* is bfloat16. Set RunConfig.precision = 'mixed_bfloat16"
    with pytest.raises(ValueError, match=message):
        make_estimator(ema=EMA, precision="bfloat16").train(train_input)


def test_a_decay_of_one_would_never_move():
    with pytest.raises(ValueError, match=r"Ema\.decay must lie in \[0, 1\); given 1\.0"):
        Ema(decay=1.0)
