"""Ask and tell: weighted fits against plain loops, the weights' definitions, first generations against the formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import PROPERTY, doubles, mutant, normal, seeded
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from trpo_lessons.prior_methods import cem as cem_module
from trpo_lessons.prior_methods import gaussian_search
from trpo_lessons.prior_methods.cem import cem, fading
from trpo_lessons.prior_methods.cma import CMA, FULL_UP_TO
from trpo_lessons.prior_methods.gaussian_search import (
    GaussianSearch,
    Search,
    bounded_kl,
    elite,
    elite_size,
    exponential,
    reps_temperature,
    root,
    weighted_gaussian,
)

MAKERS: dict[str, Callable[[Tensor], Search]] = {
    "cem": lambda mean: cem(mean, 0.7, 12, 0.25, extra_noise=0.3, noise_generations=4),
    "cma, full": lambda mean: CMA(mean, 0.7, 12, full=True),
    "cma, diagonal": lambda mean: CMA(mean, 0.7, 12, full=False),
    "rwr": lambda mean: GaussianSearch(mean, 0.7, 12, exponential(0.5)),
    "reps, full": lambda mean: GaussianSearch(mean, 0.7, 12, bounded_kl(0.5), full=True),
}


def earned(thetas: Tensor) -> Tensor:
    """Best at (1, 2, 3, ...)."""
    return -(thetas - torch.arange(1.0, thetas.shape[1] + 1)).square().sum(1)


# ---- the fit


@PROPERTY
@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 1000))
def test_a_weighted_fit_is_that_of_plain_sums(n: int, population: int, seed: int) -> None:
    thetas, weights = normal(seed, population, n), normal(seed + 1, population).softmax(0)
    mean, covariance = weighted_gaussian(thetas, weights, full=True)
    _, variances = weighted_gaussian(thetas, weights)
    for i in range(n):
        assert mean[i].item() == pytest.approx(sum(w * x[i] for w, x in zip(weights, thetas, strict=True)).item())
        for j in range(n):
            products = [w * (x[i] - mean[i]) * (x[j] - mean[j]) for w, x in zip(weights, thetas, strict=True)]
            assert covariance[i, j].item() == pytest.approx(sum(products).item(), abs=1e-12)
    assert torch.allclose(variances, covariance.diagonal(), rtol=1e-12)


def test_no_other_gaussian_makes_the_weighted_population_more_likely() -> None:
    thetas, weights = normal(0, 40, 3), normal(1, 40).softmax(0)
    mean, covariance = weighted_gaussian(thetas, weights, full=True)

    def likelihood(mean: Tensor, covariance: Tensor) -> float:
        gaussian = torch.distributions.MultivariateNormal(mean, covariance)
        return (weights @ gaussian.log_prob(thetas)).item()

    best = likelihood(mean, covariance)
    for seed in range(20):
        nudge = 0.05 * normal(seed, 3, 3)
        assert likelihood(mean + 0.05 * normal(seed + 50, 3), covariance) < best
        assert likelihood(mean, covariance + nudge @ nudge.T) < best
        assert likelihood(mean, covariance * (1 - 0.01 * (seed + 1))) < best


def test_populations_are_drawn_from_the_gaussian() -> None:
    factor = normal(3, 3, 3)
    search = GaussianSearch(doubles([1.0, -2.0, 3.0]), 1.0, 40_000, elite(0.5), full=True)
    search.covariance = factor @ factor.T
    thetas = search.ask(seeded(0))
    assert torch.allclose(thetas.mean(0), search.mean, atol=0.05)
    assert torch.allclose(thetas.T.cov(), search.covariance, atol=0.1, rtol=0.05)
    diagonal = GaussianSearch(torch.zeros(2), 2.0, 40_000, elite(0.5))
    diagonal.covariance = doubles([4.0, 0.25])
    assert torch.allclose(diagonal.ask(seeded(1)).std(0), doubles([2.0, 0.5]), rtol=0.03)


def test_a_singular_covariance_matrix_has_a_root() -> None:
    column = doubles([[1.0], [2.0], [-1.0]])
    singular = column @ column.T
    assert torch.allclose(root(singular) @ root(singular).T, singular, atol=1e-12)
    assert torch.linalg.matrix_rank(singular) == 1


# ---- the weights


def test_the_elite_are_the_best_and_count_alike() -> None:
    returns = doubles([3.0, 9.0, -1.0, 9.5, 4.0])
    assert elite(0.4)(returns).tolist() == [0.0, 0.5, 0.0, 0.5, 0.0]
    assert elite(0.01)(returns).tolist() == [0.0, 0.0, 0.0, 1.0, 0.0]
    assert elite(1.0)(returns).tolist() == [0.2] * 5
    assert [elite_size(32, share) for share in (0.2, 0.1, 0.01, 1.0)] == [6, 3, 1, 32]


def test_of_equal_returns_the_first_are_the_elite_so_that_runs_repeat() -> None:
    assert elite(0.5)(torch.ones(4)).tolist() == [0.5, 0.5, 0.0, 0.0]


@PROPERTY
@given(st.lists(st.floats(-1e5, 1e5), min_size=2, max_size=20), st.floats(1e-3, 10))
def test_exponential_weights_are_those_of_the_definition(returns: list[float], beta: float) -> None:
    best = max(returns)
    plain = [math.exp(beta * (r - best)) for r in returns]
    weights = exponential(beta)(doubles(returns))
    assert weights.tolist() == pytest.approx([w / sum(plain) for w in plain], rel=1e-9, abs=1e-300)


def kl_from_uniform(weights: np.ndarray) -> float:
    kept = weights[weights > 0]
    return float((kept * np.log(len(weights) * kept)).sum())


def primal_by_scipy(returns: np.ndarray, epsilon: float) -> np.ndarray:
    """max sum w J, such that KL(w || uniform) <= epsilon and sum w = 1, with nothing of the dual."""
    logs = lambda w: np.log(len(w) * np.clip(w, 1e-300, None))  # noqa: E731
    found = minimize(
        lambda w: -(w @ returns),
        np.full(len(returns), 1 / len(returns)),
        jac=lambda _: -returns,
        bounds=[(1e-12, 1)] * len(returns),
        constraints=[
            {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
            {"type": "ineq", "fun": lambda w: epsilon - w @ logs(w), "jac": lambda w: -(1 + logs(w))},
        ],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert found.success, found.message
    return found.x  # type: ignore[no-any-return]


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_reps_weights_solve_the_primal(epsilon: float, seed: int) -> None:
    returns = normal(seed, 12)
    weights = bounded_kl(epsilon)(returns).numpy()
    primal = primal_by_scipy(returns.numpy(), epsilon)
    assert weights @ returns.numpy() == pytest.approx(primal @ returns.numpy(), rel=1e-5)
    assert weights == pytest.approx(primal, abs=1e-4)
    assert kl_from_uniform(weights) == pytest.approx(epsilon, rel=1e-5)


@PROPERTY
@given(
    st.lists(st.integers(-1000, 1000), min_size=2, max_size=30, unique=True),
    st.floats(1e-4, 0.6),
    st.floats(1e-3, 1e6),
    st.floats(-1e6, 1e6),
)
def test_reps_weights_depend_neither_on_the_unit_nor_on_the_zero_of_returns(
    returns: list[int], epsilon: float, unit: float, zero: float
) -> None:
    whole = doubles(returns)
    weights = bounded_kl(epsilon)(whole)
    assert kl_from_uniform(weights.numpy()) == pytest.approx(epsilon, rel=1e-3, abs=1e-6)
    assert torch.allclose(bounded_kl(epsilon)(whole * unit), weights, atol=1e-4)
    assert torch.allclose(bounded_kl(epsilon)(whole + zero), weights, atol=1e-4)


def test_where_the_bound_allows_it_all_weight_goes_to_the_best() -> None:
    returns = doubles([1.0, 5.0, 4.9, 0.0])
    assert bounded_kl(math.log(4) + 0.1)(returns).tolist() == pytest.approx([0.0, 1.0, 0.0, 0.0], abs=1e-6)
    tied = doubles([5.0, 5.0, 4.0, 0.0])
    assert bounded_kl(1.0)(tied).tolist() == pytest.approx([0.5, 0.5, 0.0, 0.0], abs=1e-6)


def test_equal_returns_weigh_the_same() -> None:
    assert bounded_kl(0.3)(torch.full((5,), 7.0)).tolist() == pytest.approx([0.2] * 5)
    assert reps_temperature(torch.zeros(3), 0.1) > 0


# ---- first generations


@pytest.mark.parametrize("n", [1, 5, 12])
def test_the_first_generations_of_cem_are_those_of_szita_and_lorincz(n: int) -> None:
    mean, std, population, share, extra, generations = normal(0, n), 0.6, 20, 0.3, 2.0, 3
    search, generator = cem(mean, std, population, share, extra, generations), seeded(5)
    same = seeded(5)
    deviation = np.full(n, std)
    middle = mean.numpy()
    for t in range(5):
        thetas = middle + deviation * torch.randn(population, n, generator=same, dtype=torch.float64).numpy()
        assert torch.allclose(search.ask(generator), torch.from_numpy(thetas), rtol=1e-12)
        returns = earned(torch.from_numpy(thetas))
        search.tell(returns)
        best = thetas[np.argsort(-returns.numpy())[:6]]
        middle = best.mean(0)
        deviation = np.sqrt(best.var(0) + max(extra - extra * t / generations, 0.0))
        assert search.mean.numpy() == pytest.approx(middle, rel=1e-12)
        assert search.covariance.numpy() == pytest.approx(deviation**2, rel=1e-12)
        assert search.spread == pytest.approx(np.sqrt(np.mean(deviation**2)), rel=1e-12)
    assert search.num_parents == 6


def test_extra_noise_fades_to_nothing() -> None:
    noise = fading(5.0, 50)  # theirs: max(5 - t / 10, 0)
    assert [noise(t) for t in (0, 10, 49, 50, 1000)] == pytest.approx([5.0, 4.0, 0.1, 0.0, 0.0])


ADDED = "self._variances.add_(self._extra_variance(self.fits))"
FADING = "max(extra_noise - extra_noise * t / generations, 0.0)"
MISTAKES_OF_THE_FIT = {
    "the noise is added to the deviation": (ADDED, ADDED.replace("s.add_", "s.sqrt_().add_") + ".square_()"),
    "the variance is around the origin": ("away = thetas - mean", "away = thetas"),
    "the worst are the elite": ("descending=True", "descending=False"),
    "noise is counted by populations, not by fits": ("self._extra_variance(self.fits)", "self._extra_variance(0)"),
}
MISTAKES_OF_THE_NOISE = {
    "it never fades": (FADING, "extra_noise"),
    "it falls below zero": (FADING, "extra_noise - extra_noise * t / generations"),
    "it fades too early": (FADING, FADING.replace("* t", "* (t + 1)")),
}


@pytest.mark.parametrize("mistake", [*MISTAKES_OF_THE_FIT, *MISTAKES_OF_THE_NOISE])
def test_mistakes_in_cem_would_be_noticed(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if mistake in MISTAKES_OF_THE_FIT:
        fit = mutant(gaussian_search, MISTAKES_OF_THE_FIT[mistake])
        broken = mutant(cem_module, GaussianSearch=fit.GaussianSearch, elite=fit.elite)
    else:
        broken = mutant(cem_module, MISTAKES_OF_THE_NOISE[mistake])
    monkeypatch.setitem(globals(), "cem", broken.cem)
    with pytest.raises((AssertionError, RuntimeError)):
        test_the_first_generations_of_cem_are_those_of_szita_and_lorincz(5)


@pytest.mark.parametrize("full", [True, False])
def test_the_first_generation_of_cma_is_that_of_the_formulas(full: bool) -> None:
    """Hansen's tutorial (arXiv:1604.00772), section 4 and appendix A, at C = I; learning rates are pycma's."""
    n, population, std = 6, 14, 0.4
    mean = normal(0, n)
    search = CMA(mean, std, population, full)
    thetas = search.ask(seeded(2))
    returns = earned(thetas)
    rates, sigma = search._strategy.sp, search._strategy.adapt_sigma
    search.tell(returns)
    raw = math.log((population + 1) / 2) - torch.arange(1, population + 1, dtype=torch.float64).log()
    weights = raw[raw > 0] / raw[raw > 0].sum()
    order = returns.argsort(descending=True)
    parents = thetas[order[: len(weights)]]
    assert search.num_parents == len(weights) == population // 2
    assert torch.allclose(search.mean, weights @ parents, rtol=1e-12)
    mu_eff = 1 / weights.square().sum()
    moved = (search.mean - mean) / std
    path = (sigma.cs * (2 - sigma.cs) * mu_eff).sqrt() * moved
    expected_norm = math.sqrt(2) * math.gamma((n + 1) / 2) / math.gamma(n / 2)  # of a standard normal vector
    new_std = std * (sigma.cs / sigma.damps * (path.norm() / expected_norm - 1)).exp()
    # pycma begins with axes of lengths 1, 1.00001, 1.00002, ... so that none is like another.
    assert search._strategy.sigma == pytest.approx(new_std.item(), rel=1e-4 if full else 1e-12)
    if not full:
        return
    slow = (rates.cc * (2 - rates.cc) * mu_eff) ** 0.5 * moved
    steps = (thetas[order] - mean) / std
    every = doubles(list(rates.weights))  # positive ones add up to 1, the others are negative
    assert torch.allclose(every[: len(weights)], weights, rtol=1e-12)
    scaled = torch.where(every > 0, every, every * n / steps.square().sum(1))
    covariance = (1 - rates.c1 - rates.cmu * every.sum()) * torch.eye(n, dtype=torch.float64)
    covariance += rates.c1 * torch.outer(slow, slow) + rates.cmu * (steps.T * scaled) @ steps
    found = torch.from_numpy(search._strategy.sm.covariance_matrix)
    assert torch.allclose(found, covariance, atol=1e-4)
    assert search.spread == pytest.approx((new_std * covariance.diagonal().mean().sqrt()).item(), rel=1e-4)


# ---- what all of them promise


@pytest.mark.parametrize("name", MAKERS)
def test_a_search_finds_what_pays(name: str) -> None:
    search, generator = MAKERS[name](torch.zeros(3)), seeded(0)
    before = earned(search.mean[None]).item()
    for _ in range(60):
        search.tell(earned(search.ask(generator)))
    assert earned(search.mean[None]).item() > 0.2 * before  # nearer by more than half
    assert search.spread < 0.7


@pytest.mark.parametrize("name", MAKERS)
def test_a_search_goes_on_to_the_bit_from_its_state(name: str) -> None:
    search = MAKERS[name](torch.zeros(4))
    for t in range(5):
        thetas = search.ask(seeded(t))
        if t != 2:  # a population that was never told of
            search.tell(earned(thetas))
    saved = {key: tensor.clone() for key, tensor in search.state().items()}
    again = MAKERS[name](torch.ones(4) if "cma" not in name else torch.zeros(4))
    again.load_state(saved)
    for t in range(5, 9):
        one, other = search.ask(seeded(t)), again.ask(seeded(t))
        assert torch.equal(one, other)
        for each in (search, again):
            each.tell(earned(one))
        assert torch.equal(search.mean, again.mean)
        assert search.spread == again.spread
    for key, tensor in search.state().items():
        assert torch.equal(again.state()[key].nan_to_num(), tensor.nan_to_num())


@pytest.mark.parametrize("name", MAKERS)
def test_the_global_generators_are_neither_used_nor_touched(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002 (it is the global one that matters here)
        torch.manual_seed(seed)
        before = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
        search, generator = MAKERS[name](torch.zeros(4)), seeded(0)
        for _ in range(8):
            search.tell(earned(search.ask(generator)))
        search.load_state(search.state())
        found.append(search.ask(generator))
        assert (np.random.get_state()[1] == before[0]).all()  # type: ignore[index]  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), before[1])
    assert torch.equal(*found)
    assert capsys.readouterr() == ("", "")  # pycma likes to talk
    assert not list(tmp_path.iterdir())  # and to write


@pytest.mark.parametrize("name", MAKERS)
def test_what_cannot_be_told(name: str) -> None:
    search = MAKERS[name](torch.zeros(2))
    with pytest.raises(ValueError, match="tell comes after ask"):
        search.tell(torch.zeros(12))
    search.ask(seeded(0))
    with pytest.raises(ValueError, match="there are 12 thetas"):
        search.tell(torch.zeros(11))
    mean = search.mean.clone()
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="not finite"):
            search.tell(torch.full((12,), bad))
    assert torch.equal(search.mean, mean)
    search.tell(torch.arange(12.0))
    with pytest.raises(ValueError, match="tell comes after ask"):
        search.tell(torch.zeros(12))


@pytest.mark.parametrize("name", MAKERS)
def test_the_state_of_another_search_is_refused(name: str) -> None:
    search = MAKERS[name](torch.zeros(2))
    search.tell(earned(search.ask(seeded(0))))
    other = CMA(torch.zeros(2), 0.7, 11) if "cma" in name else MAKERS[name](torch.zeros(3))
    with pytest.raises(
        ValueError, match=r"not those of populations of 11|a covariance of shapes \(2,\) and .*, not \(3,\)"
    ):
        other.load_state(search.state())
    with pytest.raises(KeyError):
        search.load_state({})


@pytest.mark.parametrize("name", MAKERS)
def test_a_flat_landscape_moves_nothing_far(name: str) -> None:
    search, generator = MAKERS[name](torch.zeros(3)), seeded(0)
    for _ in range(20):
        search.tell(torch.zeros(12) * search.ask(generator)[:, 0])
    assert search.mean.isfinite().all()
    assert math.isfinite(search.spread)


def test_cma_learns_a_whole_matrix_only_where_parameters_are_few() -> None:
    assert CMA(torch.zeros(FULL_UP_TO), 1.0, 8).full
    assert not CMA(torch.zeros(FULL_UP_TO + 1), 1.0, 8).full
    # An ellipsoid whose axes are those of no parameter.
    turn = torch.linalg.qr(normal(1, 5, 5)).Q
    scales = 10.0 ** torch.linspace(0, 2, 5, dtype=torch.float64)
    left = {}
    for full in (True, False):
        search, generator = CMA(torch.ones(5), 0.5, 12, full), seeded(0)
        for _ in range(100):
            search.tell(-((search.ask(generator) @ turn * scales).square().sum(1)))
        left[full] = (search.mean @ turn * scales).square().sum().item()
    assert left[True] < 1e-3 * left[False]
