"""Published laws are found again in points drawn from them, whatever the unit of compute."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from vit_tf.analysis.scaling_law import LogLogLaw, SaturatingLaw, ScalingLawError
from vit_tf.analysis.scaling_law.laws import _Search, log_log_law, saturating_law

# Zhai et al., 2022 (arXiv:2106.04560): ImageNet after fine-tuning, and linear 10-shot; compute in
# TPUv3-core-days.
FINETUNED = SaturatingLaw(a=0.26, b=0.35, c=0.09, d=0.01)
TEN_SHOT = SaturatingLaw(a=0.63, b=0.32, c=0.12, d=0.52)


def values(law):
    return [law.a, law.b, law.c, law.d]


@pytest.mark.parametrize("law", [FINETUNED, TEN_SHOT])
@pytest.mark.parametrize("count", [4, 8, 30])
def test_the_papers_coefficients_are_found_again(law, count):
    compute = np.geomspace(0.05, 2e4, count)
    expected = law.a * (compute + law.d) ** -law.b + law.c
    np.testing.assert_allclose(law(compute), expected, rtol=1e-12)
    np.testing.assert_allclose(values(saturating_law(compute, expected)), values(law), rtol=1e-3)


def test_another_unit_of_compute_changes_a_and_d_alone():
    flops = 1e18  # a core-day
    compute = np.geomspace(0.05, 2e4, 12)
    found = saturating_law(compute * flops, TEN_SHOT(compute))
    expected = [0.63 * flops**0.32, 0.32, 0.12, 0.52 * flops]
    np.testing.assert_allclose(values(found), expected, rtol=1e-3)
    np.testing.assert_allclose(found(compute * flops), TEN_SHOT(compute), rtol=1e-6)


def test_a_plain_power_law_has_no_remaining_error_and_no_shift():
    compute = np.geomspace(1e3, 1e9, 10)
    found = saturating_law(compute, 5.0 * compute**-0.2)
    np.testing.assert_allclose(values(found), [5.0, 0.2, 0.0, 0.0], rtol=1e-3, atol=1e-4)


def test_the_search_knows_its_derivatives():
    compute = np.geomspace(0.1, 1e3, 6)
    search = _Search(compute, TEN_SHOT(compute) * np.array([1.1, 0.9, 1.0, 1.2, 1.0, 0.8]))
    at = np.array([-1.2, 0.4, 0.3, 2.0])
    _, derivatives = search._terms(at)
    numeric = approx_fprime(at, lambda x: search._terms(x)[0], 1e-7)
    np.testing.assert_allclose(derivatives, numeric, rtol=1e-4, atol=1e-6)


def test_the_search_ends_at_the_least_squares_of_a_fine_grid():
    rng = np.random.default_rng(3)
    compute = np.geomspace(0.1, 1e4, 9)
    error = FINETUNED(compute) * np.exp(0.05 * rng.standard_normal(9))

    def squares(law):
        return np.sum(np.log(law(compute) / error) ** 2)

    grid = [
        SaturatingLaw(a, b, c, d)
        for a in np.linspace(0.15, 0.4, 11)
        for b in np.linspace(0.2, 0.6, 11)
        for c in np.linspace(0.0, error.min(), 11)
        for d in (0.0, 0.01, 0.1, 1.0)
    ]
    assert squares(saturating_law(compute, error)) <= min(map(squares, grid))


def test_a_line_in_logarithms_is_found_again():
    law = LogLogLaw(slope=-0.11, intercept=0.77)
    compute = np.array([1e10, 1e11, 3e12, 1e13])
    np.testing.assert_allclose(law(compute), 10**0.77 * compute**-0.11, rtol=1e-12)
    found = log_log_law(compute, law(compute))
    np.testing.assert_allclose([found.slope, found.intercept], [-0.11, 0.77], rtol=1e-9)


def test_laws_are_written_as_formulas_without_what_is_zero():
    assert str(FINETUNED) == "E = 0.26·(C + 0.01)^-0.35 + 0.09"
    assert str(SaturatingLaw(2.0, 0.5, 0.0, 0.0)) == "E = 2·C^-0.5"
    assert str(LogLogLaw(-0.111, 0.768)) == "E = 10^0.768·C^-0.111"


def test_fewer_points_than_coefficients_are_refused():
    compute = np.array([1.0, 10.0, 100.0, 100.0])
    with pytest.raises(ScalingLawError, match="has 4 coefficients .* there are 3"):
        saturating_law(compute, FINETUNED(compute))
    with pytest.raises(ScalingLawError, match="has 2 coefficients .* there are 1"):
        log_log_law(compute[2:], np.array([0.2, 0.3]))


def test_a_search_that_does_not_end_is_an_error(monkeypatch):
    monkeypatch.setattr("vit_tf.analysis.scaling_law.laws._MOST_EVALUATIONS", 1)
    compute = np.geomspace(0.1, 1e4, 8)
    with pytest.raises(ScalingLawError, match="no search .* 8 points ended after 1 evaluations"):
        saturating_law(compute, FINETUNED(compute))
