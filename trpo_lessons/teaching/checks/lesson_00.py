"""Checks of lesson 00, Start here."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

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
    return obeys_the_recursion(returns, rewards, gamma)


def obeys_the_recursion(returns: Floats, rewards: npt.NDArray[Any], gamma: float) -> bool:
    """Whether G_t = r_t + gamma G_{t+1} from the first step to the last, where G is the reward itself."""
    after = np.append(returns[1:], 0.0)
    return returns.shape == rewards.shape and bool(np.allclose(returns, rewards + gamma * after, rtol=1e-9, atol=1e-10))


@discounted_returns.property("An episode may have a single step: its return is its reward.")
def one_step_is_an_episode(student: ReturnsFunction, rng: Generator) -> bool:
    rewards = rng.normal(size=1)
    return obeys_the_recursion(student(rewards, 0.7), rewards, 0.7)


@discounted_returns.property(
    "Rewards may be whole numbers, in an array of integers, and your returns are then cut to whole numbers; tempting, "
    "because zeros_like(rewards) and rewards.copy() look like an empty array and keep the type. Ask for floats."
)
def whole_rewards_have_fractional_returns(student: ReturnsFunction, rng: Generator) -> bool:
    rewards = rng.integers(-3, 4, size=6)
    return obeys_the_recursion(student(rewards, 0.5), rewards, 0.5)  # type: ignore[arg-type]


@discounted_returns.property(
    "Short episodes come out right, one of 1200 steps does not. Dividing by gamma**t, or subtracting a long sum from "
    "a longer one, is tempting because it needs no loop; but late in an episode gamma**t is 0 to rounding, and the "
    "digits are gone. Build the sum from the end."
)
def long_episodes_keep_their_digits(student: ReturnsFunction, rng: Generator) -> bool:
    rewards = rng.normal(size=1200) * 10.0 ** rng.integers(-3, 4, size=1200)
    return obeys_the_recursion(student(rewards, 0.5), rewards, 0.5)


@discounted_returns.property(
    "With gamma = 0 only the present counts, and every return is its reward. Yours are not; a division by a power of "
    "gamma is tempting where sums are turned around, and here it divides by 0."
)
def without_a_future_returns_are_rewards(student: ReturnsFunction, rng: Generator) -> bool:
    rewards = rng.normal(size=5)
    return bool(np.allclose(student(rewards, 0.0), rewards, rtol=0, atol=1e-12))


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
    "indexing",
    "Each entry is the return of the step after it. It is tempting because what an action earns comes later; but the "
    "reward of a step is what its own action brought, and it comes first in its return.",
)
def starts_one_step_late(rewards: Floats, gamma: float) -> Floats:
    returns, future = np.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        returns[t] = future
        future = rewards[t] + gamma * future
    return returns


@discounted_returns.mistake(
    "termination",
    "You leave out the last step: its return is 0, and its reward is missing from all the others. It is tempting "
    "because the last step has no next one; but the return after it is 0, and its own reward still counts.",
)
def leaves_out_the_last_step(rewards: Floats, gamma: float) -> Floats:
    returns = np.zeros(len(rewards))
    for t in reversed(range(len(rewards) - 1)):
        returns[t] = rewards[t] + gamma * returns[t + 1]
    return returns


@discounted_returns.mistake(
    "concept",
    "You multiply each reward by gamma once, and add without discounting. It is tempting because every reward then "
    "has a gamma; but it is the future as a whole that is multiplied, once more at every step back.",
)
def discounts_rewards_once(rewards: Floats, gamma: float) -> Floats:
    return np.cumsum(gamma * rewards[::-1])[::-1].copy()


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
    """Forty policies that promise more the further away they are, and a penalty that stops some of them."""
    kl = rng.uniform(0.01, 1.0, size=40)
    return np.sqrt(kl) + rng.normal(scale=0.5, size=40), kl, float(rng.uniform(1.0, 5.0))


best_candidate = Check("best_candidate", minutes=5, inputs=candidates)
ChoiceFunction = Callable[[Floats, Floats, float], int]


@best_candidate.property("An index is asked for: a whole number from 0 to one less than the number of candidates.")
def returns_an_index(student: ChoiceFunction, rng: Generator) -> bool:
    L, kl, C = candidates(rng)
    return operator.index(student(L, kl, C)) in range(len(L))


@best_candidate.property(
    "Another candidate has a larger lower bound on its return than the one you choose. Write the bound for rewards "
    "down first, and then look for its largest value."
)
def has_the_largest_bound(student: ChoiceFunction, rng: Generator) -> bool:
    return all(chooses_the_best(student, *candidates(rng)) for _ in range(20))


def chooses_the_best(student: ChoiceFunction, L: Floats, kl: Floats, C: float) -> bool:
    """Whether no candidate has a larger lower bound; arguments are copies, so that none is used up."""
    bound = L - C * kl
    return bool(bound[student(L.copy(), kl.copy(), C)] == bound.max())


@best_candidate.property(
    "L may be negative for all of them, when every candidate promises a loss; the largest lower bound is still wanted."
)
def chooses_among_losses(student: ChoiceFunction, rng: Generator) -> bool:
    L, kl, C = candidates(rng)
    return chooses_the_best(student, L - 10.0, kl, C)


@best_candidate.property("With C = 0 distance costs nothing, and the candidate with the largest L should be chosen.")
def free_distance_leaves_l(student: ChoiceFunction, rng: Generator) -> bool:
    L, kl, _ = candidates(rng)
    return chooses_the_best(student, L, kl, 0.0)


@best_candidate.property("Among candidates with the same L, the closest one should be chosen: distance is penalized.")
def prefers_closeness(student: ChoiceFunction, rng: Generator) -> bool:
    kl = rng.uniform(0.1, 1.0, size=8)
    return chooses_the_best(student, np.full(8, 0.3), kl, 1.0)


@best_candidate.property(
    "The old policy may be among the candidates, at a distance of 0: nothing is subtracted from its L, and nothing may "
    "be divided by its distance."
)
def standing_still_is_a_candidate(student: ChoiceFunction, rng: Generator) -> bool:
    L, kl, C = candidates(rng)
    kl[0], L[0] = 0.0, 0.1
    cases = ((L, C), (L, 100.0), (L - 10.0, C))
    return all(chooses_the_best(student, promises, kl, price) for promises, price in cases)


@best_candidate.property(
    "Distances may be tiny and C huge, as they are in lesson 01: their product is what counts, not the size of either."
)
def sizes_do_not_matter(student: ChoiceFunction, rng: Generator) -> bool:
    L, kl, C = candidates(rng)
    return chooses_the_best(student, L, 1e-9 * kl, 1e9 * C)


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
    "sign",
    "You take the smallest L - C kl: the bound is the right one, and you pick the candidate it likes least. It is "
    "tempting because the paper minimizes; of a return we want the most, so the largest lower bound is chosen.",
)
def picks_the_smallest_bound(L: Floats, kl: Floats, C: float) -> int:
    return int(np.argmin(L - C * kl))


@best_candidate.mistake(
    "indexing",
    "You count the candidates from 1. It is tempting because people do; an index in Python counts from 0, and "
    "np.argmax returns one that needs no correction.",
)
def counts_from_one(L: Floats, kl: Floats, C: float) -> int:
    return int(np.argmax(L - C * kl)) + 1


@best_candidate.mistake(
    "concept",
    "You return the value of the best bound. It is tempting because max and argmax are written alike; here the "
    "candidate itself is wanted, by its index.",
)
def returns_the_bound(L: Floats, kl: Floats, C: float) -> float:
    return float(np.max(L - C * kl))


@best_candidate.mistake(
    "concept",
    "You choose the closest candidate. It is tempting because it is the safest; but the bound weighs what is promised "
    "against the distance, and standing still gains nothing.",
)
def stays_closest(L: Floats, kl: Floats, C: float) -> int:  # noqa: ARG001
    return int(np.argmin(kl))


@best_candidate.mistake(
    "concept",
    "Among the candidates with a positive L - C kl you take the one with the largest L. It is tempting because each of "
    "them is sure to gain something; but the bound says how much is sure, and the largest sure gain is wanted.",
)
def trusts_what_is_sure_to_gain(L: Floats, kl: Floats, C: float) -> int:
    return int(np.argmax(np.where(L - C * kl > 0, L, -np.inf)))


@best_candidate.mistake(
    "concept",
    "You maximize L per unit of distance. It is tempting as a rate of return; but the bound is a difference, and a "
    "ratio prefers a candidate that goes nowhere.",
)
def ratio_instead_of_difference(L: Floats, kl: Floats, C: float) -> int:
    return int(np.argmax(L / (C * kl)))


# ---- softmax_log_prob ------------------------------------------------------------------------------------------------


def logits_and_actions(rng: Generator) -> tuple[Tensor, Tensor]:
    """Logits [5, 3] and an action for each row."""
    return torch.from_numpy(rng.normal(size=(5, 3))), torch.from_numpy(rng.integers(3, size=5))


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


@softmax_log_prob.property("A batch may hold a single state.")
def one_state_is_a_batch(student: LogProbFunction, rng: Generator) -> bool:
    logits, actions = torch.from_numpy(rng.normal(size=(2, 4))), torch.from_numpy(rng.integers(4, size=2))
    return bool(torch.allclose(student(logits[:1], actions[:1]), student(logits, actions)[:1], rtol=0, atol=1e-10))


@softmax_log_prob.property(
    "Your exponentials overflow: logits near 1000 give another answer than the same logits less 1000. It is tempting "
    "to write log(exp / sum of exp) as in the formula; subtract the row's largest logit first, or use torch.logsumexp."
)
def large_logits_do_not_overflow(student: LogProbFunction, rng: Generator) -> bool:
    logits, actions = logits_and_actions(rng)
    return bool(torch.allclose(student(logits + 1000.0, actions), student(logits, actions), rtol=0, atol=1e-9))


@softmax_log_prob.property(
    "The states' logits may be of unlike size, and then your numbers change: one state near 1000 spoils another near "
    "0. It is tempting to subtract the largest logit of the whole table; take each row's own."
)
def each_state_has_its_own_size(student: LogProbFunction, rng: Generator) -> bool:
    logits, actions = logits_and_actions(rng)
    apart = logits + torch.tensor([[0.0], [1000.0], [-1000.0], [500.0], [0.0]], dtype=torch.float64)
    return bool(torch.allclose(student(apart, actions), student(logits, actions), rtol=0, atol=1e-9))


@softmax_log_prob.property(
    "An action 800 below the best logit has a log probability of -800, and yours is another number. It is tempting to "
    "take the logarithm of a softmax; but such a probability is 0 in floating point, and its logarithm minus infinity. "
    "Subtract log-sum-exp from the logit, and never form the probability."
)
def unlikely_actions_keep_their_log(student: LogProbFunction, rng: Generator) -> bool:
    best = torch.from_numpy(rng.normal(size=(3, 1)))
    logits = torch.cat([best, best - 800.0, best - 900.0], dim=1)
    expected = torch.tensor([0.0, -800.0, -900.0], dtype=torch.float64)
    return bool(torch.allclose(student(logits, torch.arange(3)), expected, rtol=1e-12, atol=1e-12))


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


@softmax_log_prob.mistake(
    "concept",
    "You return the logits of the actions as they are. It is tempting because they are the only numbers of the action; "
    "but a logit means nothing alone: what the other actions' logits are decides the probability.",
)
def logits_themselves(logits: Tensor, actions: Tensor) -> Tensor:
    return logits[torch.arange(len(actions)), actions]


@softmax_log_prob.mistake(
    "conditioning",
    "You normalize over the whole table: all states together share a probability of 1. It is tempting because .sum() "
    "without dim is shorter; but every state has a distribution of its own, so sum along dim=1.",
)
def normalizes_over_everything(logits: Tensor, actions: Tensor) -> Tensor:
    return logits[torch.arange(len(actions)), actions] - logits.flatten().logsumexp(0)


@softmax_log_prob.mistake(
    "constant",
    "You divide by the mean of the exponentials instead of their sum. It is tempting because mean and sum differ by a "
    "constant only; but then the probabilities of the actions add up to their number, not to 1.",
)
def averages_the_exponentials(logits: Tensor, actions: Tensor) -> Tensor:
    return logits[torch.arange(len(actions)), actions] - logits.exp().mean(1).log()


@softmax_log_prob.mistake(
    "indexing",
    "You return the log probability of the most likely action in each state. It is tempting because the largest entry "
    "of a row is easy to take; asked is the action that was taken, likely or not.",
)
def most_likely_action(logits: Tensor, actions: Tensor) -> Tensor:  # noqa: ARG001
    return torch.log_softmax(logits, dim=1).max(dim=1).values
