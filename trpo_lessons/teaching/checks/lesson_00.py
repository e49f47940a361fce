"""Checks of lesson 00, Start here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.teaching.checks import Check

Floats = npt.NDArray[np.float64]

# ---- discounted_returns ----------------------------------------------------------------------------------------------

discounted_returns = Check(
    "discounted_returns",
    minutes=8,
    inputs=lambda rng: (rng.normal(size=6), float(rng.uniform(0.5, 0.9))),
)
ReturnsFunction = Callable[[Floats, float], Floats]


@discounted_returns.property("The last entry should be the last reward itself: nothing comes after it.")
def last_return_is_last_reward(student: ReturnsFunction, rng: Generator) -> bool:
    rewards = rng.normal(size=4)
    return bool(abs(student(rewards, 0.7)[-1] - rewards[-1]) < 1e-12)


@discounted_returns.property("Each entry should be its own reward plus gamma times the entry after it.")
def returns_obey_the_recursion(student: ReturnsFunction, rng: Generator) -> bool:
    rewards, gamma = rng.normal(size=7), float(rng.uniform(0.3, 0.99))
    returns = student(rewards, gamma)
    return bool(np.allclose(returns[:-1], rewards[:-1] + gamma * returns[1:], rtol=0, atol=1e-10))


@discounted_returns.mistake(
    "order",
    "You add up from the first step on, so each entry holds the past of its step. It is tempting because the loop runs "
    "in the order of time; but what an action earns comes after it, so the sum has to be built from the end.",
)
def from_the_front(rewards: Floats, gamma: float) -> Floats:
    returns, total = np.zeros(len(rewards)), 0.0
    for t, reward in enumerate(rewards):
        total = reward + gamma * total
        returns[t] = total
    return returns


@discounted_returns.mistake(
    "concept",
    "You discount from the start of the episode: entry t comes out gamma**t too small. It is tempting because eta is "
    "written so; but a return is counted from its own step, where the first reward has weight 1.",
)
def discounts_from_the_start(rewards: Floats, gamma: float) -> Floats:
    weighted = rewards * gamma ** np.arange(len(rewards))
    return np.cumsum(weighted[::-1])[::-1].copy()


@discounted_returns.mistake(
    "concept",
    "You add the rewards up and never discount them. It is tempting because what is still to come is what an "
    "action earns; but a reward that comes k steps later counts gamma**k.",
)
def never_discounts(rewards: Floats, _gamma: float) -> Floats:
    return np.cumsum(rewards[::-1])[::-1].copy()


@discounted_returns.mistake(
    "concept",
    "You add gamma times the next reward, and stop there. It is tempting because the formula looks one step ahead; but "
    "what stands there is the next return, which holds everything that follows.",
)
def looks_one_step_ahead(rewards: Floats, gamma: float) -> Floats:
    return rewards + gamma * np.append(rewards[1:], 0.0)


@discounted_returns.mistake(
    "concept",
    "Every entry is the return of the whole episode. It is tempting because that is one sum; but an action cannot be "
    "credited with rewards that came before it.",
)
def whole_episode_everywhere(rewards: Floats, gamma: float) -> Floats:
    return np.full(len(rewards), float(rewards @ gamma ** np.arange(len(rewards))))


@discounted_returns.mistake(
    "indexing",
    "You discount the first reward too: every entry is gamma times too small. It is tempting because gamma multiplies "
    "everything in the loop; but it belongs to the future alone.",
)
def discounts_the_present(rewards: Floats, gamma: float) -> Floats:
    returns, future = np.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        future = gamma * (rewards[t] + future)
        returns[t] = future
    return returns


@discounted_returns.mistake(
    "order",
    "Your numbers are right, but in the order in which you found them: the last step comes first. It is tempting to "
    "append while walking backward; then the list has to be turned around.",
)
def never_turned_around(rewards: Floats, gamma: float) -> Floats:
    returns, future = [], 0.0
    for reward in rewards[::-1]:
        future = reward + gamma * future
        returns.append(future)
    return np.array(returns)


# ---- best_candidate --------------------------------------------------------------------------------------------------


def candidates(rng: Generator) -> tuple[Floats, Floats, float]:
    """Twelve policies that promise more the further away they are, and a penalty that stops some of them."""
    kl = np.sort(rng.uniform(0.0, 1.0, size=12))
    return np.sqrt(kl) + rng.normal(scale=0.2, size=12), kl, float(rng.uniform(0.3, 3.0))


best_candidate = Check("best_candidate", minutes=5, inputs=candidates)
ChoiceFunction = Callable[[Floats, Floats, float], int]


@best_candidate.property("An index is asked for: a whole number from 0 to one less than the number of candidates.")
def returns_an_index(student: ChoiceFunction, rng: Generator) -> bool:
    L, kl, C = candidates(rng)
    return student(L, kl, C) in range(len(L))


@best_candidate.property("Among candidates that are equally far away, the one with the largest L should be chosen.")
def prefers_large_l(student: ChoiceFunction, rng: Generator) -> bool:
    L = rng.normal(size=8)
    return student(L, np.full(8, 0.3), 1.0) == int(L.argmax())


@best_candidate.property("Among candidates with the same L, the closest one should be chosen: distance is penalized.")
def prefers_closeness(student: ChoiceFunction, rng: Generator) -> bool:
    kl = rng.uniform(0.1, 1.0, size=8)
    return student(np.full(8, 0.3), kl, 1.0) == int(kl.argmin())


@best_candidate.mistake(
    "sign",
    "You minimize L + C kl, which is the paper's form, for costs. It is tempting to copy it; but L counts rewards "
    "here, so what is bounded is bounded from below, and the largest lower bound is wanted.",
)
def minimizes_like_the_paper(L: Floats, kl: Floats, C: float) -> int:
    return int(np.argmin(L + C * kl))


@best_candidate.mistake(
    "sign",
    "You maximize L + C kl: the further away, the better. It is tempting to turn min into max and leave the rest; but "
    "only L changes its sign, the penalty is a distance and has to be subtracted.",
)
def rewards_distance(L: Floats, kl: Floats, C: float) -> int:
    return int(np.argmax(L + C * kl))


@best_candidate.mistake(
    "concept",
    "You maximize L alone. It is tempting because L is what is promised; but L can be trusted only near the old "
    "policy, and the penalty says how much is lost with the distance.",
)
def trusts_the_promise(L: Floats, kl: Floats, C: float) -> int:  # noqa: ARG001
    return int(np.argmax(L))


@best_candidate.mistake(
    "constant",
    "You subtract the distance as it is, without C. It is tempting because L minus distance looks complete; but C says "
    "how much of a promise each nat of distance may cost, and it can be any size.",
)
def forgets_the_factor(L: Floats, kl: Floats, _C: float) -> int:
    return int(np.argmax(L - kl))


@best_candidate.mistake(
    "concept",
    "You maximize L per unit of distance. It is tempting as a rate of return; but the bound is a difference, and a "
    "ratio prefers a candidate that goes nowhere.",
)
def ratio_instead_of_difference(L: Floats, kl: Floats, C: float) -> int:
    return int(np.argmax(L / (C * kl)))


# ---- softmax_log_prob ------------------------------------------------------------------------------------------------


def logits_and_actions(rng: Generator) -> tuple[Tensor, Tensor]:
    """Logits [5, 3], one row of them large, and an action for each row."""
    logits = torch.from_numpy(rng.normal(size=(5, 3)))
    logits[2] += 1000.0
    return logits, torch.from_numpy(rng.integers(3, size=5))


softmax_log_prob = Check("softmax_log_prob", minutes=8, inputs=logits_and_actions)
LogProbFunction = Callable[[Tensor, Tensor], Tensor]


@softmax_log_prob.property("The probabilities of all actions in a state should add up to 1.")
def probabilities_add_up(student: LogProbFunction, rng: Generator) -> bool:
    logits = torch.from_numpy(rng.normal(size=(1, 4))).expand(4, 4).clone()
    return abs(float(student(logits, torch.arange(4)).exp().sum()) - 1) < 1e-10


@softmax_log_prob.property("Adding the same number to all logits of a state should change nothing.")
def constants_do_nothing(student: LogProbFunction, rng: Generator) -> bool:
    logits, actions = torch.from_numpy(rng.normal(size=(3, 4))), torch.from_numpy(rng.integers(4, size=3))
    return bool(torch.allclose(student(logits, actions), student(logits + 5.0, actions), rtol=0, atol=1e-10))


@softmax_log_prob.property("What one state's logits are should not matter to the other states.")
def states_are_independent(student: LogProbFunction, rng: Generator) -> bool:
    logits, actions = torch.from_numpy(rng.normal(size=(3, 4))), torch.from_numpy(rng.integers(4, size=3))
    other = logits.clone()
    other[0] = torch.from_numpy(rng.normal(size=4))
    return bool(torch.allclose(student(logits, actions)[1:], student(other, actions)[1:], rtol=0, atol=1e-10))


@softmax_log_prob.mistake(
    "numerics",
    "Your exponentials overflow: for logits near 1000 you return NaN. It is tempting to write log(exp / sum of exp) as "
    "in the formula; subtract the row's largest logit first, or use torch.logsumexp.",
)
def overflows(logits: Tensor, actions: Tensor) -> Tensor:
    exponentials = logits.exp()
    return (exponentials[torch.arange(len(actions)), actions] / exponentials.sum(1)).log()


@softmax_log_prob.mistake(
    "conditioning",
    "You normalize over the states instead of the actions. It is tempting because dim=0 comes first; but pi(a|s) is a "
    "distribution over actions in each state, so the sum runs along dim=1.",
)
def normalizes_over_states(logits: Tensor, actions: Tensor) -> Tensor:
    return torch.log_softmax(logits, dim=0)[torch.arange(len(actions)), actions]


@softmax_log_prob.mistake(
    "sign",
    "You return minus the log probability. It is tempting because that is what a cross-entropy loss minimizes; here "
    "the log probability itself is asked for, and it is never above 0.",
)
def cross_entropy(logits: Tensor, actions: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits, actions, reduction="none")


@softmax_log_prob.mistake(
    "concept",
    "You return probabilities, not their logarithms. It is tempting because softmax ends there; but a trajectory's "
    "probability is a product, and sums of logarithms are what stays accurate.",
)
def plain_probabilities(logits: Tensor, actions: Tensor) -> Tensor:
    return torch.softmax(logits, dim=1)[torch.arange(len(actions)), actions]


@softmax_log_prob.mistake(
    "concept",
    "You subtract the largest logit and stop there. It is tempting because that is the step that prevents overflow; "
    "the logarithm of the sum of the exponentials still has to be subtracted.",
)
def never_normalized(logits: Tensor, actions: Tensor) -> Tensor:
    return logits[torch.arange(len(actions)), actions] - logits.max(dim=1).values
