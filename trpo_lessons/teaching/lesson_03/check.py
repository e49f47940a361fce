"""The checks of lesson 03, The KL constraint: `check.NAME(student_function)`."""

from __future__ import annotations

from trpo_lessons.teaching.checks import in_order
from trpo_lessons.teaching.lesson_03.average_kl import average_kl
from trpo_lessons.teaching.lesson_03.empirical_fisher import empirical_fisher
from trpo_lessons.teaching.lesson_03.in_other_parameters import in_other_parameters
from trpo_lessons.teaching.lesson_03.matching_penalty import matching_penalty

CHECKS = in_order(average_kl, empirical_fisher, in_other_parameters, matching_penalty)
