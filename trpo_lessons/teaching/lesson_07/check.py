"""The checks of lesson 07, The vine: `check.NAME(student_function)`."""

from __future__ import annotations

from trpo_lessons.teaching.checks import in_order
from trpo_lessons.teaching.lesson_07.affordable_states import affordable_states
from trpo_lessons.teaching.lesson_07.branch_value import branch_value
from trpo_lessons.teaching.lesson_07.choose_states import choose_states
from trpo_lessons.teaching.lesson_07.random_numbers import random_numbers
from trpo_lessons.teaching.lesson_07.self_normalised import self_normalised

CHECKS = in_order(choose_states, branch_value, random_numbers, self_normalised, affordable_states)
