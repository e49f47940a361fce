"""Exercise softmax_fisher_product of lesson 04, Conjugate gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import normal
from trpo_lessons.teaching.lesson_04.shared import close, keeps_the_type

SoftmaxProduct = Callable[[Tensor, Tensor, Tensor], Tensor]


def linear_softmax(rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Weights [3, 4], observations [6, 3] and a direction [3, 4]."""
    return normal(rng, 3, 4), normal(rng, 6, 3), normal(rng, 3, 4)


def covariance_product(W: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    """A v [3, 4] with M [N, 4, 4] written out, to compare with."""
    probs = (obs @ W).softmax(-1)
    M = torch.diag_embed(probs) - probs[:, :, None] * probs[:, None, :]
    return torch.einsum("nd,nab,nb->da", obs, M, obs @ v) / len(obs)


softmax_fisher_product = Check("softmax_fisher_product", minutes=8, inputs=linear_softmax)


@softmax_fisher_product.property(
    "Two calls with the same arguments give two products. Do you draw actions? M is the mean over all of them, known "
    "in closed form: nothing here is random."
)
def product_by_hand_is_no_estimate(student: SoftmaxProduct, rng: Generator) -> bool:
    given = linear_softmax(rng)
    return close(student(*given), student(*given))


@softmax_fisher_product.property(
    "Your product is right to a few digits only. Is something turned into float32 on the way, or is a finite "
    "difference taken?"
)
def product_by_hand_has_all_its_digits(student: SoftmaxProduct, rng: Generator) -> bool:
    W, obs, v = linear_softmax(rng)
    exact = covariance_product(W, obs, v)
    mine = student(W, obs, v)
    return close(mine, exact) or not close(mine, exact, 1e-4)


@softmax_fisher_product.property(
    "The product should be linear in v: twice the direction, twice the product. v belongs in J v and nowhere else, the "
    "probabilities come from W."
)
def product_by_hand_is_linear(student: SoftmaxProduct, rng: Generator) -> bool:
    W, obs, v = linear_softmax(rng)
    return close(student(W, obs, 2 * v), 2 * student(W, obs, v))


@softmax_fisher_product.property(
    "Moving all logits of a state by the same amount changes no probability, so a direction v with equal columns "
    "should give 0."
)
def ignores_shifts(student: SoftmaxProduct, rng: Generator) -> bool:
    W, obs, _ = linear_softmax(rng)
    return close(student(W, obs, normal(rng, 3, 1).expand(3, 4).clone()), torch.zeros(3, 4, dtype=torch.float64))


@softmax_fisher_product.property("A is symmetric: u . (A v) should equal v . (A u).")
def is_symmetric(student: SoftmaxProduct, rng: Generator) -> bool:
    W, obs, v = linear_softmax(rng)
    u = normal(rng, 3, 4)
    return close((u * student(W, obs, v)).sum(), (v * student(W, obs, u)).sum())


@softmax_fisher_product.property(
    "For a short step, half of v . (A v) should be the mean KL between the policies before and after it."
)
def measures_kl(student: SoftmaxProduct, rng: Generator) -> bool:
    W, obs, v = linear_softmax(rng)
    old, new = (torch.log_softmax(obs @ (W + h * v), -1) for h in (0.0, 1e-4))
    kl = (old.exp() * (old - new)).sum(-1).mean()
    return close((v * student(W, obs, v)).sum() / 2, kl / 1e-8, 1e-2)


@softmax_fisher_product.property(
    "Along a very long v the product loses its digits, as a finite difference does. J, M and J^T are all there: "
    "multiply."
)
def product_by_hand_is_exact(student: SoftmaxProduct, rng: Generator) -> bool:
    W, obs, v = linear_softmax(rng)
    return close(student(W, obs, 1e4 * v) / 1e4, student(W, obs, v))


@softmax_fisher_product.property("One state should do: the mean over a single state is what that state says.")
def takes_a_single_state(student: SoftmaxProduct, rng: Generator) -> bool:
    W, obs, v = linear_softmax(rng)
    one_by_one = torch.stack([student(W, state[None], v) for state in obs])
    return close(one_by_one.mean(0), student(W, obs, v))


@softmax_fisher_product.property(
    "With logits around 1000 your product is not finite: exp overflows, or is 0 everywhere. torch.softmax subtracts "
    "the largest logit first."
)
def survives_large_logits(student: SoftmaxProduct, rng: Generator) -> bool:
    W, obs, v = linear_softmax(rng)
    far = W + 1000 * torch.ones(3, 1, dtype=torch.float64)  # moves all logits of a state alike
    return close(student(far, obs, v), student(W, obs, v))


@softmax_fisher_product.property(
    "The product should hang on no graph and have the precision of its arguments. Nothing has to be differentiated "
    "here."
)
def product_of_plain_numbers(student: SoftmaxProduct, rng: Generator) -> bool:
    W, obs, v = (part.float() for part in linear_softmax(rng))
    return keeps_the_type(student(W, obs, v), W) and not W.requires_grad


@softmax_fisher_product.mistake(
    "order",
    "Your softmax runs over the states, not over the actions; tempting, because dim=0 comes first. Probabilities of "
    "the actions in one state add up to 1: softmax over the last axis.",
)
def normalizes_over_the_states(W: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    probs, pushed = (obs @ W).softmax(0), obs @ v
    return obs.T @ (probs * (pushed - (probs * pushed).sum(-1, keepdim=True))) / len(obs)


@softmax_fisher_product.mistake(
    "concept",
    "You average p times J v over the actions, where the sum belongs; tempting, because a mean is what is wanted. The "
    "weights p add up to 1 already: their weighted sum is the mean under p, and dividing once more makes it too small.",
)
def averages_what_is_weighted(W: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    probs, pushed = (obs @ W).softmax(-1), obs @ v
    return obs.T @ (probs * pushed - probs * (probs * pushed).mean(-1, keepdim=True)) / len(obs)


@softmax_fisher_product.mistake(
    "concept",
    "You leave out M: this is J^T J v. It is tempting, because for least squares the product is just that. KL does not "
    "count every change of a logit alike: a change of an action that is hardly ever taken costs next to nothing. M "
    "= diag(p) - p p^T says how much.",
)
def leaves_out_the_metric(_W: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    return obs.T @ (obs @ v) / len(obs)


@softmax_fisher_product.mistake(
    "concept",
    "Your M is diag(p) without - p p^T; tempting, because each probability seems to weigh its own logit. But raising "
    "all logits of a state together changes nothing and must cost nothing: subtract the mean of J v under p first.",
)
def leaves_out_the_mean(W: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    return obs.T @ ((obs @ W).softmax(-1) * (obs @ v)) / len(obs)


@softmax_fisher_product.mistake(
    "sign",
    "Your M is diag(p) + p p^T; tempting, because a matrix with a plus everywhere looks safe. M is the covariance of "
    "the one-hot action, and a covariance subtracts the product of the means.",
)
def adds_the_mean(W: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    probs, pushed = (obs @ W).softmax(-1), obs @ v
    return obs.T @ (probs * (pushed + (probs * pushed).sum(-1, keepdim=True))) / len(obs)


@softmax_fisher_product.mistake(
    "order",
    "You average the probabilities over the states first, and use one M for all of them; tempting, because the Fisher "
    "matrix is a mean over states. It is the mean of J^T M J, and M differs from state to state: average last.",
)
def averages_too_early(W: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    probs, pushed = (obs @ W).softmax(-1).mean(0), obs @ v
    return obs.T @ (probs * (pushed - (probs * pushed).sum(-1, keepdim=True))) / len(obs)


@softmax_fisher_product.mistake(
    "concept",
    "You subtract the plain mean of J v over the actions, where the mean under the policy belongs; tempting, because "
    "both make a shift of all logits cost nothing. The covariance is taken under p: actions that are taken often count "
    "more in it.",
)
def subtracts_the_plain_mean(W: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    probs, pushed = (obs @ W).softmax(-1), obs @ v
    return obs.T @ (probs * (pushed - pushed.mean(-1, keepdim=True))) / len(obs)


@softmax_fisher_product.mistake(
    "constant",
    "You add the states up and do not divide by how many there are; tempting, because J^T already sums. The constraint "
    "is on the mean KL, so delta would mean something else with every size of batch.",
)
def sums_over_states(W: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    probs, pushed = (obs @ W).softmax(-1), obs @ v
    return obs.T @ (probs * (pushed - (probs * pushed).sum(-1, keepdim=True)))
