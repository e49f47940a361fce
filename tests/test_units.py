"""Numbers are measured in units of their own: observations, advantages and Q-values may be of any size."""

from __future__ import annotations

import pytest
import torch
from helpers import normal

from trpo_lessons.advantages import standardised
from trpo_lessons.envs.obs_statistics import RunningMoments, unit_of
from trpo_lessons.vine import scaled_differences

SCALES = [1e-150, 1e-12, 1e-5, 1.0, 1e9]


@pytest.mark.parametrize("scale", SCALES)
def test_observations_of_any_size_are_normalised(scale: float) -> None:
    rows = normal(0, 500, 3)
    seen, scaled = (RunningMoments.empty(3).including(each) for each in (rows, scale * rows))
    torch.testing.assert_close(scaled.normalise(scale * rows), seen.normalise(rows))
    out = scaled.normalise(scale * rows)
    torch.testing.assert_close(out.std(0, correction=0), torch.ones(3), rtol=1e-5, atol=0)


@pytest.mark.parametrize("scale", SCALES)
def test_advantages_and_q_values_of_any_size_give_the_same_update(scale: float) -> None:
    values = normal(1, 40, 4)
    torch.testing.assert_close(standardised(scale * values), standardised(values))
    torch.testing.assert_close(scaled_differences(scale * values), scaled_differences(values))
    assert standardised(scale * values).std().item() == pytest.approx(1)


def test_what_a_state_is_worth_leaves_q_differences_what_they_are() -> None:
    """Else float32, in which they are learned from, would keep little of them."""
    values = normal(2, 40, 4)
    worth = 1e8 * normal(3, 40, 1)
    torch.testing.assert_close(scaled_differences(values + worth), scaled_differences(values), rtol=0, atol=1e-6)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e12])
def test_a_constant_stays_one_and_is_not_blown_up_to_noise(constant: float) -> None:
    """0.1 is no binary fraction: sums of it differ from one another by rounding."""
    rows = torch.full((1000, 2), constant, dtype=torch.float64)
    moments = RunningMoments.empty(2)
    for part in rows.split(7):
        moments = moments.including(part)
    assert moments.normalise(rows).abs().max() < 1e-3
    assert standardised(rows).abs().max() < 1e-3
    assert scaled_differences(rows).abs().max() < 1e-3


def test_a_unit_is_a_deviation_unless_that_is_rounding() -> None:
    deviations = torch.tensor([0.0, 1e-300, 2.0, 1e-8, 3.0], dtype=torch.float64)
    means = torch.tensor([0.0, 0.0, 5.0, 1e3, 1e12], dtype=torch.float64)
    assert unit_of(deviations, means).tolist() == [1.0, 1e-300, 2.0, 1.0, 1.0]
