"""Explorer of lesson 07: what a vine's gradient costs and how wrong it is, exactly, on a small MDP.

Nothing is simulated. A vine with q = pi_old estimates, with equation 17 at theta_old,

    g = 1/N sum_n 1/K sum_k (Q_nk - mean_k Q_nk) score(a_nk|s_n),    score(a|s) = gradient of log pi(a|s),

and in a finite MDP its mean and the trace of its covariance are finite sums: over the K first actions (how often each
action occurs is multinomial), and over the pairs of states that two branches with common random numbers can be in.
Equation 16, with each action once, is the easier case of a single way to choose the first actions.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import FigureBase

from trpo_lessons import mdp
from trpo_lessons.mdp import TabularMDP
from trpo_lessons.teaching.explorers import Choice, Explorer, Stops
from trpo_lessons.teaching.lesson_01.explorers import text
from trpo_lessons.teaching.pictures import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION

Floats = npt.NDArray[np.float64]
NUM_STATES, NUM_ACTIONS, GAMMA = 6, 2, 0.95
TRUNK_STEPS = 8  # charged for every state with branches
LENGTHS = (1, 2, 3, 5, 8, 12, 20, 40)
EACH_ONCE = "each once"
DRAWN = {"2 drawn": 2, "4 drawn": 4, "8 drawn": 8}
FIRST_ACTIONS = (*DRAWN, EACH_ONCE)
COMMON, OWN = "common", "own"


# ---- the problem


@functools.cache
def problem() -> tuple[TabularMDP, Floats, Floats]:
    """A corridor, a policy pi [S, A] in it, and the distribution w [S] of the steps of a long trunk."""
    world = mdp.chain(NUM_STATES, GAMMA, slip=0.2)
    pi = mdp.random_policy(world, np.random.default_rng(0), concentration=2.0).numpy()
    chain = np.einsum("sa,sat->st", pi, world.P.numpy())
    values, vectors = np.linalg.eig(chain.T)
    w = np.abs(np.real(vectors[:, np.argmax(np.real(values))]))
    return world, pi, w / w.sum()


def overlaps(one: Floats, other: Floats) -> Floats:
    """How much of [0, 1) selects outcome x from `one` [..., X] and y from `other` [..., Y]: [..., X, Y].

    `mdp.draw` turns a uniform number into an outcome by the cumulative distribution. Where two branches use the same
    number, this is the joint distribution of what they draw.
    """
    ends = [np.cumsum(each, axis=-1) for each in (one, other)]
    starts = [end - each for end, each in zip(ends, (one, other), strict=True)]
    upper = np.minimum(ends[0][..., :, None], ends[1][..., None, :])
    lower = np.maximum(starts[0][..., :, None], starts[1][..., None, :])
    shared: Floats = np.maximum(upper - lower, 0.0)
    return shared


@dataclass(frozen=True)
class Moments:
    """Of the discounted sum R of a branch's rewards: mean Q_T [S, A], and E[R R'] of two branches [S, A, A].

    `second` [S, A] is E[R^2]; `common` has the two branches share their random numbers, so that its diagonal is
    `second`, and without that E[R R'] is the product of the means.
    """

    mean: Floats
    second: Floats
    common: Floats


@functools.cache
def moments(length: int) -> Moments:
    """Backward from a branch of no step to one of `length` steps."""
    world, pi, _ = problem()
    P, r = world.P.numpy(), world.r.numpy()
    actions = overlaps(pi[:, None], pi[None, :])  # [S, S, A, A]
    landings = overlaps(P[:, None, :, None], P[None, :, None, :])  # [S, S, A, A, S, S]
    V, both = np.zeros(NUM_STATES), np.zeros((NUM_STATES, NUM_STATES))  # E[R], and E[R R'] from a pair of states
    for _ in range(length):
        ahead = P @ V  # [S, A]
        now, later = r[:, None, :, None], GAMMA * ahead[:, None, :, None]
        now_too, later_too = r[None, :, None, :], GAMMA * ahead[None, :, None, :]
        pairs = now * now_too + now * later_too + later * now_too
        pairs = pairs + GAMMA**2 * np.einsum("ijabxy,xy->ijab", landings, both)  # [S, S, A, A]
        Q = r + GAMMA * ahead
        V, both = (pi * Q).sum(1), (actions * pairs).sum((2, 3))
    same_state = pairs[np.arange(NUM_STATES), np.arange(NUM_STATES)]
    return Moments(Q, np.diagonal(same_state, axis1=1, axis2=2).copy(), same_state)


# ---- the estimator


def ways_to_choose(first_actions: str, pi: Floats) -> tuple[Floats, Floats]:
    """How often each action is among the first actions [ways, A], and how probable that is [ways], with `pi` [A]."""
    if first_actions == EACH_ONCE:
        return np.ones((1, NUM_ACTIONS)), np.ones(1)
    total = DRAWN[first_actions]
    counts = np.array([(n, total - n) for n in range(total + 1)], dtype=np.float64)
    ways = np.array([math.comb(total, n) for n in range(total + 1)])
    return counts, ways * np.prod(pi**counts, axis=1)


@functools.cache
def gradient_of_one_state(first_actions: str, length: int, numbers: str) -> tuple[Floats, float]:
    """Of a gradient from one state drawn from w: its mean [S, A], and the trace of its covariance."""
    _, pi, w = problem()
    found = moments(length)
    square, mean = 0.0, np.zeros((NUM_STATES, NUM_ACTIONS))
    for s in range(NUM_STATES):
        counts, probability = ways_to_choose(first_actions, pi[s])
        # A branch with action a contributes weight * (score - mean score) times its return; see `c` [ways, A, A].
        scores = np.eye(NUM_ACTIONS) - pi[s]
        weights = pi[s] if first_actions == EACH_ONCE else np.full(NUM_ACTIONS, 1 / DRAWN[first_actions])
        middle = (counts * weights) @ scores
        c = weights[:, None] * (scores - middle[:, None])
        two = found.common[s] if numbers == COMMON else np.outer(found.mean[s], found.mean[s])
        inner = np.einsum("wad,wbd->wab", c, c)
        squares = np.einsum("wa,wb,wab,ab->w", counts, counts, inner, two)
        squares += np.einsum("wa,waa,a->w", counts, inner, found.second[s] - np.diagonal(two))  # a branch with itself
        square += w[s] * (probability @ squares)
        mean[s] = w[s] * np.einsum("w,wa,wad,a->d", probability, counts, c, found.mean[s])
    return mean, max(square - float((mean**2).sum()), 0.0)  # rounding may leave less than nothing


@functools.cache
def true_gradient() -> Floats:
    """Of sum_s w(s) sum_a pi_theta(a|s) Q(s, a) at theta_old, in the logits, [S, A]."""
    world, pi, w = problem()
    gradient: Floats = w[:, None] * pi * mdp.evaluate_policy(world, pi).A.numpy()
    return gradient


@dataclass(frozen=True)
class Errors:
    """Parts of the error of a gradient, each as a share of the length of the true gradient.

    bias   of the mean, once the factor (K - 1) / K is taken out: rollouts end too early
    noise  root mean square of what changes from vine to vine
    """

    bias: float
    noise: float

    @property
    def total(self) -> float:
        """Root mean square error."""
        return math.hypot(self.bias, self.noise)


def num_branches(first_actions: str) -> int:
    """K."""
    return DRAWN.get(first_actions, NUM_ACTIONS)


def errors(first_actions: str, length: int, states: float, numbers: str) -> Errors:
    """The error of a vine with `states` states."""
    mean, variance = gradient_of_one_state(first_actions, length, numbers)
    K, size = num_branches(first_actions), float(np.linalg.norm(true_gradient()))
    rescale = 1.0 if first_actions == EACH_ONCE else K / (K - 1)
    bias = float(np.linalg.norm(rescale * mean - true_gradient()))
    return Errors(bias / size, rescale * math.sqrt(variance / states) / size)


def cost_of(first_actions: str, length: int, states: float) -> float:
    """Simulator steps, trunk and branches."""
    return states * (TRUNK_STEPS + num_branches(first_actions) * length)


# ---- the explorer


@dataclass(frozen=True)
class Trade:
    """What one vine costs and how wrong it is, and others to compare it with."""

    first_actions: str
    length: int
    states: int
    numbers: str
    cost: float
    here: Errors
    other: Errors  # with the other kind of random numbers
    by_states: dict[str, Floats]  # [n], total error for both kinds of random numbers at `costs`
    costs: Floats  # [n]
    by_length: dict[str, Floats]  # first actions: [len(LENGTHS)], total error at the cost of this vine


def compute_trade(first_actions: str, length: int, states: int, numbers: str) -> Trade:
    """Errors of this vine, of larger and smaller ones, and of others that cost the same."""
    cost = cost_of(first_actions, length, states)
    grid = [float(n) for n in np.geomspace(1, 10_000, 41)]
    by_states = {each: np.array([errors(first_actions, length, n, each).total for n in grid]) for each in (COMMON, OWN)}
    by_length = {
        each: np.array([errors(each, steps, cost / cost_of(each, steps, 1), numbers).total for steps in LENGTHS])
        for each in FIRST_ACTIONS
    }
    here = errors(first_actions, length, states, numbers)
    other = errors(first_actions, length, states, OWN if numbers == COMMON else COMMON)
    costs = np.array([cost_of(first_actions, length, n) for n in grid])
    return Trade(first_actions, length, states, numbers, cost, here, other, by_states, costs, by_length)


def percent(share: float) -> str:
    """Such as "3.2 %"; not told further than to a hundredth of a percent."""
    return f"{text(100 * share)} %" if share > 1e-4 else "less than 0.01 %"


def facts_of_trade(numbers: Trade) -> str:
    """Cost, error and its parts."""
    trunk, here = TRUNK_STEPS * numbers.states, numbers.here
    return (
        f"cost: {numbers.cost:.0f} simulator steps, {trunk} of them for the trunk\n"
        f"error: {percent(here.total)} of the true gradient (bias {percent(here.bias)}, noise {percent(here.noise)})"
    )


LOOKS = {"2 drawn": (ORANGE, "s--"), "4 drawn": (BLUE, "o-"), "8 drawn": (GREEN, "^-."), EACH_ONCE: (BLACK, "d:")}


def draw_trade(numbers: Trade, figure: FigureBase) -> None:
    """Left, error against cost as the number of states grows; right, against the length of rollouts at this cost."""
    left, right = figure.subplots(1, 2, sharey=True)
    left.set_yscale("log")
    left.set_ylim(3, 1200)
    looks = {COMMON: (SKY, "-"), OWN: (PURPLE, "--")}  # and not those of the curves on the right
    for name, (color, dashes) in looks.items():
        left.plot(numbers.costs, 100 * numbers.by_states[name], color=color, linestyle=dashes, label=f"{name} numbers")
    left.axhline(max(100 * numbers.here.bias, 1e-3), color=GREY, linestyle=":", linewidth=1.6, label="bias alone")
    left.plot(numbers.cost, 100 * numbers.here.total, "*", color=VERMILION, markersize=16, zorder=5, label="this vine")
    left.set(xscale="log", xlabel="simulator steps", ylabel="error, %")
    left.set(title="more states", xlim=(70, 2_000_000))
    left.set_yticks((3, 10, 30, 100, 300, 1000), ("3", "10", "30", "100", "300", "1000"))
    for first_actions, (color, marks) in LOOKS.items():
        row = 100 * numbers.by_length[first_actions]
        right.plot(LENGTHS, row, marks, color=color, label=first_actions, markersize=5)
    right.plot(numbers.length, 100 * numbers.here.total, "*", color=VERMILION, markersize=16, zorder=5)
    right.set(xscale="log", xlabel="length of a rollout", title="the same cost")
    left.set_xticks((100, 1_000, 10_000, 100_000, 1_000_000), ("100", "1k", "10k", "100k", "1M"), fontsize=9)
    right.set_xticks(LENGTHS, map(str, LENGTHS), fontsize=9)
    for axes in (left, right):
        axes.minorticks_off()
    entries = [list(zip(*axes.get_legend_handles_labels(), strict=True)) for axes in (left, right)]
    if figure.get_window_extent().width > 600:  # pixels; a row for each panel: matplotlib fills column by column
        pairs, columns = itertools.chain.from_iterable(zip(*entries, strict=True)), 4
    else:  # a column for each panel
        pairs, columns = itertools.chain.from_iterable(entries), 2
    handles, labels = zip(*pairs, strict=True)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9, columnspacing=9 - 2 * columns)


def alt_of_trade(numbers: Trade) -> str:
    """What the picture shows."""
    best = {each: LENGTHS[int(row.argmin())] for each, row in numbers.by_length.items()}
    lowest = ", ".join(f"{length} with {each}" for each, length in best.items())
    return (
        "Two panels. Left, the error falls with simulator steps, for common and for own random numbers, down to a bias "
        f"of {percent(numbers.here.bias)}; a star marks this vine at {numbers.cost:.0f} steps and "
        f"{percent(numbers.here.total)}. Right, the error against the length of rollouts at the same cost, one curve "
        f"for each way to choose first actions. Each falls and rises again; the lowest point is at length {lowest}."
    )


def trade_explorer() -> Explorer[Trade]:
    """First actions, rollout length, random numbers and number of states against error and cost."""
    return Explorer(
        "For what would you spend your simulator steps?",
        compute=compute_trade,
        facts=facts_of_trade,
        draw=draw_trade,
        alt=alt_of_trade,
        controls=[
            Choice("first_actions", "first actions in a state", FIRST_ACTIONS, "4 drawn"),
            Stops("length", "length of a rollout", LENGTHS, 12),
            Stops("states", "states with branches", [10, 30, 100, 300, 1000, 3000], 100),
            Choice("numbers", "random numbers", [COMMON, OWN], COMMON),
        ],
        size=(8.2, 4.1),
    )
