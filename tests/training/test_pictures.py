"""What TensorBoard gets of a run besides scalars, and norms by layer group."""

import numpy as np
import pytest
from processes import rows
from stepping import Regression, Steps, batches, gradient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vit_tf.models.preprocessing import Preprocessing
from vit_tf.training import RunConfig
from vit_tf.training.pictures import in_unit_range
from vit_tf.training.profiling import Profiler


@pytest.fixture(scope="module")
def events(make_task, train_input, tmp_path_factory):
    """TensorBoard's events of a short run, and its folder."""
    from vit_tf.training import Estimator

    model_dir = tmp_path_factory.mktemp("pictured")
    config = RunConfig(
        steps=8,
        strategy="cpu",
        steps_per_loop=2,
        checkpoint_interval=8,
        image_interval=4,
        histogram_interval=6,
        profile_steps=(3, 5),
    )
    Estimator(make_task(), model_dir, config).train(train_input)
    accumulator = EventAccumulator(str(model_dir / "tensorboard" / "train"))
    accumulator.Reload()
    return accumulator, model_dir


def steps_of(events, tag):
    return [event.step for event in events[0].Tensors(tag)]


def test_training_images_are_shown_at_the_start_and_at_each_interval(events):
    assert steps_of(events, "training_images") == [2, 4, 8]
    width, height, *images = events[0].Tensors("training_images")[0].tensor_proto.string_val
    assert (int(width), int(height), len(images)) == (8, 8, 16)


def test_histograms_of_all_weights_are_written_where_they_are_asked_for(events):
    assert steps_of(events, "block01/mlp/dense_in/kernel") == [6]


def test_norms_by_layer_group_are_curves_and_not_in_the_metrics_file(events):
    tags = events[0].Tags()["tensors"]
    groups = {"block00", "block01", "encoder_norm", "head", "patch_embedding", "positions"}
    for kind in ("gradient_norm", "update_norm"):
        assert {tag.partition("/")[2] for tag in tags if tag.startswith(f"{kind}/")} == groups
        assert steps_of(events, f"{kind}/head") == [2, 4, 6, 8]
    assert not [name for name in rows(events[1])[0] if "/" in name]
    assert {"gradient_norm", "epoch"} <= rows(events[1])[0].keys()


def test_the_chosen_steps_are_profiled(events):
    traces = list(
        (events[1] / "tensorboard" / "train" / "plugins" / "profile").glob("*/*.xplane.pb")
    )
    assert len(traces) == 1


def test_a_profile_starts_and_stops_at_its_steps(monkeypatch):
    calls = []
    monkeypatch.setattr("tensorflow.profiler.experimental.start", lambda folder: calls.append(1))
    monkeypatch.setattr("tensorflow.profiler.experimental.stop", lambda: calls.append(0))
    profiler = Profiler((3, 5), "folder")
    assert [profiler.at(step) for step in (0, 3, 4, 5, 6)] == [3, 2, 1, None, None]
    assert calls == [1, 0]
    profiler.close()
    assert calls == [1, 0]
    assert Profiler(None, "folder").at(3) is None


def test_group_norms_are_those_of_gradient_and_update():
    steps = Steps(rate=0.1)
    kernel = steps.model.get_weights()[0]
    (batch,) = batches(1)
    steps.run(batch)
    means, norm = steps.step.means(), np.linalg.norm(gradient(kernel, batch))
    assert means["gradient_norm/head"] == pytest.approx(norm, rel=1e-5)
    assert means["update_norm/head"] == pytest.approx(0.1 * norm, rel=1e-4)


def test_groups_are_the_first_parts_of_names():
    steps = Steps(Regression(True))
    steps.run(batches(1)[0])
    names = {name for name in steps.step.means() if name.startswith("gradient_norm/")}
    assert names == {"gradient_norm/norm", "gradient_norm/head"}


@pytest.mark.parametrize(
    "facts",
    [
        dict(value_range=(-1, 1)),
        dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    ],
)
def test_images_are_shown_as_they_were_before_they_were_scaled(facts):
    images = np.random.default_rng(0).uniform(size=(2, 4, 4, 3)).astype(np.float32)
    preprocessing = Preprocessing((4, 4), **facts)
    if preprocessing.mean:
        seen = (images - preprocessing.mean) / preprocessing.std
    else:
        seen = images * 2 - 1
    np.testing.assert_allclose(in_unit_range(seen, preprocessing), images, atol=1e-6)


def test_images_of_a_model_without_facts_span_black_to_white():
    images = in_unit_range(np.array([[[[-3.0, 0.0]]], [[[5.0, 1.0]]]]), None)
    np.testing.assert_allclose(images, [[[[0.0]]], [[[1.0]]]])


def test_profile_steps_that_cannot_be():
    with pytest.raises(ValueError, match=r"profile_steps must be \(start, stop\) .*given \(5, 5\)"):
        RunConfig(profile_steps=(5, 5))
