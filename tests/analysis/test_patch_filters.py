"""Principal components of first layers' filters, against an eigendecomposition."""

import keras
import numpy as np
import pytest

from vit_tf.analysis.patch_filters import (
    PrincipalFilters,
    model_filters,
    plot_patch_filters,
    principal_filters,
)
from vit_tf.models import create_model

TINY = {"image_size": 32, "width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 8, "num_classes": 3}
KERNEL = np.random.default_rng(0).normal(1, 1, size=(4, 2, 3, 40))


def test_components_are_the_covariances_eigenvectors():
    found = principal_filters(KERNEL, count=5)
    assert found.components.shape == (5, 4, 2, 3) and found.shares.shape == (5,)
    values, vectors = np.linalg.eigh(np.cov(KERNEL.reshape(24, 40)))
    np.testing.assert_allclose(found.shares, values[::-1][:5] / values.sum())
    for component, vector in zip(found.components, vectors.T[::-1], strict=False):
        assert abs(component.ravel() @ vector) == pytest.approx(1)
        assert component.ravel()[np.abs(component).argmax()] > 0


def test_filters_of_few_patterns_are_explained_by_as_many_components():
    rng = np.random.default_rng(0)
    patterns = np.linalg.qr(rng.normal(size=(48, 2)))[0]
    kernel = (patterns @ (rng.normal(size=(2, 30)) * [[5], [1]])).reshape(4, 4, 3, 30)
    found = principal_filters(kernel)
    assert found.shares[:2].sum() == pytest.approx(1)
    spanned = found.components[:2].reshape(2, 48) @ patterns
    np.testing.assert_allclose(spanned @ spanned.T, np.eye(2), atol=1e-9)


def test_the_mean_filter_is_no_component():
    shifted = principal_filters(KERNEL + 100 * np.ones((4, 2, 3, 1)))
    np.testing.assert_allclose(shifted.components, principal_filters(KERNEL).components, atol=1e-6)


def test_there_are_no_more_components_than_can_be():
    assert len(principal_filters(KERNEL).components) == 24  # values of a filter
    assert len(principal_filters(KERNEL[..., :7]).components) == 6  # filters around their mean
    assert principal_filters(KERNEL).shares.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("family", "changes", "path"),
    [
        ("vit", {"patch_size": (8, 4)}, "patch_embedding/projection/kernel"),
        ("deit_distilled", {"patch_size": 8}, "patch_embedding/projection/kernel"),
        ("flexivit", {"patch_size": 8}, "patch_embedding/projection/kernel"),
        ("vit_c", {"patch_size": 8}, "patch_embedding/projection/kernel"),
        ("vit_c", {"stem_widths": (4, 8)}, "stem/conv0/kernel"),
    ],
)
def test_a_models_filters_are_its_first_kernel(family, changes, path):
    model = create_model(family, **TINY, **changes)
    (kernel,) = [w for w in model.weights if w.path.endswith(path)]
    np.testing.assert_array_equal(model_filters(model), kernel.numpy())
    assert model_filters(model).shape[2] == 3


def test_mixers_have_filters_of_patches_too():
    mixer = create_model("mixer", image_size=16, patch_size=8, width=8, depth=1, tokens_mlp_dim=4,
                         channels_mlp_dim=4, num_classes=2)  # fmt: skip
    assert model_filters(mixer).shape == (8, 8, 3, 8)


@pytest.mark.parametrize("family", ["hybrid", "bit"])
def test_of_a_resnet_it_is_the_standardised_root(family):
    sizes = {"resnet_width_factor": 0.5, "image_size": 32, "num_classes": 3}
    if family == "bit":
        model = create_model("bit", **sizes, resnet_stages=(1,))
    else:
        model = create_model("hybrid", **(TINY | sizes), resnet_stages=(), patch_size=2)
    (kernel,) = [w.numpy() for w in model.weights if w.path.endswith("conv_root/kernel")]
    found = model_filters(model)
    assert found.shape == kernel.shape == (7, 7, 3, 32)
    expected = (kernel - kernel.mean(axis=(0, 1, 2))) / kernel.std(axis=(0, 1, 2))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_what_has_no_filters_is_named():
    with pytest.raises(ValueError, match="first layer of Sequential is not known"):
        model_filters(keras.Sequential())
    with pytest.raises(ValueError, match=r"given \[4, 2, 3\] and count=28"):
        principal_filters(KERNEL[..., 0])
    with pytest.raises(ValueError, match="count=0"):
        principal_filters(KERNEL, count=0)


def test_the_picture_has_a_panel_a_component_in_which_zero_is_grey():
    filters = principal_filters(KERNEL, count=9)
    figure = plot_patch_filters({"a model": filters})
    (axes,) = figure.axes
    for drawn, text, component, share in zip(axes.images, axes.texts, *filters, strict=True):
        picture = np.asarray(drawn.get_array())
        np.testing.assert_allclose(
            (picture - 0.5) * 2 * np.abs(component).max(), component, atol=1e-9
        )
        assert picture.max() == pytest.approx(1) and picture.min() >= 0
        assert text.get_text() == f"{share:.1%}"
    places = [image.get_extent() for image in axes.images]
    assert len({left for left, *_ in places}) == 7 and len({top for *_, top in places}) == 2


def test_models_stand_side_by_side_and_must_have_colours():
    filters = principal_filters(KERNEL, count=9)
    figure = plot_patch_filters({"one": filters, "other": principal_filters(KERNEL, count=3)})
    assert {axes.get_title(): len(axes.images) for axes in figure.axes} == {"one": 9, "other": 3}
    deep = PrincipalFilters(np.zeros((1, 2, 2, 8)), np.ones(1))
    with pytest.raises(ValueError, match=r"filters of 8 channels \(deep\) are no colours"):
        plot_patch_filters({"deep": deep})
