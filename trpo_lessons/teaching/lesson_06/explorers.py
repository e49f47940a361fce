"""Explorers of lesson 06: what a baseline does to the gradient, lambda between bias and noise; and a run to watch.

All numbers of the explorers are exact. The advantage estimate of one step is a sum along a Markov chain, so its mean
and its second moment solve linear systems, as values do: nothing has to be simulated.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from torch import Tensor

from trpo_lessons.mdp import TabularMDP, as_float64, evaluate_policy
from trpo_lessons.single_path import SinglePath
from trpo_lessons.teaching.explorers import Choice, Explorer, Slider, Stops, upright
from trpo_lessons.teaching.lesson_01.explorers import text
from trpo_lessons.teaching.pictures import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILION, LivePicture
from trpo_lessons.training import Run, TrainConfig
from trpo_lessons.training.running.acting import Spaces
from trpo_lessons.training.running.loop import Trainer
from trpo_lessons.training.sampling.threads import torch_threads

Floats = npt.NDArray[np.float64]

# ---- the balancing act -----------------------------------------------------------------------------------------------

MOST_LEAN = 4
LEANS = np.arange(-MOST_LEAN, MOST_LEAN + 1)
UPRIGHT, FALLEN = MOST_LEAN, len(LEANS)
LEFT, RIGHT = 0, 1
GUST, GAMMA = 0.15, 0.98


def balancing_act(gamma: float = GAMMA) -> TabularMDP:
    """Nine leans from -4 to 4, and "fallen". A push moves the lean by one; in a gust, gravity moves it outward instead.

    Every step that begins on its feet pays 1. All start upright; who leans further than 4 has fallen, for good.
    """
    P, r = np.zeros((FALLEN + 1, 2, FALLEN + 1)), np.zeros((FALLEN + 1, 2))
    for s, lean in enumerate(LEANS.tolist()):
        outward = [-1, 1] if lean == 0 else [1 if lean > 0 else -1]
        for action, push in ((LEFT, -1), (RIGHT, 1)):
            P[s, action, _state(lean + push)] += 1 - GUST
            for fall in outward:
                P[s, action, _state(lean + fall)] += GUST / len(outward)
    P[FALLEN, :, FALLEN] = 1
    r[:FALLEN] = 1
    return TabularMDP(as_float64(P), as_float64(r), as_float64(np.eye(FALLEN + 1)[UPRIGHT]), gamma)


def _state(lean: int) -> int:
    return lean + MOST_LEAN if abs(lean) <= MOST_LEAN else FALLEN


def pushes_back(skill: float) -> Tensor:
    """The policy [S, 2] that pushes against the lean with probability `skill`, and tosses a coin upright."""
    against = np.where(LEANS < 0, skill, np.where(LEANS > 0, 1 - skill, 0.5))
    right = np.append(against, 0.5)
    return torch.from_numpy(np.stack([1 - right, right], axis=1))


# ---- exact moments of an advantage estimate --------------------------------------------------------------------------


def estimate_moments(mdp: TabularMDP, pi: Tensor, V: Floats, lam: float) -> tuple[Floats, Floats]:
    """Mean and mean square [S, A] of the GAE estimate of a step taken in s with a, for values V [S] of the states.

    X(s, a) = residual + gamma lam X(s', a'), so the mean m of X obeys a Bellman equation with discount gamma lam. Its
    square is residual^2 + 2 gamma lam residual X' + (gamma lam)^2 X'^2, which is another one. Sums never end by
    themselves: the state FALLEN, where every residual is 0, ends them.
    """
    P, decay = mdp.P.numpy().copy(), mdp.gamma * lam
    P[FALLEN] = 0
    chain = np.einsum("sa,sat->st", pi.numpy(), P)
    residual = mdp.r.numpy()[:, :, None] + mdp.gamma * V[None, None, :] - V[:, None, None]  # [S, A, S]

    def solve(reward: Floats, discount: float) -> Floats:
        return np.asarray(np.linalg.solve(np.eye(len(P)) - discount * chain, (pi.numpy() * reward).sum(1)))

    first = (P * residual).sum(-1)
    mean_next = solve(first, decay)
    second = (P * (residual**2 + 2 * decay * residual * mean_next)).sum(-1)
    square_next = solve(second, decay**2)
    return first + decay * P @ mean_next, second + decay**2 * P @ square_next


@dataclass(frozen=True)
class GradientError:
    """How wrong a gradient is that was made from such estimates; all as shares of the true gradient's length."""

    bias: float  # of the mean over endlessly many samples
    noise: float  # standard deviation of one sample; of the mean of N, divided by the root of N

    def total(self, samples: int) -> float:
        """Root mean square error of the mean of so many independent samples."""
        return math.hypot(self.bias, self.noise / math.sqrt(samples))


def visits(mdp: TabularMDP, pi: Tensor) -> Floats:
    """The share of steps [S] that begin in each state, discounted; none begins where all has ended."""
    rho = evaluate_policy(mdp, pi).rho.numpy().copy()
    rho[FALLEN] = 0
    return np.asarray(rho / rho.sum())


def gradient_error(mdp: TabularMDP, pi: Tensor, V: Floats, lam: float) -> GradientError:
    """The error of score times estimate, for a policy with one logit for each state and action.

    The score of (s, a) is 1 at a and minus pi(.|s) everywhere in row s. States come from `visits`, each sample with a
    rollout of its own.
    """
    mean, square = estimate_moments(mdp, pi, V, lam)
    p, d = pi.numpy(), visits(mdp, pi)[:, None]
    true = logit_gradient(p, d, evaluate_policy(mdp, pi).A.numpy())
    expected = logit_gradient(p, d, mean)
    score_squared = 1 - 2 * p + (p**2).sum(1, keepdims=True)
    variance = (d * p * score_squared * square).sum() - (expected**2).sum()
    length = np.linalg.norm(true)
    return GradientError(float(np.linalg.norm(expected - true) / length), float(math.sqrt(variance) / length))


def logit_gradient(p: Floats, d: Floats, worth: Floats) -> Floats:
    """The mean of score times worth, [S, A]: what is the same for all actions of a state drops out."""
    return np.asarray(d * p * (worth - (p * worth).sum(1, keepdims=True)))


# ---- explorer: the baseline ------------------------------------------------------------------------------------------

SKILL = 0.6
CONSTANT, OF_STATE = "a constant", "V of the state"
SIZES = np.round(np.arange(0, 2.01, 0.1), 1)


@functools.cache
def beginner() -> tuple[TabularMDP, Tensor, Floats, float]:
    """The balancing act, a beginner's policy, its exact V [S], and the mean of V over the visits."""
    mdp, pi = balancing_act(), pushes_back(SKILL)
    V = evaluate_policy(mdp, pi).V.numpy()
    return mdp, pi, V, float(visits(mdp, pi) @ V)


@dataclass(frozen=True)
class Baselines:
    """Gradients from Monte Carlo returns less a baseline; errors as shares of the true gradient, for 1000 samples."""

    kind: str
    size: float
    extra: float
    left: Floats  # [9, 2] mean of what is left of the return, on every lean and for every action
    spread: Floats  # [9, 2] its standard deviation
    noise: dict[str, Floats]  # at every one of SIZES
    bias_here: float
    noise_here: float


def baseline_of(kind: str, size: float, extra: float) -> Floats:
    """What is subtracted [S] from returns without the extra pay: that, and the extra which is in them, in the end."""
    _, _, V, mean_V = beginner()
    paid = extra / (1 - GAMMA)  # in every return, as it is paid for ever
    baseline = size * ((V if kind == OF_STATE else np.full_like(V, mean_V)) + paid) - paid
    baseline[FALLEN] = 0
    return np.asarray(baseline)


@functools.lru_cache(maxsize=512)
def baseline_error(kind: str, size: float, extra: float = 0.0) -> GradientError:
    """Monte Carlo returns, with `extra` paid for every step for ever, less `size` times the baseline of this kind."""
    mdp, pi, _, _ = beginner()
    return gradient_error(mdp, pi, baseline_of(kind, size, extra), 1.0)


SAMPLES = 1000


def compute_baselines(kind: str, size: float, extra: float) -> Baselines:
    """Both kinds at every size, and the one that is set."""
    noise = {
        each: np.array([baseline_error(each, float(x), extra).noise for x in SIZES]) / math.sqrt(SAMPLES)
        for each in (CONSTANT, OF_STATE)
    }
    here = baseline_error(kind, float(size), extra)
    mdp, pi, _, _ = beginner()
    mean, square = (x[:FALLEN] for x in estimate_moments(mdp, pi, baseline_of(kind, size, extra), 1.0))
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    return Baselines(kind, size, extra, mean, spread, noise, here.bias, here.noise / math.sqrt(SAMPLES))


def facts_of_baselines(numbers: Baselines) -> str:
    """Bias and noise."""
    return (
        f"bias below 1e-9 of the gradient: {'yes' if numbers.bias_here < 1e-9 else 'no'}\n"
        f"noise of {SAMPLES} samples: {text(100 * numbers.noise_here)} % of the gradient's length"
    )


def draw_baselines(numbers: Baselines, figure: FigureBase) -> None:
    """Left, what is left of the returns on every lean, for both pushes; right, noise against the baseline's size."""
    left, right = figure.subplots(1, 2)
    left.axhline(0, color=GREY, linewidth=1.2, linestyle="-")
    for action, (name, color, marker, beside) in enumerate((("left", BLUE, "<", -0.12), ("right", ORANGE, ">", 0.12))):
        places, column = LEANS + beside, (numbers.left[:, action], numbers.spread[:, action])
        left.errorbar(places, *column, color=color, linestyle="none", marker=marker, capsize=2, label=f"push {name}")
    middle = numbers.left.mean()
    left.set(title="what is left", xlabel="lean", ylim=(min(-26.0, middle - 30), max(34.0, middle + 30)))
    left.set_xticks(LEANS[::2])
    left.legend(loc="upper right", fontsize=9)
    for kind, color, dashes in ((CONSTANT, ORANGE, "--"), (OF_STATE, BLUE, "-")):
        right.plot(SIZES, 100 * numbers.noise[kind], color=color, linestyle=dashes, label=kind)
    right.plot(numbers.size, 100 * numbers.noise_here, "o", color=BLACK, markersize=9, zorder=4, label="here")
    highest = 105 * max(float(noise.max()) for noise in numbers.noise.values())
    right.set(title="noise, %", xlabel="size of the baseline", ylim=(0, highest))
    right.legend(loc="lower left", fontsize=9)


def alt_of_baselines(numbers: Baselines) -> str:
    """What the picture shows."""
    above = int((numbers.left - numbers.spread > 0).sum())
    return (
        f"Left, what is left of the return on nine leans for two pushes, with bars of a standard deviation; {above} of "
        f"the 18 bars lie wholly above 0. Right, noise against the size of the baseline, for a constant and for V of "
        f"the state; a dot at size {numbers.size:g} on the curve of {numbers.kind} marks "
        f"{text(100 * numbers.noise_here)} %."
    )


def baseline_explorer() -> Explorer[Baselines]:
    """Kind and size of the baseline, and what every step pays on top, against the noise of the gradient."""
    return Explorer(
        "What does a baseline leave of the returns, and how much noise is in that?",
        compute=compute_baselines,
        facts=facts_of_baselines,
        draw=draw_baselines,
        alt=alt_of_baselines,
        controls=[
            Choice("kind", "baseline", [CONSTANT, OF_STATE], CONSTANT),
            Slider("size", "size", 0.0, 2.0, 0.1, 0.0),
            Stops("extra", "paid more for every step, for ever", [0.0, 0.1, 0.3, 1.0], 0.0),
        ],
        size=(8.4, 3.9),
    )


# ---- explorer: lambda ------------------------------------------------------------------------------------------------

LAMBDAS = [0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 1.0]


@dataclass(frozen=True)
class Slide:
    """GAE with a value function that knows `know` of how the states differ, from `samples` samples."""

    lam: float
    know: float
    samples: int
    exact: Floats  # [9] A(s, right) - A(s, left) on every lean
    estimate: Floats  # [9] the same, as estimated on average
    spread: Floats  # [9] standard error of that difference
    errors: tuple[GradientError, ...]  # one for each of LAMBDAS

    @property
    def here(self) -> GradientError:
        """The error at this lambda."""
        return self.errors[LAMBDAS.index(self.lam)]

    @property
    def best(self) -> float:
        """The lambda, of those on the slider, with the least total error."""
        return LAMBDAS[int(np.argmin([error.total(self.samples) for error in self.errors]))]


@functools.lru_cache(maxsize=64)
def value_guess(know: float) -> tuple[float, ...]:
    """V of every state [S] as a value function has it that knows the mean, and `know` of the differences."""
    _, _, V, mean_V = beginner()
    guess = mean_V + know * (V - mean_V)
    guess[FALLEN] = 0  # what follows an end is known
    return tuple(guess.tolist())


@functools.lru_cache(maxsize=256)
def lambda_error(know: float, lam: float) -> GradientError:
    """The error of the gradient, for this value function and lambda."""
    mdp, pi, _, _ = beginner()
    return gradient_error(mdp, pi, np.array(value_guess(know)), lam)


def compute_slide(lam: float, know: float, samples: int) -> Slide:
    """The whole curve over lambda, and the estimates at one."""
    mdp, pi, _, _ = beginner()
    mean, square = (x[:FALLEN] for x in estimate_moments(mdp, pi, np.array(value_guess(know)), lam))
    A = evaluate_policy(mdp, pi).A.numpy()[:FALLEN]
    expected_count = samples * visits(mdp, pi)[:FALLEN, None] * pi.numpy()[:FALLEN]
    # With lambda = 0 some estimates are the same every time, and rounding may leave a variance below zero.
    spread = np.sqrt((np.maximum(square - mean**2, 0) / expected_count).sum(1))
    errors = tuple(lambda_error(know, each) for each in LAMBDAS)
    return Slide(lam, know, samples, A[:, 1] - A[:, 0], mean[:, 1] - mean[:, 0], spread, errors)


def facts_of_slide(numbers: Slide) -> str:
    """Bias, noise and both together, in percent of the gradient's length."""
    here = numbers.here
    parts = (here.bias, here.noise / math.sqrt(numbers.samples), here.total(numbers.samples))
    bias, noise, total = (text(100 * part) if part > 1e-9 else "0" for part in parts)
    return f"gradient: bias {bias} %, noise {noise} %, together {total} % of its length"


def draw_slide(numbers: Slide, figure: FigureBase) -> None:
    """First what right is worth more than left, on every lean; then bias and noise against lambda."""
    first, second = figure.subplots(*((2, 1) if upright(figure) else (1, 2)))
    first.axhline(0, color=GREY, linewidth=1, linestyle="-")
    first.plot(LEANS, numbers.exact, color=BLACK, linestyle="-", marker="s", markersize=5, label="exact")
    first.errorbar(
        LEANS, numbers.estimate, numbers.spread, color=BLUE, linestyle="--", marker="o", capsize=3, label="estimate"
    )
    reach = max(20.0, 1.1 * float((np.abs(numbers.estimate) + numbers.spread).max()))
    first.set(title="A(right) - A(left)", xlabel="lean", ylim=(-reach, reach))
    first.set_xticks(LEANS)
    first.legend(loc="upper right", fontsize=9)
    places = np.arange(len(LAMBDAS))
    bias = [100 * error.bias for error in numbers.errors]
    noise = [100 * error.noise / math.sqrt(numbers.samples) for error in numbers.errors]
    total = [100 * error.total(numbers.samples) for error in numbers.errors]
    curves = (
        ("bias", bias, VERMILION, "--", "v"),
        ("noise", noise, ORANGE, "-.", "^"),
        ("both", total, BLUE, "-", "o"),
    )
    for name, curve, color, dashes, marker in curves:
        second.plot(places, curve, color=color, linestyle=dashes, marker=marker, markersize=5, label=name)
    second.axvline(LAMBDAS.index(numbers.lam), color=GREY, linestyle=":", linewidth=1.5)
    second.set(title="error, % of the gradient", xlabel="lambda", ylim=(0, 1.4 * max(total)))
    second.set_xticks(places, [f"{lam:g}" for lam in LAMBDAS])
    second.legend(loc="upper center", fontsize=9, ncols=3, frameon=True, framealpha=1, edgecolor="none")


def alt_of_slide(numbers: Slide) -> str:
    """What the picture shows."""
    bias = "bias falling" if max(error.bias for error in numbers.errors) > 1e-9 else "bias at zero"
    return (
        f"Two panels. One: what pushing right is worth more than pushing left on each lean, exact and with error bars. "
        f"The other: {bias} and noise rising with lambda; together they are least at {numbers.best:g}, and "
        f"{text(100 * numbers.here.total(numbers.samples))} % at {numbers.lam:g}."
    )


def lambda_explorer() -> Explorer[Slide]:
    """Lambda, what V knows and the number of samples against bias and noise."""
    return Explorer(
        "Which lambda, for how good a value function and how many samples?",
        compute=compute_slide,
        facts=facts_of_slide,
        draw=draw_slide,
        alt=alt_of_slide,
        controls=[
            Stops("lam", "lambda", LAMBDAS, 1.0),
            Stops("know", "V knows, of how states differ", [0.0, 0.5, 0.8, 0.95, 1.0], 0.0),
            Stops("samples", "samples", [100, 1000, 10_000, 100_000], 1000),
        ],
        size=(8.4, 4.0),
        panel_height=5.2,
    )


# ---- pictures of the balancing act -----------------------------------------------------------------------------------


def draw_leans(figure: FigureBase, path: SinglePath) -> None:
    """The lean of every copy [T, E] against the rows of a record, each episode a line, with a mark at its end."""
    last = len(path.rewards) - 1
    panels = np.atleast_1d(figure.subplots(path.rewards.shape[1], 1, sharex=True, sharey=True))
    for e, axes in enumerate(panels):
        leans = path.raw_obs[:, e].argmax(-1) - UPRIGHT
        ends = torch.nonzero((path.terminated | path.truncated)[:, e]).flatten().tolist()
        for first, end in zip([0, *(t + 1 for t in ends)], [*ends, last], strict=True):
            axes.plot(range(first, end + 1), leans[first : end + 1], color=BLUE, linestyle="-")
        for flags, marker, color, name in (
            (path.terminated, "X", VERMILION, "fell"),
            (path.truncated, ">", GREEN, "time limit"),
        ):
            at = torch.nonzero(flags[:, e]).flatten()
            axes.plot(at, leans[at], marker, color=color, markersize=9, label=name)
        axes.set(ylabel=f"copy {e}", ylim=(-5, 5))
    panels[-1].set_xlabel("row")
    panels[-1].legend(loc="lower right", ncols=2, fontsize=9)


def draw_by_age(figure: FigureBase, ages: Sequence[int], means: Mapping[str, Sequence[float]], exact: float) -> None:
    """Mean returns of one state against the age of the episode, by what stands at the limit: "V" or "0"."""
    axes = figure.subplots()
    axes.axhline(exact, color=BLACK, linewidth=1.2, label="exact")
    for name, color, dashes, marker in (("V", BLUE, "-", "o"), ("0", VERMILION, "--", "s")):
        label = f"{name} at the limit"
        axes.plot(ages, means[name], color=color, linestyle=dashes, marker=marker, ms=4, label=label)
    axes.set(xlabel="age of the episode, steps", ylabel="mean return, upright", ylim=(0, 55))
    axes.legend(loc="lower left")


# ---- a run to watch --------------------------------------------------------------------------------------------------

Row = Mapping[str, float]
DRAWINGS = 12  # a drawing takes a quarter of a second


def watch_learning(config: TrainConfig) -> tuple[Run, list[dict[str, float]]]:
    """Train by `config`, drawing each report as it comes; the policy that was learned, and the rows.

    A row is what progress.csv holds, and `return`: the mean over the episodes that ended in this iteration.
    """
    alt = f"Four curves over the iterations of TRPO on {config.task}: return, KL, gains, and explained variance."
    live, rows = LivePicture(alt, 8.4, 4.8), list[dict[str, float]]()
    with torch_threads(torch.get_num_threads()), closing(Trainer(config)) as trainer:  # the trainer sets its own
        for left in reversed(range(config.iterations)):
            row = trainer.iterate()
            ended = list(trainer.recent)[-row["episodes"] :] if row["episodes"] else []
            rows.append({**row, "return": float(np.mean([r for r, _ in ended])) if ended else math.nan})
            if left % max(1, config.iterations // DRAWINGS) == 0:
                live.redraw(lambda figure: draw_report(figure, rows, config))
        spaces = Spaces.of(trainer.sampler.envs[0])
        run = Run(Path(), config, trainer.policy, trainer.theta, trainer.statistics, spaces, trainer.iteration)
    return run, rows


def draw_report(figure: FigureBase, rows: Sequence[Row], config: TrainConfig) -> None:
    """Return, KL, gains and explained variance, against iterations."""
    (returns, kl), (gains, explained) = figure.subplots(2, 2, sharex=True)
    iterations = np.array([row["iteration"] for row in rows])

    def plot(axes: Axes, name: str, color: str, dashes: str = "-", label: str = "", unit: float = 1.0) -> None:
        column = np.array([row[name] for row in rows]) / unit
        known = np.isfinite(column)
        axes.plot(iterations[known], column[known], color=color, linestyle=dashes, marker="o", ms=3, label=label)

    plot(returns, "return", BLUE)
    returns.set(title="return of the episodes that ended", xlim=(0.5, config.iterations + 0.5))
    plot(kl, "mean_kl", VERMILION, unit=config.delta)
    kl.axhline(1, color=GREY, linestyle="--", linewidth=1.2)
    kl.set(title="mean KL / delta", ylim=(0, 1.15))
    plot(gains, "predicted_gain", ORANGE, "--", "promised")
    plot(gains, "surrogate_gain", BLUE, "-", "on the batch")
    gains.set(title="gain of L", xlabel="iteration")
    gains.set_ylim(bottom=0)
    gains.legend(fontsize=9)
    plot(explained, "explained_variance", GREEN)
    explained.set(title="explained variance of V", xlabel="iteration", ylim=(-0.25, 1.05))
