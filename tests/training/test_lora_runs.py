"""Runs with LoRA: what they train, keep, go on from, average and serve."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from processes import assert_same_run, tensors

from vit_tf.checkpoints import create_model, load_checkpoint, save_checkpoint
from vit_tf.models.lora import LoRA
from vit_tf.models.weight_names import weight_names
from vit_tf.training import Classification, Ema, Estimator, Optimization, RunConfig
from vit_tf.training.run_length import RunLength

TINY = dict(image_size=8, patch_size=4, width=16, depth=1, num_heads=2, mlp_dim=32, pool="gap")
EMA = Ema(decay=0.8, warmup=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """File of a model that looks trained, of another number of classes."""
    keras.utils.set_random_seed(5)
    model = create_model("vit", **TINY, num_classes=4)
    path = str(tmp_path_factory.mktemp("base") / "base.npz")
    save_checkpoint(model, path)
    return path


@pytest.fixture(scope="module")
def make(base):
    """`make(model_dir, settings of RunConfig, **LoRA)`: an estimator."""

    def make(model_dir, settings=(), **lora):
        model = functools.partial(
            create_model,
            "vit",
            base,
            **TINY,
            num_classes=10,
            dropout=0.1,
            lora=LoRA(**{"rank": 2, "alpha": 4, **lora}),
        )
        adam = functools.partial(keras.optimizers.AdamW, weight_decay=0.1)
        # Everything decays that can: frozen weights must not.
        optimization = Optimization(adam, 1e-2, weight_decay_table=((".*", 1.0),))
        usual = dict(
            steps=6,
            strategy="cpu",
            steps_per_loop=2,
            eval_interval=6,
            checkpoint_interval=2,
            accumulation_steps=2,
            ema=EMA,
            optimization=optimization,
        )
        config = RunConfig(**usual | dict(settings))
        return Estimator(Classification(model), model_dir, config)

    return make


@pytest.fixture(scope="module")
def model_dir(make, train_input, eval_input, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapted") / "run"
    make(folder).train_and_evaluate(train_input, eval_input)
    return folder


def weights(model_dir, kind="model"):
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    return {
        name.removeprefix(f"{kind}/").removesuffix(suffix).replace(".S", "/"): value
        for name, value in tensors(model_dir, 6).items()
        if name.startswith(f"{kind}/")
    }


def test_only_the_matrices_and_the_head_move(model_dir, base):
    before = create_model("vit", base, **TINY, num_classes=10, lora=LoRA(rank=2))
    trained = {*weight_names(before.trainable_weights)}
    after = weights(model_dir)
    for name, weight in weight_names(before.weights).items():
        if name in trained:
            assert np.any(after[name] != weight.numpy()), name
        else:
            np.testing.assert_array_equal(after[name], weight.numpy(), err_msg=name)


def test_the_optimizer_holds_two_slots_a_trained_weight_and_no_more(model_dir):
    slots = [v for v in weights(model_dir, "optimizer").values() if np.ndim(v)]
    assert len(slots) == 2 * (2 * 4 + 2)


@pytest.mark.slow
def test_a_run_in_parts_is_the_run_in_one_and_tells_what_it_trains(
    make, train_input, eval_input, model_dir, tmp_path, capsys
):
    make(tmp_path / "run").train(train_input, steps=4)
    said = capsys.readouterr().out
    # Per kernel rank x (inputs + outputs), and a head of 16 x 10 + 10.
    trained = 2 * ((16 + 48) + (16 + 16) + (16 + 32) + (32 + 16)) + 170
    assert f"parameters, {trained} of them trained" in said
    assert "block00/attention/qkv/lora_kernel_a" in said
    make(tmp_path / "run").train_and_evaluate(train_input, eval_input)
    assert_same_run(model_dir, tmp_path / "run", step=6)


def test_a_checkpoint_of_the_run_loads_merged_into_a_plain_model(make, eval_input, model_dir):
    plain = create_model("vit", **TINY, num_classes=10)
    report = load_checkpoint(plain, str(model_dir), strict=True)
    assert report.complete
    estimator = make(model_dir)
    estimator.config.ema = Ema(evaluate=False)
    batch = next(iter(eval_input()))
    expected = next(iter(estimator.predict(eval_input)))["logits"]
    found = plain(batch["image"]).numpy()[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    inferred = create_model("vit", str(model_dir))  # the configuration comes from the run
    np.testing.assert_array_equal(inferred(batch["image"])[0], found)


def test_a_checkpoint_without_its_model_json_is_not_guessed_at(model_dir, tmp_path):
    for path in (model_dir / "checkpoints").glob("ckpt-6.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    plain = create_model("vit", **TINY, num_classes=10)
    with pytest.raises(ValueError, match="no model.json in the folder above"):
        load_checkpoint(plain, str(tmp_path / "ckpt-6"))


def test_an_export_serves_the_same_logits_without_lora(make, eval_input, model_dir, tmp_path):
    estimator = make(model_dir)
    rows = list(estimator.predict(eval_input))  # not merged, averaged
    exported = estimator.export_saved_model(eval_input, tmp_path)
    served = tf.saved_model.load(exported)
    encoded = [record["image"].numpy() for record in eval_input.encoded()]
    outputs = served.signatures["serving_default"](image_bytes=tf.constant(encoded))
    expected = np.stack([row["logits"] for row in rows])
    np.testing.assert_allclose(outputs["logits"], expected, rtol=0, atol=2e-5)
    variables = tf.train.list_variables(f"{exported}/variables/variables")
    plain = create_model("vit", **TINY, num_classes=10)
    shapes = [tuple(shape) for _, shape in variables if shape]
    assert not any("lora" in name for name, _ in variables)
    assert sum(map(np.prod, shapes)) < plain.count_params() + 100  # class names, counters


def test_a_row_of_a_table_can_be_of_the_matrices_alone(base):
    model = create_model("vit", base, **TINY, num_classes=10, lora=LoRA(rank=2))
    optimization = Optimization(
        learning_rate_table=((".*lora_kernel_b", 16.0), (".*", 1.0)),
        weight_decay_table=((".*lora_kernel_.", 1.0), (".*", 0.0)),
    )
    optimization.build(model, RunLength(4))
    assert "16  .*lora_kernel_b  4 weights" in optimization.describe()
    assert "1  .*lora_kernel_.  8 weights" in optimization.describe()
    frozen = {id(weight) for weight in optimization.frozen}
    assert frozen == {id(weight) for weight in model.non_trainable_weights}


@pytest.mark.parametrize("change", [{"alpha": 8}, {"rank": 3}])
def test_another_scale_or_rank_is_another_model(make, train_input, model_dir, change):
    with pytest.raises(ValueError, match="belongs to another model"):
        make(model_dir, **change).train(train_input)


def test_a_dry_run_counts_what_is_trained(make, tmp_path):
    from vit_tf.training.dry_run import dry_run

    estimator = make(tmp_path)
    planned = dry_run(estimator.config, lambda: estimator.task)
    assert planned.parameters == 554
    assert "of them trained" in str(planned)
    assert planned.memory["gradients"] == 4 * 554
    assert planned.memory["optimizer in float32"] == 2 * 4 * 554


@pytest.mark.slow
def test_replicas_half_precision_and_rematerialisation_adapt_too(
    make, train_input, eval_input, tmp_path
):
    settings = dict(strategy="mirrored", precision="mixed_bfloat16", remat="blocks", steps=2)
    estimator = make(tmp_path, settings)
    values = estimator.train(train_input)
    assert np.isfinite(values["loss"]) and values["gradient_norm"] > 0
    named = weight_names(estimator.model.weights)
    assert np.any(named["block00/mlp/dense_out/lora_kernel_b"].numpy())
    one_device = make(tmp_path, dict(settings, strategy="cpu"))
    assert one_device.export_saved_model(eval_input, tmp_path / "export")
