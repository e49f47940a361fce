"""The natural gradient (Kakade, 2002): TRPO's direction and a fixed step size, equation 18.

    theta_new = theta_old + (1 / lambda) A^-1 g

Lambda, the penalty, is the multiplier of the KL: the step maximises g^T d - lambda / 2 d^T A d. TRPO finds in every
update the lambda for which the KL is delta; here it is given once, and what KL comes of it is found out afterwards.
Nothing is searched for. Reasons not to step are a number that is not finite, a gradient of zero, and a system that
conjugate gradient cannot solve.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from trpo_lessons.problem import Problem, Refused
from trpo_lessons.trpo import Stopwatch, TrustRegion, UpdateReport, moved, natural_direction


def natural_gradient_update(
    problem: Problem, theta: Tensor, region: TrustRegion | None = None, penalty: float = 1.0
) -> tuple[Tensor, UpdateReport]:
    """One step of equation 18 from `theta` [num_parameters]: the new theta and a report.

    region   which Fisher matrix, its damping, and how well the system is solved; delta and the search are not used
    penalty  lambda, in units of the advantages for each nat

    Raises ValueError for a penalty that is not above 0. Refused where something is not finite, where the
    gradient is zero, and where conjugate gradient breaks down.
    """
    if not 0 < penalty < math.inf:
        raise ValueError(f"the penalty must be above 0 and finite, got {penalty}")
    region, clock, facts = region or TrustRegion(), Stopwatch(), dict[str, Any]()
    try:
        with clock.timing("gradient"):
            start = problem.start(theta)
            facts |= start.facts
        with clock.timing("cg"):
            product = problem.fisher_product(theta, region.fisher, region.fisher_stride)
            direction = natural_direction(product, start.gradient, region)
            facts["residual_norms"] = direction.residual_norms
        with clock.timing("search"):
            new = problem.candidate(theta + direction.x / penalty, start.old)
            facts |= moved(theta, new, start)
    except Refused as refusal:
        return theta, UpdateReport(str(refusal), **(facts | refusal.facts), seconds=clock.seconds)
    return new.theta, UpdateReport("accepted", accepted=True, **facts, seconds=clock.seconds)
