"""The checks of lesson 09, Locomotion: `check.NAME(student_function)`."""

from __future__ import annotations

from trpo_lessons.teaching.checks import in_order
from trpo_lessons.teaching.lesson_09.episode_returns import episode_returns
from trpo_lessons.teaching.lesson_09.explained import explained
from trpo_lessons.teaching.lesson_09.interval_at import interval_at
from trpo_lessons.teaching.lesson_09.reward_parts import reward_parts
from trpo_lessons.teaching.lesson_09.what_went_wrong import what_went_wrong

CHECKS = in_order(reward_parts, episode_returns, interval_at, explained, what_went_wrong)
