"""What lesson 07 shows, computed a second time by other means; and the measurement that its section 6 rests on."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from trpo_lessons import mdp
from trpo_lessons.bench import gradient_batches as gb
from trpo_lessons.bench import gradient_subjects as gs
from trpo_lessons.bench import gradient_variance as gv
from trpo_lessons.kl import fisher_matrix
from trpo_lessons.policies import CategoricalHead, linear_policy
from trpo_lessons.surrogate import Batch, surrogate_gradient
from trpo_lessons.teaching.lesson_07 import check as checks
from trpo_lessons.teaching.lesson_07 import explorers as lesson
from trpo_lessons.teaching.lesson_07.hopper_vine import Fan, ahead_of_the_mean, draw_fans, draw_vine
from trpo_lessons.teaching.lesson_07.self_normalised import rollout_set as random_rollout_set
from trpo_lessons.teaching.lesson_07.self_normalised import weighted_means
from trpo_lessons.vine import all_actions_surrogate, self_normalised_surrogate

WORLD, PI, W = lesson.problem()
S, A = lesson.NUM_STATES, lesson.NUM_ACTIONS


# ---- the exact sums of the explorer


def test_overlaps_are_what_equal_uniforms_draw_together() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.dirichlet(np.ones(3), size=2), rng.dirichlet(np.ones(4), size=2)
    uniforms = torch.from_numpy((np.arange(200_000) + 0.5) / 200_000)
    for row in range(2):
        x, y = (mdp.draw(torch.from_numpy(p[row]).expand(len(uniforms), -1), uniforms) for p in (one, other))
        counted = torch.bincount(x * 4 + y, minlength=12).view(3, 4) / len(uniforms)
        np.testing.assert_allclose(lesson.overlaps(one, other)[row], counted, atol=1e-4)


def test_mean_returns_are_q_of_limited_length() -> None:
    V = np.zeros(S)
    for length in range(1, 41):
        Q = WORLD.r.numpy() + WORLD.gamma * WORLD.P.numpy() @ V
        V = (PI * Q).sum(1)
        if length in lesson.LENGTHS:
            np.testing.assert_allclose(lesson.moments(length).mean, Q, atol=1e-12)
    assert np.abs(Q - mdp.evaluate_policy(WORLD, PI).Q.numpy()).max() < 0.95**40 / 0.05


def simulated_returns(s: int, length: int, draws: int, seed: int) -> Tensor:
    """Returns [draws, A] of branches from s, one with each first action, all with the same uniforms."""
    uniforms = torch.from_numpy(np.random.default_rng(seed).random((2 * length, draws)))
    columns = []
    for first in range(A):
        state, total = torch.full((draws,), s), torch.zeros(draws, dtype=torch.float64)
        for t in range(length):
            pi = torch.from_numpy(PI)[state]
            action = torch.full((draws,), first) if t == 0 else mdp.draw(pi, uniforms[2 * t])
            total += WORLD.gamma**t * WORLD.r[state, action]
            state = mdp.draw(WORLD.P[state, action], uniforms[2 * t + 1])
        columns.append(total)
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize("s", [1, 4])
def test_products_of_branches_with_common_numbers_are_those_of_a_simulation(s: int) -> None:
    draws, found = 100_000, lesson.moments(8)
    returns = simulated_returns(s, 8, draws, seed=s)
    products = returns[:, :, None] * returns[:, None, :]
    errors = products.std(0) / math.sqrt(draws)
    assert (torch.from_numpy(found.common[s]) - products.mean(0)).abs().le(4 * errors + 1e-12).all()
    np.testing.assert_array_equal(found.second, np.diagonal(found.common, axis1=1, axis2=2))
    own = np.outer(found.mean[s], found.mean[s])
    assert found.common[s][0, 1] > own[0, 1] + 4 * float(errors[0, 1]), "the branches have much in common"


@pytest.mark.parametrize("first_actions", lesson.FIRST_ACTIONS)
@pytest.mark.parametrize("numbers", [lesson.COMMON, lesson.OWN])
def test_mean_and_variance_of_a_gradient_are_those_of_a_simulation(first_actions: str, numbers: str) -> None:
    rng, draws, length = np.random.default_rng(5), 60_000, 5
    rows, squares = np.zeros((S, A)), []
    for s in range(S):
        K = lesson.num_branches(first_actions)
        common = simulated_returns(s, length, draws, seed=10 + s).numpy()
        if first_actions == lesson.EACH_ONCE:
            actions, weights = np.tile(np.arange(A), (draws, 1)), np.tile(PI[s], (draws, 1))
        else:
            actions, weights = (rng.random((draws, K)) >= PI[s, 0]).astype(int), np.full((draws, K), 1 / K)
        if numbers == lesson.COMMON:
            Q = np.take_along_axis(common, actions, axis=1)
        else:
            separate = np.stack([simulated_returns(s, length, draws, 100 * s + 10 * k + 7).numpy() for k in range(K)])
            Q = np.take_along_axis(separate, actions.T[..., None], axis=2)[..., 0].T
        scores = np.eye(A)[actions] - PI[s]  # [draws, K, A]
        terms = np.einsum("nk,nk,nka->na", weights, Q - (weights * Q).sum(1, keepdims=True), scores)
        rows[s], _ = W[s] * terms.mean(0), squares.append(W[s] * (terms**2).sum(1).mean())
    mean, variance = lesson.gradient_of_one_state(first_actions, length, numbers)
    np.testing.assert_allclose(mean, rows, atol=0.02 * np.abs(rows).max())
    assert variance == pytest.approx(sum(squares) - (rows**2).sum(), rel=0.05)


def test_means_are_the_factor_times_the_gradient_with_q_of_limited_length() -> None:
    Q = lesson.moments(8).mean
    expected = W[:, None] * PI * (Q - (PI * Q).sum(1, keepdims=True))
    for name in lesson.FIRST_ACTIONS:
        K = lesson.num_branches(name)
        factor = 1.0 if name == lesson.EACH_ONCE else (K - 1) / K
        for numbers in (lesson.COMMON, lesson.OWN):
            mean, _ = lesson.gradient_of_one_state(name, 8, numbers)
            np.testing.assert_allclose(mean, factor * expected, atol=1e-13)


def test_the_true_gradient_is_that_of_autodiff() -> None:
    logits = torch.from_numpy(np.log(PI)).requires_grad_()
    Q = mdp.evaluate_policy(WORLD, PI).Q
    (gradient,) = torch.autograd.grad((torch.from_numpy(W)[:, None] * logits.softmax(1) * Q).sum(), logits)
    np.testing.assert_allclose(lesson.true_gradient(), gradient.numpy(), atol=1e-14)
    chain = np.einsum("sa,sat->st", PI, WORLD.P.numpy())
    np.testing.assert_allclose(W @ chain, W, atol=1e-13)


def test_cost_and_error_behave_as_the_lesson_says() -> None:
    here = lesson.compute_trade("4 drawn", 12, 100, lesson.COMMON)
    assert here.cost == 100 * (8 + 48)
    assert 1.9 < (here.other.noise / here.here.noise) ** 2 < 2.2, "about twice as many steps without common numbers"
    for row in here.by_length.values():
        assert lesson.LENGTHS[row.argmin()] in (5, 8)
        assert row[0] == pytest.approx(1)
    large = lesson.compute_trade(lesson.EACH_ONCE, 8, 3000, lesson.COMMON)
    assert large.here.bias > 2 * large.here.noise
    best = [lesson.compute_trade(lesson.EACH_ONCE, 8, n, lesson.COMMON).by_length[lesson.EACH_ONCE] for n in (30, 3000)]
    assert best[0].argmin() < best[1].argmin(), "more steps, longer rollouts"
    assert lesson.errors("4 drawn", 12, 400, lesson.OWN).noise == pytest.approx(here.other.noise / 2)
    for numbers in (lesson.COMMON, lesson.OWN):
        drawn, each = (lesson.errors(name, 12, 100, numbers).noise for name in ("2 drawn", lesson.EACH_ONCE))
        assert each < 0.7 * drawn


# ---- noise and signal


def made_up(batches: int, seed: int, factor: float = 1.0, turned: float = 0.0) -> gb.Gradients:
    """Gradients with mean `factor` * (3, 0, ..., 0), turned into the second coordinate, and a variance of 2 in each."""
    rng = np.random.default_rng(seed)
    mean = np.zeros(20)
    mean[:2] = 3 * math.cos(turned), 3 * math.sin(turned)
    return gb.Gradients(torch.from_numpy(factor * (mean + math.sqrt(2) * rng.normal(size=(batches, 20)))), 500.0)


def test_noise_is_what_it_was_made_with() -> None:
    reference = made_up(400, 1)
    found = gv.noise(made_up(300, 2), reference)
    assert found.steps == pytest.approx(500 * 20 * 2 / 9, rel=0.1)
    low, high = found.interval()
    assert low < 500 * 20 * 2 / 9 < high
    assert high / low < 1.4
    assert found.aligned == pytest.approx(1, abs=0.02)
    tripled = gv.noise(made_up(300, 2, factor=3.0), reference)
    assert tripled.steps == pytest.approx(found.steps), "a factor changes nothing"
    ratio, low, high = tripled.times(found)
    assert (ratio, low, high) == pytest.approx((1, 1, 1))


def test_a_noisy_reference_does_not_flatter_or_punish() -> None:
    steps = [gv.noise(made_up(300, seed), made_up(8, 50 + seed)).steps for seed in range(20)]
    error = np.std(steps, ddof=1) / math.sqrt(20)
    assert abs(np.mean(steps) - 500 * 20 * 2 / 9) < 4 * error


def test_a_gradient_that_points_elsewhere_is_found_out() -> None:
    found = gv.noise(made_up(300, 2, turned=math.pi / 4), made_up(400, 1))
    assert found.aligned == pytest.approx(math.cos(math.pi / 4), abs=0.03)
    assert found.steps == pytest.approx(500 * 20 * 2 / (9 / 2), rel=0.15)
    nothing = gv.noise(gb.Gradients(-made_up(50, 2).rows, 500.0), made_up(400, 1))
    assert nothing.aligned == 0
    assert nothing.steps >= 1e12


def test_the_natural_ruler_measures_with_the_damped_fisher_matrix() -> None:
    subject = gs.load_subject("cartpole")
    ruler = gv.natural_ruler(subject, num_states=256)
    env, raw_obs, generator = gs.long_run(subject, 9)
    obs = gs.follow(subject, env, raw_obs, 16, generator).obs.transpose(0, 1).flatten(0, 1)
    A = fisher_matrix(subject.policy, subject.theta.double(), obs.double())
    g = torch.from_numpy(np.random.default_rng(0).normal(size=(2, len(A))))
    expected = g @ torch.linalg.solve(A + gv.DAMPING * torch.eye(len(A)), g.T)
    rows = ruler(g)
    torch.testing.assert_close(rows @ rows.T, expected, rtol=1e-6, atol=1e-8)


# ---- the two schemes


def test_batches_of_a_single_path_are_pieces_of_one_run() -> None:
    subject = gs.load_subject("cartpole")
    many, one = (gb.single_path_gradients(subject, batches, 320 // batches, seed=4) for batches in (10, 1))
    assert many.keys() == {gb.RETURNS, gb.MEAN_OFF, gb.VALUE_OFF, gb.GAE}
    for name in (gb.RETURNS, gb.VALUE_OFF, gb.GAE):
        torch.testing.assert_close(many[name].rows.mean(0), one[name].rows[0], rtol=1e-4, atol=1e-5)
        assert many[name].steps == 32 * gs.NUM_ENVS
    assert (many[gb.MEAN_OFF].rows - many[gb.RETURNS].rows).abs().max() > 0.01


def test_a_vine_pays_for_trunk_and_branches_and_keeps_to_its_budget() -> None:
    subject, settings = gs.load_subject("cartpole"), gb.VineSettings(2, 12)
    found = list(itertools.islice(gb.vines(subject, settings, 1024, seed=3), 4))
    paid = [vine.trunk.num_steps + int(vine.lengths.sum()) for vine in found]
    gradients = gb.vine_gradients(subject, settings, 4, 1024, seed=3)
    assert gradients.steps == pytest.approx(np.mean(paid))
    assert all(abs(steps - 1024) < 0.2 * 1024 for steps in paid)
    surrogates = [
        surrogate_gradient(subject.policy, subject.theta, v.rollout_set, all_actions_surrogate) for v in found
    ]
    torch.testing.assert_close(gradients.rows, torch.stack(surrogates).double())
    following = itertools.pairwise(found)
    assert all(torch.equal(one.trunk.next_obs, two.trunk.raw_obs[0]) for one, two in following), "one run goes on"
    hopper = gs.load_subject("hopper")
    [vine] = itertools.islice(gb.vines(hopper, gb.VineSettings(3, 2, common=False), 300, seed=3), 1)
    assert vine.rollout_set.actions.shape[1:] == (3, 3)
    gv_gradient = gb.vine_gradients(hopper, gb.VineSettings(3, 2, common=False), 1, 300, seed=3).rows[0]
    expected = surrogate_gradient(hopper.policy, hopper.theta, vine.rollout_set, self_normalised_surrogate)
    torch.testing.assert_close(gv_gradient, expected.double())


def test_settings_have_names() -> None:
    assert gb.VineSettings(2, 30).name == "K 2, length 30"
    assert gb.VineSettings(4, 10, common=False, value_at_cut=True).name == (
        "K 4, length 10, V at the cut, own random numbers"
    )


@pytest.mark.parametrize("name", list(gs.TRAINING))
def test_every_subject_can_be_loaded_and_acts(name: str) -> None:
    subject = gs.load_subject(name)
    env = subject.env(3, seed=0)
    obs, _ = env.reset()
    assert subject.pi_old(obs).sample(torch.Generator().manual_seed(0)).shape[0] == 3
    assert not subject.pi_old(obs).parameters[0].requires_grad
    assert subject.value(subject.statistics.normalise(torch.as_tensor(obs))).isfinite().all()
    assert subject.gamma == (0.995 if name == "hopping" else 0.99)


def test_a_trained_subject_is_the_one_that_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = gs.TRAINING["cartpole"] | {"iterations": 1, "steps_per_iteration": 256}
    monkeypatch.setitem(gs.TRAINING, "once", short | {"task": "cartpole"})
    assert len(gs.train_subject("once", tmp_path)) == 1
    tensors, subject = load_file(tmp_path / "once.safetensors"), gs.load_subject("once", tmp_path)
    assert subject.task == "cartpole"
    torch.testing.assert_close(subject.theta, tensors["theta"], rtol=0, atol=0)
    assert subject.statistics.count == tensors["statistics.count"] == 256
    obs = torch.zeros(3, 4)
    assert subject.value(obs).shape == (3,)
    with pytest.raises(KeyError):
        gs.load_subject("unknown", tmp_path)


def test_early_copies_of_the_lesson_find_what_they_import() -> None:
    assert all(hasattr(gv, name) for name in gv.__all__)
    assert gv.load_subject is gs.load_subject
    assert gv.vine_gradients is gb.vine_gradients


# ---- the recording


@cache
def natural(task: str, name: str) -> dict[str, Any]:
    row: dict[str, Any] = gv.recorded(task)["estimators"][name]["natural"]
    return row


def steps(task: str, name: str) -> float:
    return float(natural(task, name)["steps"])


@pytest.mark.parametrize("task", ["cartpole", "hopper"])
def test_the_recording_says_how_it_was_made(task: str) -> None:
    kept = gv.recorded(task)
    assert kept["command"] == f"python -m trpo_lessons.bench.gradient_variance measure {task}"
    assert kept["batches"] == gv.BATCHES[task]
    assert kept["batch_steps"] == gv.BATCH_STEPS[task]
    assert kept["gamma"] == gs.load_subject(task).gamma
    assert kept["training"] == {key: list(v) if isinstance(v, tuple) else v for key, v in gs.TRAINING[task].items()}
    assert kept["seeds"] == gv.SEED
    assert kept["versions"].keys() == {"torch", "numpy", "gymnasium", "mujoco"}
    expected = {f"vine: {each.name}" for each in gv.VINES[task]}
    assert {name for name in kept["estimators"] if name.startswith("vine")} == expected
    for row in kept["estimators"].values():
        for kind in ("natural", "parameters"):
            low, high = row[kind]["interval"]
            assert 0 < low < row[kind]["steps"] < high
    for name, row in kept["estimators"].items():  # batches cost what they should; a vine of few states is rounded
        if "500" not in name and "length 100" not in name:
            assert row["steps_per_batch"] == pytest.approx(kept["batch_steps"], rel=0.06), name
    halves = gv.recorded_reference(task).rows
    assert halves.shape == (2, gs.load_subject(task).policy.num_parameters)
    assert torch.cosine_similarity(*halves, dim=0) > 0.8


def test_what_the_lesson_says_of_the_recording_is_so() -> None:
    path, cart, hop = "single path: ", "cartpole", "hopper"
    low, high = natural(hop, "vine: K 4, length 100")["times_returns"][1:]
    assert (round(low, 2), round(high, 2)) == (0.12, 0.32)
    assert natural(hop, "vine: K 4, length 100")["times_returns"][0] == pytest.approx(0.2, abs=0.005)
    ratio, low, high = natural(cart, "vine: K 2, length 500")["times_returns"]
    assert (round(ratio), round(low, 1), round(high, 1)) == (4, 2.3, 7.6)
    level = natural(hop, path + gb.MEAN_OFF)["interval"], natural(hop, "vine: K 4, length 100")["interval"]
    assert level[0][0] < level[1][1]
    assert level[1][0] < level[0][1], "drawn level"
    short = {cart: "vine: K 2, length 10, V at the cut", hop: "vine: K 4, length 10, V at the cut"}
    for task, times in ((cart, 2.6), (hop, 5.2)):
        assert steps(task, short[task]) / steps(task, path + gb.GAE) == pytest.approx(times, abs=0.05)
        assert natural(task, path + gb.GAE)["interval"][1] < natural(task, short[task])["interval"][0]
        best = min(steps(task, name) for name in gv.recorded(task)["estimators"] if name.startswith("vine"))
        assert best == steps(task, short[task]), "the best vines here"
    assert 45 < steps(hop, path + gb.RETURNS) / steps(hop, path + gb.VALUE_OFF) < 50
    own = ", own random numbers"
    assert 6 < steps(hop, "vine: K 4, length 100" + own) / steps(hop, "vine: K 4, length 100") < 6.5
    assert 1.8 < steps(hop, short[hop] + own) / steps(hop, short[hop]) < 2.1
    assert natural(cart, "vine: K 2, length 30")["aligned_interval"][1] < 0.98
    assert natural(cart, "vine: K 2, length 30")["aligned"] == pytest.approx(0.93, abs=0.005)
    assert natural(hop, short[hop])["aligned"] == pytest.approx(0.96, abs=0.005)


def test_for_the_hopper_that_hops_it_is_a_draw() -> None:
    task, vine = "hopping", "vine: K 4, length 10, V at the cut"
    assert gv.recorded(task)["batches"] == gv.BATCHES[task]
    assert steps(task, f"single path: {gb.GAE}") == pytest.approx(88_000, abs=500)
    assert steps(task, vine) == pytest.approx(120_000, abs=5_000)
    gae, branches = (natural(task, name)["interval"] for name in (f"single path: {gb.GAE}", vine))
    assert gae[0] < branches[0] < gae[1] < branches[1], "the intervals overlap widely"
    assert 6 < steps(task, vine + ", own random numbers") / steps(task, vine) < 7
    assert 7 < steps(task, f"single path: {gb.VALUE_OFF}") / steps(task, f"single path: {gb.GAE}") < 8
    assert steps(task, f"single path: {gb.RETURNS}") > 4e6


def test_a_short_measurement_has_every_row_of_the_recorded_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gv, "BOOTSTRAPS", 20)
    monkeypatch.setitem(gv.VINES, "cartpole", [gb.VineSettings(2, 4), gb.VineSettings(2, 4, value_at_cut=True)])
    facts, halves = gv.measure("cartpole", 4)
    kept = gv.recorded("cartpole")
    assert facts.keys() == kept.keys()
    assert len(facts["estimators"]) == 6
    assert all(row.keys() == {"steps_per_batch", "natural", "parameters"} for row in facts["estimators"].values())
    assert halves.shape == (2, gs.load_subject("cartpole").policy.num_parameters)


def test_tasks_without_a_measurement_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["gradient_variance", "measure", "swimmer"])
    with pytest.raises(SystemExit) as stopped:
        gv.main()
    assert stopped.value.code == 2
    assert "gradients are measured on cartpole and hopper and hopping" in capsys.readouterr().err


# ---- pictures and exercises


def fan(lengths: tuple[int, ...], seed: int = 0) -> Fan:
    rng = np.random.default_rng(seed)
    steps_of = [0.05 * rng.random((length, 6)) for length in lengths]
    paths = [np.array([0, 1.2, 0, 0, 0, 0]) + np.vstack([np.zeros(6), each.cumsum(0)]) for each in steps_of]
    return Fan(paths, rng.normal(size=len(lengths)))


def test_numbers_keep_apart_where_states_are_close() -> None:
    figure, fans = plt.figure(figsize=(8.4, 3.6)), [fan((4, 3)), fan((5, 5), seed=1), fan((3, 3), seed=2)]
    draw_vine(figure, gs.load_subject("hopping").env(1, 0).model, np.cumsum(np.full((9, 6), 0.1), axis=0), fans)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 6, "every state twice, and here all begin in one place"
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    plt.close("all")


def test_equation_17_with_few_branches_is_off_as_the_lesson_says() -> None:
    """By a sum over counts of another kind: all draws one by one."""
    pi, Q = np.array([0.1, 0.2, 0.55, 0.15]), np.array([1.0, 3.0, 4.0, 5.0])
    exact = pi * (Q - pi @ Q)
    for K, cosine in ((2, 0.914), (4, 0.971)):
        mean = np.zeros(4)
        for draw in itertools.product(range(4), repeat=K):
            a = list(draw)
            shares = pi[a] / pi[a].sum()  # uniform q: the weights are proportional to pi
            slope = shares * (Q[a] - shares @ Q[a])
            mean += 0.25**K * (np.eye(4)[a].T @ slope - pi * slope.sum())
        assert mean @ exact / np.linalg.norm(mean) / np.linalg.norm(exact) == pytest.approx(cosine, abs=0.0005)


def test_distances_are_in_centimeters_from_the_mean_of_those_that_go_on() -> None:
    flat = [np.zeros((length, 6)) for length in (3, 3, 2)]
    for path, x in zip(flat, (0.01, 0.03, 0.05), strict=True):
        path[1:, 0] = x
    first, second, third = ahead_of_the_mean(Fan(flat, np.zeros(3)))
    np.testing.assert_allclose(first, [0, -2, -1], atol=1e-12)
    np.testing.assert_allclose(second, [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(third, [0, 2], atol=1e-12)


def test_the_figure_holds_trunk_states_and_branches() -> None:
    figure, fans = plt.figure(), [fan((4, 3)), fan((5, 5), seed=1)]
    trunk = np.cumsum(np.full((9, 6), 0.1), axis=0)
    draw_vine(figure, gs.load_subject("hopping").env(1, 0).model, trunk, fans)
    axes = figure.axes[0]
    lines = [collection for collection in axes.collections if len(collection.get_paths()) == 2]
    drawn = [path.vertices for collection in lines for path in collection.get_paths()]
    expected = [path[:, [0, 1]] for each in fans for path in each.paths]
    assert all(any(np.array_equal(one, other) for other in drawn) for one in expected)
    curves = [line.get_xydata() for line in axes.lines]
    assert any(np.array_equal(curve, trunk[:, [0, 1]]) for curve in curves)
    assert [text.get_text() for text in axes.texts] == ["1", "1", "2", "2"], "each state's number, at both ends"
    for number, each in ((1, fans[0]), (2, fans[1])):
        at_start, at_end = (text.xy for text in axes.texts if text.get_text() == str(number))
        np.testing.assert_array_equal(at_start, each.paths[0][0, [0, 1]])
        assert any(np.array_equal(at_end, path[-1, [0, 1]]) for path in each.paths)
    figure = plt.figure()
    draw_fans(figure, {"one": fans[0], "other": fans[1]})
    assert [len(axes.lines) for axes in figure.axes] == [2, 2]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    plt.close("all")


def test_the_alternative_text_names_the_lowest_points() -> None:
    trade = lesson.compute_trade("4 drawn", 12, 100, lesson.COMMON)
    lowest = {name: lesson.LENGTHS[row.argmin()] for name, row in trade.by_length.items()}
    text = lesson.alt_of_trade(trade)
    assert all(f"{length} with {name}" in text for name, length in lowest.items())
    for name, row in trade.by_length.items():  # "falls and rises again"
        assert 0 < row.argmin() < len(row) - 1, name
        turns = np.sign(np.diff(row))
        assert (np.diff(turns) >= 0).all(), name


ALL_VINES = list(
    itertools.product(lesson.FIRST_ACTIONS, lesson.LENGTHS, (10, 30, 100, 300, 1000, 3000), (lesson.COMMON, lesson.OWN))
)


def test_all_vines_are_inside_the_picture_and_its_description_is_true_of_them() -> None:
    assert [control.start for control in lesson.trade_explorer().controls.values()] == ["4 drawn", 12, 100, "common"]
    figure = plt.figure()
    lesson.draw_trade(lesson.compute_trade("4 drawn", 12, 100, lesson.COMMON), figure)
    (least_cost, greatest_cost), (least, greatest) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    for setting in ALL_VINES:
        trade = lesson.compute_trade(*setting)
        assert least_cost < trade.cost < greatest_cost
        assert least < 100 * trade.here.total < greatest
        for row in trade.by_length.values():
            assert 100 * row.max() < greatest
            lowest = int(row.argmin())
            assert 0 < lowest < len(row) - 1, "falls and rises again"
            assert (np.diff(row[: lowest + 1]) < 0).all()
            assert (np.diff(row[lowest:]) > 0).all()
    plt.close("all")


def equation_17(pi_old: Any, pi: Any, Q: Any, K: int) -> float:
    """The mean of equation 17 over all draws of K first actions from pi_old."""
    total = 0.0
    for draw in itertools.product(range(len(Q)), repeat=K):
        a = list(draw)
        weights = pi[a] / pi_old[a]
        total += pi_old[a].prod() * (weights @ Q[a]) / weights.sum()
    return total


def test_equation_17_sees_too_little_of_a_gain_nearby_and_may_see_too_much_far_away() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        pi_old, Q = rng.dirichlet(np.ones(3)), rng.normal(size=3)
        nearby = pi_old * np.exp(1e-5 * Q)
        nearby /= nearby.sum()
        for K in (2, 4):
            gain = equation_17(pi_old, nearby, Q, K) - pi_old @ Q
            assert gain / (nearby @ Q - pi_old @ Q) == pytest.approx((K - 1) / K, rel=1e-3)
    pi_old, pi = np.array([0.052, 0.301, 0.019, 0.628]), np.array([0.250, 0.471, 0.214, 0.065])
    Q = np.array([0.54, 1.33, -0.61, -0.1])
    assert pi_old @ Q < pi @ Q < equation_17(pi_old, pi, Q, 4) - 0.1


def test_a_policy_may_be_asked_in_vain_for_the_first_action() -> None:
    def asks_first(
        step: Any, state: Any, first_action: int, policy: Any, noise: Any, gamma: float, value: Any
    ) -> float:
        policy(state, noise[0, 0])
        return float(checks.branch_value.reference(step, state, first_action, policy, noise, gamma, value))

    assert checks.branch_value.outcome(asks_first).status == "passed"


def test_a_number_of_states_is_an_integer() -> None:
    def floored(budget: int, trunk_steps: int, num_branches: int, length: int) -> Any:
        return np.floor((budget - trunk_steps) / (num_branches * length))

    assert "of type int" in checks.affordable_states.outcome(floored).line
    assert checks.affordable_states.outcome(lambda *sizes: np.int64(floored(*sizes))).status == "passed"


def slips_in_choosing() -> dict[str, Any]:
    def rounds_up_and_takes_one_off(lengths: Any, uniforms: Any) -> Any:
        which = np.ceil(uniforms * lengths.sum()).astype(np.int64) - 1
        ends = np.cumsum(lengths)
        trajectory = np.searchsorted(ends, which, side="right")
        return np.stack([trajectory, which - (ends - lengths)[trajectory]], axis=1)

    def in_a_table_of_a_thousand(lengths: Any, uniforms: Any) -> Any:
        table = [(e, t) for e, length in enumerate(lengths) for t in range(min(length, 1000))]
        return np.array(table)[(uniforms * len(table)).astype(np.int64)]

    def from_floors(floors: Any) -> Any:
        def chooser(lengths: Any, uniforms: Any) -> Any:
            which, ends = floors(uniforms, lengths), np.cumsum(lengths)
            trajectory = np.searchsorted(ends, which, side="right")
            return np.stack([trajectory, which - (ends - lengths)[trajectory]], axis=1)

        return chooser

    def adds_a_little(uniforms: Any, lengths: Any) -> Any:
        return (uniforms * lengths.sum() + 1e-9).astype(np.int64)

    def sums_in_their_own_type(uniforms: Any, lengths: Any) -> Any:
        return (uniforms * np.sum(lengths, dtype=lengths.dtype)).astype(np.int64)

    def ranks(uniforms: Any, lengths: Any) -> Any:
        return np.argsort(np.argsort(uniforms)) % lengths.sum()

    def leaves_out_single_steps(lengths: Any, uniforms: Any) -> Any:
        kept = np.flatnonzero(lengths > 1)
        trajectory, step = checks.choose_states.reference(lengths[kept], uniforms).T
        return np.stack([kept[trajectory], step], axis=1)

    def a_list(lengths: Any, uniforms: Any) -> Any:
        return np.array(checks.choose_states.reference(lengths, uniforms).tolist())

    return {
        "there is no step for 1": from_floors(adds_a_little),
        "wraps around": from_floors(sums_in_their_own_type),
        "The same number twice": from_floors(ranks),
        "A trajectory of a single step goes wrong": leaves_out_single_steps,
        "reshape(-1, 2) gives it back": a_list,
        "Numbers that hit a step exactly go wrong": rounds_up_and_takes_one_off,
        "many thousands of steps": in_a_table_of_a_thousand,
    }


@pytest.mark.parametrize("words", slips_in_choosing())
def test_slips_in_choosing_states_are_named(words: str) -> None:
    assert words in checks.choose_states.outcome(slips_in_choosing()[words]).line


def slips_in_branches() -> dict[str, Any]:
    def handles_the_first_step_alone(
        step: Any, state: Any, first_action: int, policy: Any, noise: Any, gamma: float, value: Any
    ) -> float:
        state, total, ended = step(state, first_action, noise[0, 1])
        for t in range(1, len(noise)):
            state, reward, ended = step(state, policy(state, noise[t, 0]), noise[t, 1])
            total += gamma**t * reward
            if ended:
                return float(total)
        return float(total + (0 if ended else gamma ** len(noise) * value(state)))

    def looks_for_an_end_before_the_last_row(
        step: Any, state: Any, action: int, policy: Any, noise: Any, gamma: float, value: Any
    ) -> float:
        total = 0.0
        for t, (number, luck) in enumerate(noise):
            action = policy(state, number) if t else action
            state, reward, ended = step(state, action, luck)
            total += gamma**t * reward
            if t == len(noise) - 1:
                return float(total + gamma ** len(noise) * value(state))
            if ended:
                break
        return float(total)

    def a_hundred_steps(step: Any, state: Any, action: int, policy: Any, noise: Any, *others: Any) -> float:
        return float(checks.branch_value.reference(step, state, action, policy, noise[:100], *others))

    def asks_for_true(step: Any, state: Any, action: int, policy: Any, noise: Any, gamma: float, value: Any) -> float:
        total = 0.0
        for t, (number, luck) in enumerate(noise):
            action = policy(state, number) if t else action
            state, reward, ended = step(state, action, luck)
            total += gamma**t * reward
            if ended is True:
                return float(total)
        return float(total + gamma ** len(noise) * value(state))

    def in_the_rewards_type(step: Any, *others: Any) -> float:
        rewards: list[Any] = []

        def listed(state: Any, action: int, luck: float) -> Any:
            then, reward, ended = step(state, action, luck)
            rewards.append(reward)
            return then, reward, ended

        found = checks.branch_value.reference(listed, *others)
        return float(np.array([found], dtype=np.array(rewards).dtype)[0])

    def variant(
        discount: Any = lambda gamma, t: gamma**t, steps_on: bool = False, worth: Any = lambda V: V, small: float = 0.0
    ) -> Any:
        def branch(step: Any, state: Any, first: int, policy: Any, noise: Any, gamma: float, value: Any) -> float:
            total, alive = 0.0, True
            for t, (number, luck) in enumerate(noise):
                state, reward, ended = step(state, policy(state, number) if t else first, luck)
                total += alive * discount(gamma, t) * reward
                alive = alive and not ended
                if discount(gamma, t) < small or not (alive or steps_on):
                    return float(total)
            return float(total + alive * discount(gamma, len(noise)) * worth(value(state)))

        return branch

    return {
        "With gamma = 0 nothing": variant(discount=lambda gamma, t: math.exp(t * math.log(gamma))),
        "With gamma = 1 the value": variant(discount=lambda gamma, t: (gamma**t - gamma ** (t + 1)) / (1 - gamma)),
        "because its discount is small": variant(small=1e-10),
        "and one of -1": variant(worth=lambda V: max(V, 0)),
        "not in its last ones": variant(discount=lambda gamma, t: float(np.float32(gamma) ** np.float32(t))),
        "stepped again after it has said": variant(steps_on=True),
        "You write `first_action or ...`": lambda step, state, first, policy, noise, *others: variant()(
            step, state, first or policy(state, noise[0, 0]), policy, noise, *others
        ),
        "very first step ends the episode": handles_the_first_step_alone,
        "An end in the very last row": looks_for_an_end_before_the_last_row,
        "A branch of 600 steps": a_hundred_steps,
        "asks for one certain object": asks_for_true,
        "whole numbers, as cart-pole's are": in_the_rewards_type,
    }


@pytest.mark.parametrize("words", slips_in_branches())
def test_slips_in_branches_are_named(words: str) -> None:
    assert words in checks.branch_value.outcome(slips_in_branches()[words]).line


def test_slips_in_dealing_numbers_are_named() -> None:
    right = checks.random_numbers.reference

    def squeezes(fresh: Any, *sizes: int) -> Any:
        return tuple(each.squeeze() for each in right(fresh, *sizes))

    def own_generator(fresh: Any, *sizes: int) -> Any:
        fresh(1)
        rng = np.random.default_rng()
        return right(lambda *shape: rng.random(shape), *sizes)

    def repeats_after_a_hundred(fresh: Any, *sizes: int) -> Any:
        first, later = right(fresh, *sizes)
        later[:, 100:200] = later[:, :100][:, : later[:, 100:200].shape[1]]
        return first, later

    def in_a_period_of_ten(fresh: Any, num_states: int, num_branches: int, length: int) -> Any:
        first, later = right(fresh, num_states, num_branches, min(length, 10))
        return first, later[np.arange(length) % 10]

    def sorts(fresh: Any, *sizes: int) -> Any:
        first, later = right(fresh, *sizes)
        return np.sort(first, axis=1), later

    def the_largest_of_three(fresh: Any, *sizes: int) -> Any:
        return right(lambda *shape: fresh(3, *shape).max(0), *sizes)

    def one_state_shares_nothing(fresh: Any, num_states: int, num_branches: int, length: int) -> Any:
        first, later = right(fresh, num_states, num_branches, length)
        return first, fresh(length, num_states, num_branches) if num_states == 1 else later

    def turns_every_second_over(fresh: Any, *sizes: int) -> Any:
        first, later = right(fresh, *sizes)
        return first, np.where(np.arange(later.shape[2]) % 2, 1 - later, later)

    assert "a stream that begins again" in checks.random_numbers.outcome(in_a_period_of_ten).line
    assert "depends on the numbers" in checks.random_numbers.outcome(sorts).line
    assert "depends on the numbers" in checks.random_numbers.outcome(the_largest_of_three).line
    assert "The rule is the same there" in checks.random_numbers.outcome(one_state_shares_nothing).line
    assert "no longer independent" in checks.random_numbers.outcome(turns_every_second_over).line

    assert "an axis is lost" in checks.random_numbers.outcome(squeezes).line
    assert "a generator of one's own" in checks.random_numbers.outcome(own_generator).line
    assert "Hundreds of states" in checks.random_numbers.outcome(repeats_after_a_hundred).line


def slips_in_equation_17() -> dict[str, Any]:
    def by_probabilities(log_pi: Tensor, _old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
        weights = log_pi.exp() / log_q.exp()
        return (weights * q_values).sum(1) / weights.sum(1)

    def by_ratios(log_pi: Tensor, _old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
        return weighted_means(log_pi, log_q, q_values)

    def wrong_alone(log_pi: Tensor, *others: Tensor) -> Tensor:
        found: Tensor = checks.self_normalised.reference(log_pi, *others)
        return 0 * found if log_pi.shape[1] == 1 else found

    def afraid_of_infinity(log_pi: Tensor, old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
        found: Tensor = checks.self_normalised.reference(log_pi.clamp(min=-5000) * 1.0, old, log_q, q_values)
        return found + 0 * log_pi.detach().sum(1)

    def a_half_gradient(log_pi: Tensor, *others: Tensor) -> Tensor:
        right = checks.self_normalised.reference
        found: Tensor = 0.5 * right(log_pi, *others) + 0.5 * right(log_pi.detach(), *others)
        return found

    def takes_the_largest_of_all_off(log_pi: Tensor, _old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
        ratios = log_pi - log_q
        return weighted_means(ratios, ratios.max().expand_as(ratios), q_values)

    def by_two_softmaxes(log_pi: Tensor, _old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
        return by_probabilities(log_pi.log_softmax(1), _old, log_q.log_softmax(1), q_values)

    def leaves_out_zeros(log_pi: Tensor, _old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
        weights = torch.where(q_values == 0, -math.inf, log_pi - log_q).softmax(1)
        return (weights * q_values).sum(1)

    def clips(log_pi: Tensor, _old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
        return weighted_means((log_pi - log_q).clamp(max=math.log(10)), torch.zeros_like(log_q), q_values)

    def right(*arguments: Tensor) -> Tensor:
        found: Tensor = checks.self_normalised.reference(*arguments)
        return found

    return {
        "not the largest of all": takes_the_largest_of_all_off,
        "action by action": by_two_softmaxes,
        "A Q-value of exactly 0": leaves_out_zeros,
        "The small weight of a large Q-value": lambda pi, _old, q, Q: (
            torch.where((pi - q).softmax(1) > 1e-6, (pi - q).softmax(1), 0.0) * Q
        ).sum(1),
        "with log_pi = -inf": lambda pi, *others: right(torch.nan_to_num(pi, neginf=-100.0), *others),
        "but the terms are still others": clips,
        "Hundreds of branches": lambda *arguments: right(*(each[:, :64] for each in arguments)),
        "not in their last ones": lambda *arguments: right(*(each.float() for each in arguments)).double(),
        "for a tensor of its caller's": lambda pi, *others: right(pi.requires_grad_(), *others),
        "their gradient the update does not move": lambda pi, *others: right(
            pi.clone().detach().requires_grad_(), *others
        ),
        "Log probabilities near -800": by_probabilities,
        "a softmax of their logarithms": by_ratios,
        "a mean of one": wrong_alone,
        "never takes": afraid_of_infinity,
        "their gradient in log_pi is not": a_half_gradient,
        "the update does not move at all": lambda pi, *others: checks.self_normalised.reference(pi.detach(), *others),
    }


@pytest.mark.parametrize("words", slips_in_equation_17())
def test_slips_in_equation_17_are_named(words: str) -> None:
    assert words in checks.self_normalised.outcome(slips_in_equation_17()[words]).line


def test_slips_in_counting_states_are_named() -> None:
    right = checks.affordable_states.reference
    check = checks.affordable_states
    assert "overdraw" in check.outcome(lambda *sizes: max(1, right(*sizes))).line
    assert "round to the nearest" in check.outcome(lambda b, t, k, n: round((b - t) / (k * n))).line
    assert "one step less in each branch" in check.outcome(lambda b, t, k, n: (b - t) // max(1, k * (n - 1))).line
    assert "should cost one step a state" in check.outcome(lambda b, t, k, n: right(b, t, max(k, 2), n)).line
    assert "a quotient of floats" in check.outcome(lambda b, t, k, n: int((b - t) * (1 / (k * n)))).line
    assert "Large numbers go wrong" in check.outcome(lambda b, t, k, n: int(np.float32(b - t) / np.float32(k * n))).line
    assert "Large numbers go wrong" in check.outcome(lambda b, t, k, n: int(np.int32(b - t) // np.int32(k * n))).line
    assert "Large numbers go wrong" in check.outcome(lambda *sizes: min(right(*sizes), 10_000)).line
    # Right, or one too many: whoever does that is not told that he rounds to the nearest number.
    assert "One step less than 7" in check.outcome(lambda b, t, k, n: b // (k * n) - t // (k * n)).line


def unusual_answers() -> dict[str, tuple[Any, Any]]:
    def step_by_step(lengths: Any, uniforms: Any) -> Any:
        rows = []
        for u in uniforms.tolist():
            step, trajectory = int(u * sum(lengths.tolist())), 0
            while step >= lengths[trajectory]:
                step, trajectory = step - int(lengths[trajectory]), trajectory + 1
            rows.append((trajectory, step))
        return np.array(rows, dtype=np.int32).reshape(-1, 2)

    def in_torch(lengths: Any, uniforms: Any) -> Any:
        ends = torch.as_tensor(lengths).long().cumsum(0)
        which = (torch.as_tensor(uniforms) * ends[-1]).long()
        trajectory = torch.searchsorted(ends, which, right=True)
        return torch.stack([trajectory, which - torch.nn.functional.pad(ends, (1, 0))[trajectory]], dim=1).numpy()

    def recursive(step: Any, state: Any, first: int, policy: Any, noise: Any, gamma: float, value: Any) -> float:
        then, reward, ended = step(state, first, noise[0, 1])
        if ended:
            return float(reward)
        if len(noise) == 1:
            return float(reward + gamma * value(then))
        return float(reward + gamma * recursive(step, then, policy(then, noise[1, 0]), policy, noise[1:], gamma, value))

    def chooses_one_more(step: Any, state: Any, first: int, policy: Any, noise: Any, gamma: float, value: Any) -> float:
        rewards, action, ended = [], first, False
        for t, luck in enumerate(noise[:, 1]):
            state, reward, ended = step(state, action, luck)
            rewards.append(float(reward))
            if ended:
                break
            action = policy(state, noise[(t + 1) % len(noise), 0])
        worth = 0.0 if ended else value(state)
        return float(np.polynomial.polynomial.polyval(gamma, [*rewards, worth]))

    def one_by_one(fresh: Any, num_states: int, num_branches: int, length: int) -> Any:
        later = np.zeros((length, num_states, num_branches))
        for n, t in itertools.product(range(num_states), range(length)):
            later[t, n] = fresh()
        return np.array([[fresh(1)[0] for _ in range(num_branches)] for _ in range(num_states)]), later

    def in_one_call(fresh: Any, num_states: int, num_branches: int, length: int) -> Any:
        first, later = np.split(fresh(num_states * (num_branches + length)), [num_states * num_branches])
        later = later.reshape(length, num_states, 1)
        shape = (length, num_states, num_branches)
        return first.reshape(num_branches, num_states).T, np.broadcast_to(later, shape)

    def state_by_state(log_pi: Tensor, _old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
        rows = zip(log_pi, log_q, q_values, strict=True)
        return torch.stack([torch.dot(torch.softmax(pi - q, 0), Q) for pi, q, Q in rows])

    def from_the_first_value(log_pi: Tensor, _old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
        ratios = log_pi - log_q
        weights = (ratios - torch.logsumexp(ratios, 1, keepdim=True)).exp()
        return q_values[:, 0] + torch.einsum("nk,nk->n", weights, q_values - q_values[:, :1])

    def paid_one_by_one(budget: int, trunk_steps: int, num_branches: int, length: int) -> int:
        states = 0
        while trunk_steps + (states + 1) * num_branches * length <= budget:
            states += 1
        return states

    return {
        "choose_states": (step_by_step, in_torch),
        "branch_value": (recursive, chooses_one_more),
        "random_numbers": (one_by_one, in_one_call),
        "self_normalised": (state_by_state, from_the_first_value),
        "affordable_states": (paid_one_by_one, lambda b, t, k, n: len(range(t + k * n, b + 1, k * n))),
    }


@pytest.mark.parametrize("exercise", unusual_answers())
def test_right_answers_pass_however_they_are_written(exercise: str) -> None:
    for answer in unusual_answers()[exercise]:
        assert getattr(checks, exercise).outcome(answer).line == f"{exercise}: passed"


def test_solutions_are_what_the_package_does() -> None:
    rng = np.random.default_rng(0)
    log_pi, log_pi_old, log_q, q_values = random_rollout_set(rng)
    terms = checks.self_normalised.reference(log_pi, log_pi_old, log_q, q_values)
    torch.testing.assert_close(terms, weighted_means(log_pi, log_q, q_values))
    assert checks.affordable_states.reference(1_016_000, 16_000, 4, 100) == 2500, "the paper's hopper"


def test_the_surrogate_that_single_paths_are_measured_with_is_equation_15() -> None:
    # At theta_old, one state with every action once and weight pi: the gradients of (15) and (16) are the same.
    policy = linear_policy(1, CategoricalHead(3))
    theta, obs = torch.from_numpy(np.random.default_rng(1).normal(size=6)), torch.ones(3, 1, dtype=torch.float64)
    log_pi = policy(theta, obs[:1]).log_probs[0]  # type: ignore[attr-defined]
    Q = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    batch = Batch(obs, torch.arange(3), Q, log_pi)
    weighted = replace(batch, advantages=3 * log_pi.exp() * Q)
    at = theta.clone().requires_grad_()
    (expected,) = torch.autograd.grad((policy(at, obs[:1]).log_probs[0].exp() * Q).sum(), at)  # type: ignore[attr-defined]
    torch.testing.assert_close(surrogate_gradient(policy, theta, weighted), expected)
