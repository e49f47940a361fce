"""The checks of lesson 01, The policy-improvement bound: `check.NAME(student_function)`."""

from __future__ import annotations

from trpo_lessons.teaching.checks import in_order
from trpo_lessons.teaching.lesson_01.counterexample import counterexample
from trpo_lessons.teaching.lesson_01.coupling import coupling
from trpo_lessons.teaching.lesson_01.lower_bound import lower_bound
from trpo_lessons.teaching.lesson_01.policy_gradient import policy_gradient
from trpo_lessons.teaching.lesson_01.surrogate import surrogate

CHECKS = in_order(counterexample, surrogate, policy_gradient, coupling, lower_bound)
