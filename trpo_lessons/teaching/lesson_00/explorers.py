"""Explorers of lesson 00: how far ahead to look, and how long a step a policy survives."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from torch import Tensor

from trpo_lessons import envs
from trpo_lessons.advantages import gae
from trpo_lessons.doctor import Finding
from trpo_lessons.envs.cartpole import MAX_POSITION
from trpo_lessons.envs.obs_statistics import RunningMoments
from trpo_lessons.mdp import TabularMDP, as_float64, evaluate_policy
from trpo_lessons.policies import CategoricalHead, Policy, mlp_policy
from trpo_lessons.problem import Problem
from trpo_lessons.single_path import Actor, by_environment, sample_single_path
from trpo_lessons.surrogate import Batch, surrogate_gradient
from trpo_lessons.teaching.explorers import Explorer, Slider, Stops
from trpo_lessons.teaching.pictures import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION, LivePicture
from trpo_lessons.trpo import TrustRegion, trpo_update
from trpo_lessons.value_function import ValueFunction, values_along

Floats = npt.NDArray[np.float64]

# ---- what this machine can do ---------------------------------------------------------------------------------------


def findings_table(findings: Sequence[Finding]) -> Markdown:
    """The doctor's findings as a table, without the folders of this machine."""

    def cell(text: str) -> str:
        return re.sub(r"(?:~|[A-Z]:)?(?:[\\/][\w.@+-]+)+[\\/]", "…/", text).replace("|", "\\|")

    rows = [f"| {f.name} | {f.verdict} | {cell(f.detail)} | {cell(f.remedy)} |" for f in findings]
    return Markdown("\n".join(["| part | verdict | found | what to do |", "|---|---|---|---|", *rows]))  # type: ignore[no-untyped-call]


# ---- the machine that breaks ----------------------------------------------------------------------------------------

WORKS, BROKEN = 0, 1
RUN, SERVICE = 0, 1


def machine(gamma: float) -> TabularMDP:
    """The machine of the lesson: run it or service it, whether it works or is broken."""
    P = np.zeros((2, 2, 2))
    P[WORKS, RUN] = 0.8, 0.2
    P[WORKS, SERVICE] = 0.95, 0.05
    P[BROKEN, RUN] = 0.0, 1.0
    P[BROKEN, SERVICE] = 0.6, 0.4
    return TabularMDP(as_float64(P), as_float64([[1.0, 0.0], [0.0, -0.5]]), as_float64([1.0, 0.0]), gamma)


@dataclass(frozen=True)
class Foresight:
    """What the discount decides: how the days are weighted, and eta of repairing with every probability."""

    gamma: float
    weights: Floats  # [31]: gamma ** t
    repair: Floats  # [n]: probability of service when broken
    eta: Floats  # [n]
    advantage: float  # of always repairing over never


def compute_foresight(gamma: float) -> Foresight:
    """Run a working machine; service a broken one with every probability between 0 and 1."""
    repair = np.linspace(0.0, 1.0, 21)
    policies = np.stack([[[1.0, 0.0], [1 - q, q]] for q in repair])
    eta = evaluate_policy(machine(gamma), policies).eta.numpy()
    return Foresight(gamma, gamma ** np.arange(31.0), repair, eta, float(eta[-1] - eta[0]))


def repairing_pays(numbers: Foresight) -> str:
    """Yes, no, or neither."""
    if abs(numbers.advantage) < 1e-9:
        return "neither, it makes no difference"
    return "yes" if numbers.advantage > 0 else "no"


def foresight_facts(numbers: Foresight) -> str:
    """Closed forms of gamma."""
    return (
        f"gamma = {numbers.gamma:.3g}: the weights of all days add up to {1 / (1 - numbers.gamma):.3g}\n"
        f"eta of a machine that is never repaired: {numbers.eta[0]:.3g}, always repaired: {numbers.eta[-1]:.3g}\n"
        f"does repairing pay? {repairing_pays(numbers)}"
    )


def foresight_alt(numbers: Foresight) -> str:
    """What the two panels show."""
    trend = {"yes": "rises", "no": "falls"}.get(repairing_pays(numbers), "stays level")
    return (
        f"Left, the weight of each day, falling from 1 by the factor {numbers.gamma:.3g} a day. Right, eta {trend} "
        f"from {numbers.eta[0]:.3g} to {numbers.eta[-1]:.3g} as repairs become certain."
    )


def draw_foresight(numbers: Foresight, figure: FigureBase) -> None:
    """Weights of the days on the left, eta against the probability of repair on the right."""
    left, right = figure.subplots(1, 2)
    left.bar(np.arange(31), numbers.weights, color=BLUE)
    left.set(xlabel="day", ylabel="what 1 counts that day", ylim=(0, 1.05))
    right.plot(numbers.repair, numbers.eta, color=VERMILION, linestyle="-")
    right.plot(numbers.repair[[0, -1]], numbers.eta[[0, -1]], "o", color=VERMILION)
    middle = float(numbers.eta.mean())
    spread = max(1.2 * float(np.abs(numbers.eta - middle).max()), 0.1)
    right.set(xlabel="probability of repair", ylabel="eta", ylim=(middle - spread, middle + spread))


def foresight() -> Explorer[Foresight]:
    """How far ahead should you look?"""
    return Explorer(
        "How far ahead must you look for a repair to pay?",
        compute=compute_foresight,
        facts=foresight_facts,
        draw=draw_foresight,
        alt=foresight_alt,
        controls=[Slider("gamma", "discount gamma", 0.05, 0.95, 0.05, 0.9)],
        size=(8.0, 3.2),
    )


# ---- cart-pole: one step size against one trust region ---------------------------------------------------------------

LOOKS = ((BLUE, "-", "o"), (VERMILION, "--", "s"), (GREEN, ":", "^"), (PURPLE, "-.", "D"))
Update = Callable[[Policy, Tensor, Batch], Tensor]
NUM_ENVS, ROWS, ITERATIONS = 40, 50, 25
MOST = 500.0  # an episode of CartPole-v1 has at most so many steps
POLICY = mlp_policy(4, CategoricalHead(2), hidden=(32,))


@dataclass(frozen=True)
class Snapshot:
    """A learner between two iterations: its parameters, what it knows of the observations, and its record so far."""

    theta: Tensor
    statistics: RunningMoments
    steps_per_fall: tuple[float, ...]  # steps taken for each fall, at most 500; one entry an iteration

    @property
    def recent(self) -> float:
        """Mean steps per fall of the last five iterations."""
        return float(np.mean(self.steps_per_fall[-5:]))


def learn(update: Update, seed: int = 0) -> Iterator[Snapshot]:
    """Learn cart-pole from 2000 steps an iteration; methods differ in `update(policy, theta, batch) -> theta` alone.

    Yields a snapshot after every iteration.
    """
    generator = torch.Generator().manual_seed(seed)
    env = envs.make("cartpole", NUM_ENVS)
    theta, statistics = POLICY.initial_theta(generator), RunningMoments.empty(4)
    value = ValueFunction(4, (32,), generator=generator)
    raw_obs = torch.as_tensor(env.reset(seed=seed)[0])
    record: list[float] = []
    for _ in range(ITERATIONS):
        path = sample_single_path(env, Actor(POLICY, theta, statistics), raw_obs, ROWS, generator)
        values, next_values = values_along(path, statistics, value)
        advantages = gae(path.rewards, values, next_values, path.terminated, path.truncated, gamma=0.99, lam=0.95)
        batch = path.batch((advantages - advantages.mean()) / advantages.std())
        theta = update(POLICY, theta, batch)
        value.fit(batch.obs, by_environment(advantages + values))
        statistics, raw_obs = statistics.including(path.raw_obs.flatten(0, 1)), path.next_obs
        record.append(min(path.num_steps / max(int(path.terminated.sum()), 1), MOST))
        yield Snapshot(theta, statistics, tuple(record))


def first_batch(seed: int = 0) -> tuple[Policy, Tensor, Batch]:
    """A policy that knows nothing yet, its parameters, and 2000 steps of its experience, advantages standardized."""
    seen: list[tuple[Policy, Tensor, Batch]] = []

    def keep(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
        seen.append((policy, theta, batch))
        return theta

    next(learn(keep, seed))
    return seen[0]


def race(updates: Mapping[str, Update], seed: int = 0) -> dict[str, Snapshot]:
    """Let several methods learn side by side, drawing their records as they go; the last snapshot of each."""
    alt = "Steps per fall against iterations, for " + " and ".join(updates) + "."
    live = LivePicture(alt, 7.0, 3.2)
    latest: dict[str, Snapshot] = {}
    for together in zip(*(learn(update, seed) for update in updates.values()), strict=True):
        latest = dict(zip(updates, together, strict=True))
        live.redraw(lambda figure, now=latest: draw_records(figure.subplots(), records_of(now)))  # type: ignore[misc]
    return latest


def records_of(snapshots: Mapping[str, Snapshot]) -> dict[str, tuple[float, ...]]:
    """The record of each."""
    return {name: snapshot.steps_per_fall for name, snapshot in snapshots.items()}


def draw_records(axes: Axes, records: Mapping[str, tuple[float, ...]]) -> None:
    """Steps per fall, on a logarithmic axis, against iterations."""
    for (name, record), (color, dash, marker) in zip(records.items(), LOOKS, strict=False):
        axes.plot(range(1, len(record) + 1), record, color=color, linestyle=dash, marker=marker, ms=4, label=name)
    axes.set(xlim=(0.5, ITERATIONS + 0.5), ylim=(7, 650), yscale="log", xlabel="iteration", ylabel="steps per fall")
    axes.set_yticks([10, 30, 100, 300, 500], ["10", "30", "100", "300", "500"])
    axes.minorticks_off()
    axes.legend(loc="upper left", bbox_to_anchor=(0, 1.16), ncols=2)


def balance(snapshot: Snapshot, seed: int = 0, steps: int = 500) -> Floats:
    """The states [T + 1, 4] of one episode with the most likely action in every state, until it ends or `steps`."""
    env = envs.make("cartpole", 1)
    raw_obs, _ = env.reset(seed=10_000 + seed)
    states = [raw_obs[0].copy()]
    for _ in range(steps):
        with torch.no_grad():
            obs = snapshot.statistics.normalise(torch.as_tensor(raw_obs))
            action = POLICY(snapshot.theta, obs).mode()
        raw_obs, _, terminated, truncated, infos = env.step(action.numpy())
        ended = bool(terminated[0] or truncated[0])
        states.append((infos["final_obs"][0] if ended else raw_obs[0]).copy())
        if ended:
            break
    return np.array(states, dtype=np.float64)


def play(episodes: Mapping[str, Floats], frames: int = 30) -> None:
    """Play episodes side by side, in place; one that has ended keeps its last state."""
    lengths = {name: len(states) - 1 for name, states in episodes.items()}
    alt = "Carts with poles, one for each of " + " and ".join(lengths) + "."
    live = LivePicture(alt, 7.0, 2.2)
    # The first 120 steps (2.4 s of the cart's time) are shown one by one, the rest in the last frame.
    times = [*np.linspace(0, 120, frames - 1).round().astype(int), max(lengths.values())]
    for t in times:
        live.redraw(lambda figure, t=t: draw_carts(figure, episodes, int(t)))  # type: ignore[misc]


def draw_carts(figure: FigureBase, episodes: Mapping[str, Floats], t: int) -> None:
    """The carts at step `t`."""
    for axes, (name, states) in zip(np.atleast_1d(figure.subplots(1, len(episodes))), episodes.items(), strict=True):
        fallen = t >= len(states) - 1 and len(states) - 1 < MOST
        position, _, angle, _ = states[min(t, len(states) - 1)]
        axes.plot([-MAX_POSITION, MAX_POSITION], [0, 0], color=GREY, linestyle="-", linewidth=1)
        axes.plot([position - 0.35, position + 0.35], [0.08, 0.08], color=BLACK, linestyle="-", linewidth=12)
        tip = position + np.sin(angle), 0.16 + np.cos(angle)
        axes.plot([position, tip[0]], [0.16, tip[1]], color=ORANGE, linestyle="-", linewidth=6)
        verdict = f"fell at step {len(states) - 1}" if fallen else f"step {min(t, len(states) - 1)}"
        axes.set(xlim=(-MAX_POSITION, MAX_POSITION), ylim=(-0.1, 1.3), aspect="equal", title=f"{name}\n{verdict}")
        axes.axis("off")


@dataclass(frozen=True)
class Race:
    """TRPO and the vanilla gradient from the same start, and how each ended."""

    step_size: float
    seed: int
    trpo: tuple[float, ...]  # steps per fall, one entry an iteration
    vanilla: tuple[float, ...]


@functools.lru_cache(maxsize=64)
def record_of(step_size: float | None, seed: int) -> tuple[float, ...]:
    """The record of the vanilla gradient with this step size, or of TRPO if there is none."""

    def vanilla(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
        assert step_size is not None
        return theta + step_size * surrogate_gradient(policy, theta, batch)

    def trust_region(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
        return trpo_update(Problem(policy, batch), theta, TrustRegion(delta=0.02))[0]

    *_, last = learn(trust_region if step_size is None else vanilla, seed)
    return last.steps_per_fall


def compute_race(step_size: float, seed: int) -> Race:
    """Twenty-five iterations of each."""
    return Race(step_size, seed, record_of(None, seed), record_of(step_size, seed))


def ending(record: tuple[float, ...]) -> str:
    """How the last five iterations went, in words that do not depend on rounding."""
    recent = float(np.mean(record[-5:]))
    if recent < 100:
        return "keeps falling (fewer than 100 steps per fall)"
    return "stays up (more than 400 steps per fall)" if recent > 400 else "wobbles (100 to 400 steps per fall)"


def race_facts(numbers: Race) -> str:
    """Bands instead of numbers: learning is chaotic, and another machine rounds differently."""
    return (
        f"TRPO, delta 0.02: {ending(numbers.trpo)}\n"
        f"vanilla gradient, step size {numbers.step_size:g}: {ending(numbers.vanilla)}"
    )


def race_alt(numbers: Race) -> str:
    """What the two curves show."""
    return (
        f"Two learning curves over {ITERATIONS} iterations: in the end TRPO {ending(numbers.trpo)}, "
        f"the vanilla gradient {ending(numbers.vanilla)}."
    )


def draw_race(numbers: Race, figure: FigureBase) -> None:
    """The two records."""
    records = {"TRPO": numbers.trpo, f"vanilla, step size {numbers.step_size:g}": numbers.vanilla}
    draw_records(figure.subplots(), records)


def step_size() -> Explorer[Race]:
    """How long a step does the policy survive?"""
    return Explorer(
        "Which step size learns, and which one ruins?",
        compute=compute_race,
        facts=race_facts,
        draw=draw_race,
        alt=race_alt,
        controls=[
            Stops(
                "step_size",
                "step size of the vanilla gradient",
                [0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0],
                1.0,
            ),
            Slider("seed", "seed (luck)", 0, 4, 1, 0),
        ],
        size=(7.0, 3.4),
    )
