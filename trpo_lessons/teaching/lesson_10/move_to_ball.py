"""A problem that tells inputs apart and nothing else: move toward the ball. Lesson 10, section 3.

States are Breakout's, from random play. The joystick earns +1 for moving toward the ball's side and -1 for moving away:
the surrogate of every policy is then known exactly, for every action and without a single sample of it. Whatever
differs between two ways to show the same screens to the same network comes from the inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trpo_lessons.distributions import FactoredCategorical
from trpo_lessons.envs.atari.resize import AreaResize
from trpo_lessons.envs.atari.settings import FRAME_SKIP, STACK, joystick
from trpo_lessons.policies import FactoredHead, Policy, convolutional
from trpo_lessons.problem import Problem
from trpo_lessons.surrogate import States
from trpo_lessons.teaching.lesson_10.screens import HEIGHT, WIDTH, emulator
from trpo_lessons.teaching.lesson_10.shared import Bytes, Floats
from trpo_lessons.training.settings.obs_statistics import FrameMoments
from trpo_lessons.trpo import TrustRegion, trpo_update

SIZES = (3, 3, 2)
# Where Breakout keeps the columns of paddle and ball, and the row of the ball (0: there is none), among the console's
# 128 bytes of memory; Anand et al. (2019), "Unsupervised state representation learning in Atari".
PADDLE, BALL, BALL_ROW = 72, 99, 101


@dataclass(frozen=True)
class Sides(States):
    """States `obs` [N, 4, 52, 40] as a network sees them, and on which side of the paddle the ball is: -1 or 1 [N]."""

    side: Tensor


def toward(pi: FactoredCategorical, states: Sides) -> Tensor:
    """What a policy earns in each state, [N]: how much likelier it moves toward the ball than away from it."""
    left_right = pi.factors[0].log_probs.exp()
    return states.side * (left_right[:, 2] - left_right[:, 0])


def screens_with_a_ball(count: int, steps: int = 4000, seed: int = 0) -> tuple[Bytes, Floats]:
    """`count` observations of random play [count, 4, 52, 40], and the ball's side in each; both sides alike often."""
    rng, ale, codes = np.random.default_rng(seed), emulator("breakout"), joystick().ravel()
    resize = AreaResize(HEIGHT, WIDTH)
    frames, sides, fresh = [], [], 0
    for _ in range(steps):
        action, greys = int(codes[rng.integers(len(codes))]), []
        for frame in range(FRAME_SKIP):
            ale.act(action)
            greys += [ale.getScreenGrayscale()] if frame >= FRAME_SKIP - 2 else []
        memory = ale.getRAM().astype(int)
        frames.append(resize(np.maximum(*greys)))
        fresh += 1  # steps of this game: only then is a whole stack of it
        sides.append(np.sign(memory[BALL] - memory[PADDLE]) if memory[BALL_ROW] and fresh >= STACK else 0)
        if ale.game_over():
            ale.reset_game()
            fresh = 0
    chosen = [rng.permutation(np.flatnonzero(np.equal(sides, side)))[: count // 2] for side in (-1, 1)]
    order = rng.permutation(np.concatenate(chosen))
    stacks = np.array(frames)[order[:, None] + np.arange(1 - STACK, 1)]
    return stacks, np.array(sides, dtype=np.float64)[order]


def inputs(screens: Bytes) -> Mapping[str, Tensor]:
    """Four ways to show the same screens, float32 [N, 4, 52, 40]: with the background or without, in either unit."""
    pixels, statistics = torch.from_numpy(screens), FrameMoments.empty((HEIGHT, WIDTH))
    statistics = statistics.including(pixels[:, -1])
    normalised = statistics.normalise(pixels)
    bytes_ = pixels / 255
    unit = float((statistics.deviations.mean() / statistics.count).sqrt()) / 255
    return {
        "bytes / 255": bytes_,
        "bytes / deviation": bytes_ / unit,
        "without the background / 255": bytes_ - (statistics.mean / 255).float(),
        "normalized": normalised,
    }


def network() -> Policy:
    """The paper's, 33,500 parameters."""
    return Policy(convolutional((STACK, HEIGHT, WIDTH), (20,), sum(SIZES)), FactoredHead(SIZES))


@dataclass(frozen=True)
class Learned:
    """What updates came to.

    earned    in states that no update has seen: before the first update, and after each
    promised  the gain of each update by the slope, in the states that it learned from; `gained`, the true one
    """

    earned: list[float]
    promised: list[float]
    gained: list[float]

    @property
    def kept(self) -> float:
        """The share of all promises that was kept."""
        return sum(self.gained) / sum(self.promised)


def learn(obs: Tensor, sides: Floats, updates: int, seed: int = 0) -> Learned:
    """TRPO's updates with the class preset's settings; obs [2N, 4, 52, 40], of which the first half is learned from."""
    policy, half, toward_ball = network(), len(obs) // 2, torch.from_numpy(sides).float()
    known, unseen = Sides(obs[:half], toward_ball[:half]), Sides(obs[half:], toward_ball[half:])
    theta = policy.initial_theta(torch.Generator().manual_seed(seed))
    region = TrustRegion(delta=0.01, damping=0.1, shrink=0.8, max_backtracks=15, fisher_stride=4)

    def earned() -> float:
        with torch.no_grad():
            pi = policy(theta, unseen.obs)
            assert isinstance(pi, FactoredCategorical)
            return float(toward(pi, unseen).mean())

    found = Learned([earned()], [], [])
    for _ in range(updates):
        theta, report = trpo_update(Problem(policy, known, toward), theta, region)
        found.earned.append(earned())
        found.promised.append(report.predicted_gain)
        found.gained.append(report.actual_gain)
    return found


def fisher_spectrum(obs: Tensor, seed: int = 0) -> Floats:
    """The eigenvalues above 0 of the Fisher matrix at the first theta, from large to small, by N states `obs`.

    A = (1/N) sum of J^T M J has the eigenvalues of the much smaller B B^T, with B the rows M^(1/2) J / sqrt(N) of all
    states. Float64.
    """
    policy = network()
    theta = policy.initial_theta(torch.Generator().manual_seed(seed)).double().requires_grad_()
    rows = []
    for state in obs.double():
        pi = policy(theta, state[None])
        jacobian = torch.stack([torch.autograd.grad(each, theta, retain_graph=True)[0] for each in pi.parameters[0][0]])
        rows.append(root_of_metric(pi.parameters[0][0].detach(), pi.fisher_metric) @ jacobian)
    B = torch.cat(rows) / len(obs) ** 0.5
    values = torch.linalg.eigvalsh(B @ B.T).flip(0).numpy()
    return np.asarray(values[values > 1e-12 * values[0]])


def root_of_metric(logits: Tensor, metric: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]) -> Tensor:
    """M^(1/2) of one state, [outputs, outputs], from products with M."""
    columns = [metric((unit[None],))[0][0].detach() for unit in torch.eye(len(logits), dtype=logits.dtype)]
    values, vectors = torch.linalg.eigh(torch.stack(columns, dim=1))
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
