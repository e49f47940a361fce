"""Distributions against independent twins: torch.distributions, scipy, sums over all actions, integrals on a grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from helpers import PROPERTY, all_actions, doubles, normal, seeded
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from trpo_lessons.distributions import Categorical, DiagGaussian, Distribution, FactoredCategorical

SIZES = (3, 2, 4)
NAMES = ("categorical", "factored", "gaussian")


def build(name: str, seed: int = 0, num_states: int = 5, dtype: torch.dtype = torch.float64) -> Distribution:
    if name == "categorical":
        return Categorical(2 * normal(seed, num_states, 4, dtype=dtype))
    if name == "factored":
        return FactoredCategorical(2 * normal(seed, num_states, sum(SIZES), dtype=dtype), SIZES)
    return DiagGaussian(normal(seed, num_states, 3, dtype=dtype), 0.5 * normal(seed + 100, 3, dtype=dtype))


def twin(distribution: Distribution) -> torch.distributions.Distribution:
    """PyTorch's own distribution with the same parameters."""
    if isinstance(distribution, DiagGaussian):
        normals = torch.distributions.Normal(distribution.mean, distribution.log_std.exp())
        return torch.distributions.Independent(normals, 1)
    if isinstance(distribution, Categorical):
        return torch.distributions.Categorical(logits=distribution.logits)
    # Independent choices are one choice among all combinations; their logits add up.
    assert isinstance(distribution, FactoredCategorical)
    a, b, c = torch.split(distribution.logits, list(SIZES), dim=-1)
    joint = a[:, :, None, None] + b[:, None, :, None] + c[:, None, None, :]
    return torch.distributions.Categorical(logits=joint.flatten(1))


def twin_actions(distribution: Distribution, actions: Tensor) -> Tensor:
    """The same actions as the twin numbers them."""
    if isinstance(distribution, FactoredCategorical):
        return torch.from_numpy(np.ravel_multi_index(actions.T.numpy(), SIZES))
    return actions


# ---- against twins


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_entropy_and_kl_are_those_of_torch_distributions(name: str) -> None:
    old, new = build(name, 1), build(name, 2)
    actions = old.sample(seeded(0))
    exact = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(old.log_prob(actions), twin(old).log_prob(twin_actions(old, actions)), **exact)
    torch.testing.assert_close(old.entropy(), twin(old).entropy(), **exact)
    torch.testing.assert_close(old.kl(new), torch.distributions.kl_divergence(twin(old), twin(new)), **exact)
    assert old.kl(new).shape == old.entropy().shape == old.log_prob(actions).shape == (5,)


@pytest.mark.parametrize("name", ["categorical", "factored"])
def test_discrete_quantities_are_their_definitions_summed_over_every_action(name: str) -> None:
    old, new = build(name, 3), build(name, 4)
    total, entropy, kl = torch.zeros(3, 5, dtype=torch.float64)
    for action in all_actions(old):
        actions = action.expand(5, *action.shape)
        log_p, log_q = old.log_prob(actions), new.log_prob(actions)
        total += log_p.exp()
        entropy -= log_p.exp() * log_p
        kl += log_p.exp() * (log_p - log_q)
    torch.testing.assert_close(total, torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-13)
    torch.testing.assert_close(old.entropy(), entropy, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(old.kl(new), kl, rtol=1e-12, atol=1e-13)


def test_gaussian_quantities_are_their_definitions_integrated_on_a_grid() -> None:
    # For functions that vanish at both ends the trapezoid rule converges faster than any power of the spacing.
    old = DiagGaussian(doubles([[0.3, -1.0]]), doubles([0.2, -0.4]))
    new = DiagGaussian(doubles([[-0.2, -0.7]]), doubles([-0.1, 0.3]))
    z = torch.linspace(-12, 12, 301, dtype=torch.float64)
    grid = torch.cartesian_prod(z, z) * old.log_std.exp() + old.mean
    cell = old.log_std.exp().prod() * (z[1] - z[0]) ** 2
    log_p = DiagGaussian(old.mean.expand(len(grid), 2), old.log_std[0]).log_prob(grid)
    log_q = DiagGaussian(new.mean.expand(len(grid), 2), new.log_std[0]).log_prob(grid)
    p = log_p.exp() * cell
    assert p.sum().item() == pytest.approx(1, abs=1e-10)
    assert old.entropy().item() == pytest.approx(-(p * log_p).sum().item(), abs=1e-10)
    assert old.kl(new).item() == pytest.approx((p * (log_p - log_q)).sum().item(), abs=1e-10)


def test_gaussian_log_density_is_scipys() -> None:
    distribution = build("gaussian")
    actions = normal(9, 5, 3)
    expected = scipy.stats.norm(distribution.mean.numpy(), distribution.log_std.exp().numpy()).logpdf(actions.numpy())
    np.testing.assert_allclose(distribution.log_prob(actions).numpy(), expected.sum(-1), rtol=1e-12)


# ---- the order of KL


@pytest.mark.parametrize(
    ("old", "new", "forward", "backward"),
    [
        # 1/2 log(1/2 / 9/10) + 1/2 log(1/2 / 1/10), and 9/10 log(9/10 / 1/2) + 1/10 log(1/10 / 1/2)
        ([0.5, 0.5], [0.9, 0.1], math.log(5 / 3), 0.9 * math.log(1.8) + 0.1 * math.log(0.2)),
        ([0.2, 0.8], [0.2, 0.8], 0.0, 0.0),
    ],
)
def test_kl_is_old_relative_to_new_for_categorical(
    old: list[float], new: list[float], forward: float, backward: float
) -> None:
    p, q = (Categorical(doubles([probs]).log()) for probs in (old, new))
    assert p.kl(q).item() == pytest.approx(forward, abs=1e-12)
    assert q.kl(p).item() == pytest.approx(backward, abs=1e-12)


def test_kl_is_old_relative_to_new_for_gaussian() -> None:
    # KL(N(0, 1) || N(1, 4)) = log 2 + (1 + 1) / (2 * 4) - 1/2; the other way round -log 2 + (4 + 1) / 2 - 1/2.
    narrow = DiagGaussian(doubles([[0.0]]), doubles([0.0]))
    wide = DiagGaussian(doubles([[1.0]]), doubles([math.log(2)]))
    assert narrow.kl(wide).item() == pytest.approx(math.log(2) + 0.25 - 0.5, abs=1e-12)
    assert wide.kl(narrow).item() == pytest.approx(-math.log(2) + 2.5 - 0.5, abs=1e-12)


def test_kl_to_the_uniform_distribution_is_the_entropy_that_is_missing() -> None:
    distribution = build("categorical")
    uniform = Categorical(torch.zeros(5, 4, dtype=torch.float64))
    torch.testing.assert_close(distribution.kl(uniform), math.log(4) - distribution.entropy(), rtol=1e-12, atol=1e-12)


# ---- properties

moderate = st.floats(-5, 5)


@PROPERTY
@given(st.lists(st.tuples(moderate, moderate), min_size=2, max_size=6))
def test_categorical_kl_obeys_pinsker_and_vanishes_only_at_equality(pairs: list[tuple[float, float]]) -> None:
    p, q = (Categorical(doubles([logits])) for logits in zip(*pairs, strict=True))
    total_variation = 0.5 * (p.log_probs.exp() - q.log_probs.exp()).abs().sum().item()
    assert p.kl(q).item() >= 2 * total_variation**2 - 1e-13
    assert p.kl(p).item() == 0
    assert (p.kl(q).item() > 1e-13) or total_variation < 1e-6


@PROPERTY
@given(st.lists(st.tuples(moderate, moderate, st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=4))
def test_gaussian_kl_is_not_negative_and_vanishes_only_at_equality(rows: list[tuple[float, ...]]) -> None:
    mean_p, mean_q, log_std_p, log_std_q = (doubles([column]) for column in zip(*rows, strict=True))
    p, q = DiagGaussian(mean_p, log_std_p[0]), DiagGaussian(mean_q, log_std_q[0])
    difference = max((mean_p - mean_q).abs().max().item(), (log_std_p - log_std_q).abs().max().item())
    assert p.kl(q).item() >= 0
    assert p.kl(p).item() == 0
    assume(difference > 1e-6)
    assert p.kl(q).item() > 0


@PROPERTY
@given(st.integers(0, 10_000), st.floats(-50, 50))
def test_a_constant_added_to_all_logits_changes_nothing(seed: int, constant: float) -> None:
    logits, other = 2 * normal(seed, 3, 4), Categorical(normal(seed + 1, 3, 4))
    here, there = Categorical(logits), Categorical(logits + constant)
    for quantity in (lambda d: d.entropy(), lambda d: d.kl(other), lambda d: other.kl(d), lambda d: d.log_probs):
        torch.testing.assert_close(quantity(there), quantity(here), rtol=1e-10, atol=1e-10)


@PROPERTY
@given(st.integers(0, 10_000), st.floats(0.1, 10), moderate)
def test_gaussian_kl_does_not_depend_on_the_unit_of_the_action(seed: int, scale: float, shift: float) -> None:
    old, new = build("gaussian", seed), build("gaussian", seed + 1)
    in_other_units = [DiagGaussian(scale * d.mean + shift, d.log_std + math.log(scale)) for d in (old, new)]
    torch.testing.assert_close(in_other_units[0].kl(in_other_units[1]), old.kl(new), rtol=1e-9, atol=1e-10)


def test_a_tiny_gaussian_kl_keeps_its_digits_in_float32() -> None:
    # A step of 1e-4 in log sigma costs 1e-8 nats. The textbook formula subtracts numbers near 1 and returns noise.
    log_std = torch.tensor([1e-4, -3e-4, 1e-3])
    old, new = DiagGaussian(torch.zeros(3, 1), torch.zeros(1)), DiagGaussian(torch.zeros(3, 1), log_std[:, None])
    exact = (log_std.double() + 0.5 * torch.exp(-2 * log_std.double()) - 0.5).numpy()
    np.testing.assert_allclose(old.kl(new).numpy(), exact, rtol=2e-3)
    textbook = (log_std + 0.5 * torch.exp(-2 * log_std) - 0.5).numpy()
    assert (np.abs(textbook / exact - 1) > 2e-3).any()


def test_extreme_logits_stay_finite() -> None:
    sure = Categorical(torch.tensor([[0.0, -1e4], [1e4, 0.0]]))
    other = Categorical(torch.tensor([[-50.0, 50.0], [0.0, 0.0]]))
    for values in (sure.entropy(), sure.kl(other), other.kl(sure), sure.log_prob(torch.tensor([1, 1]))):
        assert values.isfinite().all()
    np.testing.assert_allclose(sure.kl(other).numpy(), [100, math.log(2)], rtol=1e-6)


# ---- sampling


@pytest.mark.parametrize("name", ["categorical", "factored"])
def test_actions_are_drawn_as_often_as_they_are_likely(name: str) -> None:
    one, draws = build(name, 5, num_states=1), 200_000
    many = one.__class__(one.logits.expand(draws, -1), *([SIZES] if name == "factored" else []))
    probs = twin(one).probs[0].numpy()
    counts = np.bincount(twin_actions(many, many.sample(seeded(1))), minlength=len(probs))
    standard_errors = np.sqrt(probs * (1 - probs) / draws)
    assert (np.abs(counts / draws - probs) < 4 * standard_errors).all()


def test_gaussian_samples_have_the_right_moments() -> None:
    draws, mean, std = 200_000, np.array([1.0, -2.0]), np.array([0.5, 3.0])
    distribution = DiagGaussian(torch.tensor(mean).expand(draws, 2), torch.tensor(std).log())
    z = (distribution.sample(seeded(2)).numpy() - mean) / std
    assert (np.abs(z.mean(0)) < 4 / math.sqrt(draws)).all()
    assert (np.abs(z.var(0) - 1) < 4 * math.sqrt(2 / draws)).all()
    assert abs((z[:, 0] * z[:, 1]).mean()) < 4 / math.sqrt(draws)
    assert scipy.stats.kstest(z[:, 0], "norm").pvalue > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_entropy_is_the_mean_of_minus_log_prob_over_samples(name: str) -> None:
    draws = 100_000
    parameters = [p[:1].expand(draws, -1) for p in build(name, 6).parameters]
    many = FactoredCategorical(*parameters, SIZES) if name == "factored" else build(name, 6).__class__(*parameters)
    surprise = -many.log_prob(many.sample(seeded(3)))
    standard_error = surprise.std().item() / math.sqrt(draws)
    assert abs(surprise.mean().item() - many.entropy()[0].item()) < 4 * standard_error


@pytest.mark.parametrize("name", NAMES)
def test_sampling_is_a_function_of_the_generator_alone(name: str) -> None:
    distribution = build(name)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, again, other = (distribution.sample(seeded(s)) for s in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"


@pytest.mark.parametrize("name", NAMES)
def test_equal_noise_gives_common_random_numbers(name: str) -> None:
    distribution = build(name, num_states=1000)
    assert torch.equal(distribution.sample(seeded(1)), distribution.sample_from(distribution.noise(seeded(1))))
    # The noise is the same whatever the parameters, and policies that nearly agree then act nearly alike.
    nudged = [p + 1e-3 for p in distribution.parameters]
    nudged[0] = distribution.parameters[0] + 1e-3 * normal(9, *distribution.parameters[0].shape)
    near = FactoredCategorical(*nudged, SIZES) if name == "factored" else distribution.__class__(*nudged)
    assert torch.equal(distribution.noise(seeded(1)), near.noise(seeded(1)))
    here, there = distribution.sample(seeded(1)).double(), near.sample(seeded(1)).double()
    independent = near.sample(seeded(2)).double()
    assert (here - there).abs().mean() < 0.02 * (here - independent).abs().mean()


@PROPERTY
@given(st.integers(0, 10_000))
def test_an_impossible_action_is_never_drawn(seed: int) -> None:
    # The largest number below 1 that torch.rand returns meets cumulative sums that rounding has left below it.
    logits = 3 * normal(seed, 50, 8, dtype=torch.float32)
    logits[:, -1] = -200.0
    distribution = Categorical(logits)
    actions = distribution.sample_from(torch.full((50, 1), 1 - 2**-24))
    assert (distribution.log_prob(actions) > -100).all()
    assert (Categorical(logits.flip(-1)).sample_from(torch.zeros(50, 1)) == 1).all()


@pytest.mark.parametrize("name", NAMES)
def test_mode_is_the_likeliest_action(name: str) -> None:
    distribution = build(name)
    best = distribution.log_prob(distribution.mode())
    if name == "gaussian":
        rivals = [distribution.mode() + step for step in (1e-3, -1e-3)]
    else:
        rivals = [action.expand(5, *action.shape) for action in all_actions(distribution)]
    assert all((distribution.log_prob(actions) <= best).all() for actions in rivals)
    assert distribution.mode().shape == distribution.sample(seeded(0)).shape


# ---- the Fisher metric


@pytest.mark.parametrize("name", NAMES)
def test_the_fisher_metric_is_the_hessian_of_kl_at_equality(name: str) -> None:
    distribution = build(name, 11, num_states=3)
    shapes = [p.shape for p in distribution.parameters]

    def distribution_from(flat: Tensor) -> Distribution:
        parts = [part.view(shape) for part, shape in zip(flat.split([s.numel() for s in shapes]), shapes, strict=True)]
        return FactoredCategorical(*parts, SIZES) if name == "factored" else distribution.__class__(*parts)

    flat = torch.cat([p.reshape(-1) for p in distribution.parameters])
    hessian = torch.autograd.functional.hessian(lambda x: distribution.kl(distribution_from(x)).sum(), flat)
    units = torch.eye(len(flat), dtype=torch.float64)
    columns = [distribution.fisher_metric(distribution_from(unit).parameters) for unit in units]
    metric = torch.stack([torch.cat([part.reshape(-1) for part in column]) for column in columns])
    torch.testing.assert_close(metric, hessian, rtol=1e-10, atol=1e-10)


# ---- constants, and bad input


@pytest.mark.parametrize("name", NAMES)
def test_detach_cuts_the_gradient_and_nothing_else(name: str) -> None:
    source = build(name)
    tracked = [p.clone().requires_grad_() for p in source.parameters]
    distribution = FactoredCategorical(*tracked, SIZES) if name == "factored" else source.__class__(*tracked)
    assert distribution.entropy().requires_grad
    assert not distribution.detach().entropy().requires_grad
    assert torch.equal(distribution.detach().kl(source), source.kl(source))


def test_factors_that_do_not_fit_the_logits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logits have 7 columns, but the factors \(3, 3, 2\) need 8"):
        FactoredCategorical(torch.zeros(1, 7), (3, 3, 2))


def test_one_log_std_serves_every_state_or_each_has_its_own() -> None:
    mean, log_std, actions = normal(0, 5, 3), normal(1, 3), normal(2, 5, 3)
    shared, repeated = DiagGaussian(mean, log_std), DiagGaussian(mean, log_std.repeat(5, 1))
    assert torch.equal(shared.log_prob(actions), repeated.log_prob(actions))
    assert shared.parameters[1].shape == (5, 3)
