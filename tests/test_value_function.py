"""The value function: it fits, in any units, and can be saved, loaded and refused."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers import normal, seeded
from torch import Tensor

from trpo_lessons import value_function
from trpo_lessons.conjugate_gradient import Solution
from trpo_lessons.surrogate import States, StatesAnd
from trpo_lessons.value_function import ValueFunction, explained_variance


def a_problem(seed: int = 0, mean: float = 0.0, std: float = 1.0) -> tuple[Tensor, Tensor]:
    """Observations, and returns that depend on them smoothly."""
    obs = normal(seed, 1024, 3, dtype=torch.float32)
    shape = torch.sin(obs.double() @ normal(99, 3)) + 0.5 * obs[:, 0].double()
    return obs, mean + std * (shape - shape.mean()) / shape.std()


def fitted(obs: Tensor, returns: Tensor, fits: int = 1, steps: int = 2) -> ValueFunction:
    value = ValueFunction(3, (32,), seeded(1))
    for _ in range(fits):
        value.fit(obs, returns, steps)
    return value


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1000.0, 5.0), (-3.0, 1e-3), (0.0, 1e4)])
def test_it_learns_a_smooth_function_in_any_units(mean: float, std: float) -> None:
    obs, returns = a_problem(0, mean, std)
    value = fitted(obs, returns, fits=8)
    new_obs, new_returns = a_problem(50, mean, std)
    assert explained_variance(value(new_obs), new_returns) > 0.95
    assert (value(new_obs).mean() - mean).abs() < 0.1 * std


def test_units_are_all_that_the_scale_of_the_returns_changes() -> None:
    obs, returns = a_problem()
    plain, scaled = fitted(obs, returns), fitted(obs, 200 * returns - 70)
    torch.testing.assert_close(scaled(obs), 200 * plain(obs) - 70, rtol=1e-3, atol=0.1)


def test_a_change_of_units_leaves_every_prediction_what_it_was() -> None:
    obs, returns = a_problem()
    value = fitted(obs, returns, fits=3)
    for shifted in (returns + 50, 30 * returns - 200, 0.01 * returns):
        before, state = value(obs), value.state_dict()
        value.fit(obs, shifted, steps=0)  # units change, and nothing else
        scale = before.abs().max().item()
        torch.testing.assert_close(value(obs), before, rtol=0, atol=2e-5 * scale)
        after = value.state_dict()
        assert not torch.equal(after["moments"], state["moments"])
        assert not torch.equal(after["theta"], state["theta"])


def test_the_units_follow_the_mean_and_spread_of_the_returns() -> None:
    obs, returns = a_problem(0, mean=20, std=3)
    value = fitted(obs, returns, steps=0)
    # An untrained network says almost 0 in its own units: the mean of the returns.
    assert (value(obs) - 20).abs().max() < 0.5
    for _ in range(200):
        value.fit(obs, returns + 100, steps=0)
    weight, first, second = value.state_dict()["moments"].tolist()
    assert first / weight == pytest.approx(120, rel=1e-6)
    assert math.sqrt(second / weight - (first / weight) ** 2) == pytest.approx(3, rel=1e-2)


def test_the_newest_returns_are_a_tenth_of_the_units() -> None:
    """A running mean of rate 1/10: the weight of a batch falls by a tenth with every batch after it."""
    obs, returns = a_problem(0)
    value = fitted(obs, returns, fits=0)
    levels = (5.0, -3.0, 40.0)
    for level in levels:
        value.fit(obs, torch.full_like(returns, level), steps=0)
    weights = torch.tensor([0.1 * 0.9**2, 0.1 * 0.9, 0.1], dtype=torch.float64)
    expected = [
        weights.sum(),
        weights @ torch.tensor(levels).double(),
        weights @ torch.tensor(levels).double().square(),
    ]
    torch.testing.assert_close(value.state_dict()["moments"], torch.stack(expected))


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e9])
def test_returns_of_any_size_are_learned(scale: float) -> None:
    """No constant stands in for a unit: rewards in other units give the same fit in those units."""
    obs, returns = a_problem(1)
    plain, scaled = fitted(obs, returns), fitted(obs, scale * returns)
    torch.testing.assert_close(scaled(obs) / scale, plain(obs), rtol=1e-3, atol=1e-3)


def test_returns_that_are_all_equal_do_not_blow_up() -> None:
    obs, returns = a_problem(0, mean=20, std=3)
    value = fitted(obs, torch.full_like(returns, 7.0), fits=3)
    assert (value(obs) - 7).abs().max() < 0.1
    value.fit(obs, returns)
    assert value(obs).isfinite().all()


def test_a_state_that_is_saved_and_loaded_goes_on_to_the_same_bits() -> None:
    obs, returns = a_problem()
    original = fitted(obs, returns, fits=2)
    saved = original.state_dict()
    copy = ValueFunction(3, (32,), seeded(7))
    copy.load_state_dict(saved)
    assert torch.equal(copy(obs), original(obs))
    for value in (original, copy):
        value.fit(obs, 2 * returns + 1)
    assert torch.equal(copy(obs), original(obs))
    for name, tensor in original.state_dict().items():
        assert torch.equal(copy.state_dict()[name], tensor), name
        assert not torch.equal(saved[name], tensor), f"{name} did not change, or the saved state changed with it"


@pytest.mark.parametrize("used_before", [False, True])
def test_a_state_from_before_the_first_fit_can_be_loaded_too(used_before: bool) -> None:
    obs, returns = a_problem()
    saved = ValueFunction(3, (32,), seeded(1)).state_dict()
    value = fitted(obs, returns) if used_before else ValueFunction(3, (32,), seeded(7))
    value.load_state_dict(saved)
    value.fit(obs, returns)
    assert torch.equal(value(obs), fitted(obs, returns)(obs))


def test_a_state_of_another_network_is_refused() -> None:
    value = ValueFunction(3, (32,))
    with pytest.raises(ValueError, match="this value function has 161 parameters, the saved one 129"):
        value.load_state_dict(ValueFunction(2, (32,)).state_dict())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["obs", "returns"])
def test_numbers_that_are_not_finite_are_refused_before_anything_changes(bad: float, where: str) -> None:
    obs, returns = a_problem()
    value = fitted(obs, returns)
    before = value.state_dict()
    (obs if where == "obs" else returns)[17] = bad
    with pytest.raises(ValueError, match=r"cannot fit a value function to .*returns that are not finite"):
        value.fit(obs, returns)
    assert all(torch.equal(tensor, before[name]) for name, tensor in value.state_dict().items())


def test_after_any_error_nothing_has_changed() -> None:
    obs, returns = a_problem()
    value = fitted(obs, returns)
    before = value.state_dict()
    with pytest.raises(ValueError, match="or too large to be squared"):
        value.fit(obs, 1e160 * (returns + 1))
    with pytest.raises(RuntimeError):
        value.fit(obs[:, :-1], 7 * returns)
    assert all(torch.equal(tensor, before[name]) for name, tensor in value.state_dict().items())


def test_it_is_seeded_and_leaves_the_global_generator_alone() -> None:
    obs, returns = a_problem()
    state = torch.get_rng_state()
    assert torch.equal(fitted(obs, returns)(obs), fitted(obs, returns)(obs))
    assert torch.equal(torch.get_rng_state(), state)


def test_values_carry_no_gradient_and_one_number_for_each_state() -> None:
    value = ValueFunction(3, (32,))
    assert value(normal(0, 5, 3, dtype=torch.float32)).shape == (5,)
    assert value(torch.zeros(0, 3)).shape == (0,)
    assert not value(torch.zeros(2, 3)).requires_grad


def test_a_linear_value_function_has_no_hidden_layers() -> None:
    obs, returns = a_problem()
    value, linear = ValueFunction(3, (), seeded(1)), normal(4, 3)
    for _ in range(10):
        value.fit(obs, 5 + obs.double() @ linear)
    assert explained_variance(value(obs), 5 + obs.double() @ linear) > 0.999
    before = value(obs)
    value.fit(obs, 100 * returns, steps=0)
    torch.testing.assert_close(value(obs), before, rtol=1e-4, atol=1e-4)


def test_one_undamped_step_of_a_linear_value_function_is_least_squares() -> None:
    obs, returns = a_problem()
    value = ValueFunction(3, (), seeded(1))
    value.fit(obs, returns, steps=1, damping=0.0, stride=1)
    columns = np.column_stack([obs.numpy(), np.ones(len(obs))])
    coefficients, *_ = np.linalg.lstsq(columns, returns.numpy(), rcond=None)
    np.testing.assert_allclose(value(obs), columns @ coefficients, atol=1e-4)


def test_a_step_never_makes_the_fit_worse() -> None:
    obs, returns = a_problem(0, mean=20, std=3)
    value = fitted(obs, returns, steps=0)
    errors = []
    for _ in range(30):
        errors.append((value(obs) - returns).square().mean().item())
        problem = StatesAnd(States(obs), ((returns - 20) / 3).float())
        value._theta = value._gauss_newton_step(problem, damping=1e-6, stride=8)
    # The targets above are in the units of the first fit, so that only the steps move the error.
    assert all(after <= before * (1 + 1e-5) for before, after in itertools.pairwise(errors))
    assert errors[-1] < 0.05 * errors[0]


def test_a_step_that_is_not_finite_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    obs, returns = a_problem()
    value = fitted(obs, returns)
    before = value(obs)

    def overflowing(_: Any, b: Tensor) -> Solution:
        return Solution(torch.full_like(b, math.inf), b, (), False)

    monkeypatch.setattr(value_function, "conjugate_gradient", overflowing)
    value.fit(obs, returns)
    torch.testing.assert_close(value(obs), before, rtol=1e-5, atol=1e-5)
