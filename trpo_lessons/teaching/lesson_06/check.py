"""The checks of lesson 06, Single path: `check.NAME(student_function)`."""

from __future__ import annotations

from trpo_lessons.teaching.checks import in_order
from trpo_lessons.teaching.lesson_06.advantages import advantages
from trpo_lessons.teaching.lesson_06.less_baseline import less_baseline
from trpo_lessons.teaching.lesson_06.miscounted import miscounted
from trpo_lessons.teaching.lesson_06.one_iteration import one_iteration
from trpo_lessons.teaching.lesson_06.returns import returns

CHECKS = in_order(returns, less_baseline, advantages, one_iteration, miscounted)
