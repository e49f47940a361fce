"""The data behind the pictures of lesson 00, and its map of the course."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from trpo_lessons.distributions import Categorical
from trpo_lessons.doctor import Finding
from trpo_lessons.envs.cartpole import MAX_ANGLE
from trpo_lessons.mdp import evaluate_policy, simulate
from trpo_lessons.teaching.lesson_00 import check as checks
from trpo_lessons.teaching.lesson_00 import explorers as lesson_00

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


# ---- the machine that breaks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gamma", "answer"), [(0.3, "no"), (0.45, "no"), (0.55, "yes"), (0.9, "yes")])
def test_repairing_pays_from_one_half_on(gamma, answer):
    numbers = lesson_00.compute_foresight(gamma)
    assert lesson_00.repairing_pays(numbers) == answer
    # The derivation that the lesson gives: a repair is worth 0.6 gamma V(works) and costs 0.5.
    assert (0.6 * gamma / (1 - 0.8 * gamma) > 0.5) == (answer == "yes")


def test_at_one_half_it_makes_no_difference():
    numbers = lesson_00.compute_foresight(0.5)
    assert lesson_00.repairing_pays(numbers).startswith("neither")
    assert np.ptp(numbers.eta) < 1e-12


def test_eta_is_what_simulated_machines_bring():
    gamma, horizon = 0.7, 60
    mdp = lesson_00.machine(gamma)
    always = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    states, actions = simulate(mdp, always, 4000, horizon, np.random.default_rng(1))
    returns = (mdp.r[states, actions] * gamma ** torch.arange(float(horizon))).sum(1)
    standard_error = float(returns.std() / len(returns) ** 0.5)
    assert abs(float(returns.mean()) - lesson_00.compute_foresight(gamma).eta[-1]) < 4 * standard_error


def test_each_point_of_the_curve_is_the_policy_it_says():
    numbers = lesson_00.compute_foresight(0.8)
    for q, eta in zip(numbers.repair[::5], numbers.eta[::5], strict=True):
        policy = [[1.0, 0.0], [1 - q, q]]
        assert float(evaluate_policy(lesson_00.machine(0.8), policy).eta) == pytest.approx(eta, abs=1e-12)
    assert numbers.weights[:3] == pytest.approx([1, 0.8, 0.64])


# ---- cart-pole -------------------------------------------------------------------------------------------------------


def keep(policy, theta, batch):
    return theta


def test_every_method_starts_from_the_same_policy_and_data():
    _, theta, batch = lesson_00.first_batch(seed=3)
    _, again, same_batch = lesson_00.first_batch(seed=3)
    _, other, _ = lesson_00.first_batch(seed=4)
    assert torch.equal(theta, again)
    assert torch.equal(batch.obs, same_batch.obs)
    assert not torch.equal(theta, other)
    assert len(batch) == lesson_00.NUM_ENVS * lesson_00.ROWS
    assert float(batch.advantages.mean()) == pytest.approx(0, abs=1e-5)
    assert float(batch.advantages.std()) == pytest.approx(1, abs=1e-4)


def test_the_update_decides_what_is_learned():
    learner = lesson_00.learn(keep, seed=0)
    first, second = next(learner), next(learner)
    assert torch.equal(first.theta, second.theta)
    assert len(second.steps_per_fall) == 2
    # A policy that pushes at random falls about every 20 steps.
    assert all(15 < steps < 35 for steps in second.steps_per_fall)


@pytest.fixture(scope="module")
def beginner():
    return next(lesson_00.learn(keep, seed=0))


def test_an_episode_ends_where_the_pole_has_fallen(beginner):
    always_right = replace(beginner, theta=push_right(beginner.theta))
    states = lesson_00.balance(always_right)
    assert 5 < len(states) - 1 < 15
    assert abs(states[-1, 2]) > MAX_ANGLE
    assert np.abs(states[:-1, 2]).max() <= MAX_ANGLE
    assert states[-1, 0] > states[0, 0]
    assert len(lesson_00.balance(always_right, steps=3)) == 4


def push_right(theta):
    pushed = theta.clone()
    pushed[-2:] = torch.tensor([-50.0, 50.0])  # the biases of the two logits
    return pushed


def test_a_drawn_cart_says_whether_it_fell(beginner):
    fallen = lesson_00.balance(replace(beginner, theta=push_right(beginner.theta)))
    figure = Figure()
    lesson_00.draw_carts(figure, {"one": fallen, "other": fallen}, t=2)
    assert [axes.get_title() for axes in figure.axes] == ["one\nstep 2", "other\nstep 2"]
    figure = Figure()
    lesson_00.draw_carts(figure, {"one": fallen}, t=500)
    assert figure.axes[0].get_title() == f"one\nfell at step {len(fallen) - 1}"


@pytest.mark.parametrize(
    ("record", "words"),
    [((500.0, *[20.0] * 5), "keeps falling"), ((20.0, *[450.0] * 5), "stays up"), ((9.0, *[250.0] * 5), "wobbles")],
)
def test_the_end_of_learning_counts(record, words):
    assert lesson_00.ending(record).startswith(words)


def test_the_race_s_picture_shows_the_records():
    numbers = lesson_00.Race(3.0, 0, trpo=(10.0, 500.0), vanilla=(10.0, 30.0))
    figure = Figure()
    lesson_00.draw_race(numbers, figure)
    drawn = [list(line.get_ydata()) for line in figure.axes[0].lines]
    assert drawn == [[10.0, 500.0], [10.0, 30.0]]
    assert [text.get_text() for text in figure.axes[0].get_legend().texts] == ["TRPO", "vanilla, step size 3"]


# ---- the table of findings, and the map ------------------------------------------------------------------------------


def test_the_table_of_findings_names_no_folder_of_this_machine():
    findings = [
        Finding("Python", True, "3.11.7 in /home/me/somebody/.venv"),
        Finding("browser", None, "no a|b found", "look in ~/.cache/pip or C:\\people\\ada\\bin"),
    ]
    table = lesson_00.findings_table(findings).data
    assert "somebody" not in table
    assert "ada" not in table
    assert ".cache" not in table
    assert "| Python | works | 3.11.7 in …/.venv |  |" in table
    assert "no a\\|b found" in table


def lesson_00_text():
    cells = json.loads((NOTEBOOKS / "00_start_here.ipynb").read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def test_the_map_links_the_lessons_that_there_are_and_no_others():
    linked = set(re.findall(r"\]\(([^)]*\.ipynb)\)", lesson_00_text()))
    there = {path.name for path in NOTEBOOKS.glob("[0-9]*.ipynb")} - {"00_start_here.ipynb"}
    assert linked == there


def test_the_map_names_every_lesson_once():
    rows = re.findall(r"^\| (?:\*\*|\[)?(\d\d) ", lesson_00_text(), flags=re.MULTILINE)
    assert rows == [f"{number:02d}" for number in range(11)]


# ---- wrong answers, written otherwise than in the catalogue ----------------------------------------------------------


def returns_in_whole_numbers(rewards, gamma):
    returns = np.zeros_like(rewards)
    future = 0
    for t in range(len(rewards) - 1, -1, -1):
        future = returns[t] = rewards[t] + gamma * future
        future = returns[t]
    return returns


def returns_by_division(rewards, gamma):
    weights = gamma ** np.arange(len(rewards))
    return (rewards * weights)[::-1].cumsum()[::-1] / weights


def returns_by_difference(rewards, gamma):
    weights = gamma ** np.arange(len(rewards))
    past = np.concatenate([[0.0], np.cumsum(rewards * weights)])
    return (past[-1] - past[:-1]) / np.maximum(weights, 1e-300)


def returns_by_powers(rewards, gamma):
    return np.array([sum(r * gamma ** (k + 1) for k, r in enumerate(rewards[t:])) / gamma for t in range(len(rewards))])


def returns_in_place(rewards, gamma):
    returns = rewards
    for t in reversed(range(len(rewards) - 1)):
        returns[t] += gamma * returns[t + 1]
    return returns


def returns_of_a_hundred_steps(rewards, gamma):
    returns = np.zeros(len(rewards))
    for t in range(min(100, len(rewards)))[::-1]:
        returns[t] = rewards[t] + (gamma * returns[t + 1] if t + 1 < len(rewards) else 0.0)
    return returns


def returns_from_the_second_step(rewards, gamma):
    return np.append(checks.discounted_returns.reference(rewards, gamma)[1:], 0.0)


def returns_without_the_end(rewards, gamma):
    return np.append(checks.discounted_returns.reference(rewards[:-1], gamma), 0.0)


def returns_of_two_steps_or_more(rewards, gamma):
    if len(rewards) == 1:
        return np.zeros(1)
    return checks.discounted_returns.reference(rewards, gamma)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (returns_in_whole_numbers, "zeros_like(rewards) and rewards.copy()"),
        (returns_by_division, "the digits are gone"),
        (returns_by_powers, "divides by 0"),
        (returns_by_difference, "the digits are gone"),
        (returns_in_place, "changes its arguments in place"),
        (returns_of_a_hundred_steps, "one of 1200 steps does not"),
        (returns_from_the_second_step, "the return of the step after it"),
        (returns_without_the_end, "You leave out the last step"),
        (returns_of_two_steps_or_more, "may have a single step"),
        (lambda rewards, gamma: (gamma * rewards)[::-1].cumsum()[::-1], "multiply each reward by gamma once"),
    ],
)
def test_returns_that_are_wrong_are_told_why(answer, told):
    assert told in checks.discounted_returns.outcome(answer).line


def choice_of_the_first_sure_gain(L, kl, C):
    sure = np.flatnonzero(L - C * kl > 0)
    return int(sure[0]) if sure.size else 0


def choice_among_gains(L, kl, C):
    return int((np.maximum(L, 0) - C * kl).argmax())


def choice_without_tiny_distances(L, kl, C):
    return int((L - C * np.where(kl < 1e-6, 0.0, kl)).argmax())


def choice_of_movers(L, kl, C):
    return int(((L / np.where(kl > 0, kl, np.inf) - C) * kl).argmax())


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda L, kl, C: 1 + int((L - C * kl).argmax()), "from 1"),
        (lambda L, kl, C: float((L - C * kl).argmax()), "An index is asked for"),
        (lambda L, kl, C: (L - C * kl).max(), "the value of the best bound"),
        (lambda L, kl, C: int((L - C * kl).argmin()), "smallest L - C kl"),
        (lambda L, kl, C: int((C * kl - L).argmax()), "smallest L - C kl"),
        (lambda L, kl, C: int((C * kl + L).argmin()), "for costs"),
        (lambda L, kl, C: int((L - kl).argmax()), "without C"),
        (lambda L, kl, C: int(kl.argmin()), "the closest candidate"),
        (lambda L, kl, C: max(range(len(L)), key=lambda i: L[i] if L[i] > C * kl[i] else -9e9), "positive L - C kl"),
        (choice_of_the_first_sure_gain, "Another candidate has a larger lower bound"),
        (choice_among_gains, "promises a loss"),
        (choice_without_tiny_distances, "Distances may be tiny and C huge"),
        (choice_of_movers, "The old policy may be among the candidates"),
    ],
)
def test_choices_that_are_wrong_are_told_why(answer, told):
    assert told in checks.best_candidate.outcome(answer).line


def taken(table, actions):
    return table.gather(1, actions[:, None])[:, 0]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda z, a: taken(z.exp() / z.exp().sum(1, keepdim=True), a).log(), "Your exponentials overflow"),
        (lambda z, a: taken(z.softmax(1), a).log(), "take the logarithm of a softmax"),
        (lambda z, a: taken((z - z.max()) - (z - z.max()).exp().sum(1, keepdim=True).log(), a), "the whole table"),
        (lambda z, a: taken(z.log_softmax(0), a), "over the states instead of the actions"),
        (lambda z, a: taken(z, a) - z.exp().sum().log(), "all states together"),
        (lambda z, a: taken(z - z.exp().mean(1, keepdim=True).log(), a), "mean of the exponentials"),
        (lambda z, a: taken(z - z.max(1, keepdim=True)[0], a), "stop there"),
        (lambda z, a: taken(z, a), "the logits of the actions as they are"),
        (lambda z, a: z.log_softmax(1).amax(1), "most likely action"),
        (lambda z, a: taken(z.softmax(1), a), "not their logarithms"),
        (lambda z, a: taken((z.softmax(1) + 1e-8).log(), a), "add up to 1"),
        (lambda z, a: taken(z.log_softmax(1).clamp(min=-100), a), "800 below the best logit"),
        (lambda z, a: torch.tensor([math.log(p) for p in taken(z.softmax(1), a).tolist()]), "float32"),
        (lambda z, a: z.log_softmax(1)[:, a], "array of shape (5, 5)"),
    ],
)
def test_log_probabilities_that_are_wrong_are_told_why(answer, told):
    assert told in checks.softmax_log_prob.outcome(answer).line


def test_other_ways_of_writing_the_right_answers_pass():
    def returns(rewards, gamma):
        answer = [0.0]
        for reward in rewards[::-1].tolist():
            answer.append(reward + gamma * answer[-1])
        return np.array(answer[:0:-1])

    assert checks.discounted_returns.outcome(returns).status == "passed"
    assert checks.best_candidate.outcome(lambda L, kl, C: (C * kl - L).argmin()).status == "passed"
    assert checks.softmax_log_prob.outcome(lambda z, a: Categorical(z).log_prob(a)).status == "passed"
