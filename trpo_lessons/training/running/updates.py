"""Which update turns a problem and a theta into a better theta: one line a method, from a run's settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from trpo_lessons.kl import empirical_fisher_vector_product, fisher_vector_product
from trpo_lessons.prior_methods.natural_gradient import natural_gradient_update
from trpo_lessons.problem import Fisher, Problem
from trpo_lessons.training.settings.config import TrainConfig
from trpo_lessons.trpo import TrustRegion, UpdateReport, trpo_update

Update = Callable[[Problem, Tensor], tuple[Tensor, UpdateReport]]


def update_for(config: TrainConfig) -> Update:
    """The update of the run's method, with its settings in place."""
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
}
_FACTS: Mapping[str, tuple[str, ...]] = {}
