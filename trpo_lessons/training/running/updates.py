"""Which update turns a problem and a theta into a better theta: one line a method, from a run's settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from trpo_lessons.kl import empirical_fisher_vector_product, fisher_vector_product
from trpo_lessons.policies import Policy
from trpo_lessons.prior_methods.max_kl import check_num_parameters, max_kl_update
from trpo_lessons.prior_methods.natural_gradient import natural_gradient_update
from trpo_lessons.prior_methods.ppo import PPO_FACTS, ppo_update
from trpo_lessons.prior_methods.reps import REPS_FACTS, flow, reps_update, visited
from trpo_lessons.prior_methods.rwr import RWR_FACTS, rwr_update
from trpo_lessons.problem import Fisher, Problem
from trpo_lessons.training.settings.config import TrainConfig
from trpo_lessons.trpo import TrustRegion, UpdateReport, trpo_update

Update = Callable[[Problem, Tensor], tuple[Tensor, UpdateReport]]


def update_for(config: TrainConfig, policy: Policy) -> Update:
    """The update of the run's method, with its settings in place.

    Raises ValueError for a policy that the method cannot improve.
    """
    if config.method == "max-kl":
        check_num_parameters(policy)
    return _UPDATES[config.method](config)


def facts_of(config: TrainConfig) -> tuple[str, ...]:
    """What the run's method has to say beside what every update reports: names in `UpdateReport.facts`."""
    return _FACTS.get(config.method, ())


def _region(config: TrainConfig, fisher: Fisher = fisher_vector_product) -> TrustRegion:
    return TrustRegion(
        delta=config.delta,
        damping=config.damping,
        cg_iterations=config.cg_iterations,
        shrink=config.shrink,
        max_backtracks=config.max_backtracks,
        fisher=fisher,
        fisher_stride=config.fisher_stride,
    )


_UPDATES: Mapping[str, Callable[[TrainConfig], Update]] = {
    "trpo": lambda config: partial(trpo_update, region=_region(config)),
    "natural-gradient": lambda config: partial(natural_gradient_update, region=_region(config), penalty=config.penalty),
    "empirical-fim": lambda config: partial(trpo_update, region=_region(config, empirical_fisher_vector_product)),
    "max-kl": lambda config: partial(max_kl_update, region=_region(config)),
    "rwr": lambda config: partial(
        rwr_update,
        temperature=config.temperature,
        largest_weight=config.largest_weight,
        fit_iterations=config.fit_iterations,
    ),
    "reps": lambda config: partial(
        reps_update,
        epsilon=config.epsilon,
        fit_iterations=config.fit_iterations,
        constraint=visited if config.reps_constraint == "visited" else partial(flow, num_steps=config.rows),
    ),
    "ppo": lambda config: partial(
        ppo_update,
        clip=config.clip,
        epochs=config.epochs,
        minibatch_size=config.minibatch_size,
        learning_rate=config.learning_rate,
    ),
}
_FACTS: Mapping[str, tuple[str, ...]] = {"rwr": RWR_FACTS, "reps": REPS_FACTS, "ppo": PPO_FACTS}
