"""The checks of lesson 10, Atari: `check.NAME(student_function)`."""

from __future__ import annotations

from trpo_lessons.teaching.checks import in_order
from trpo_lessons.teaching.lesson_10.count_parameters import count_parameters
from trpo_lessons.teaching.lesson_10.human_scale import human_scale
from trpo_lessons.teaching.lesson_10.joystick_log_prob import joystick_log_prob
from trpo_lessons.teaching.lesson_10.observe import observe
from trpo_lessons.teaching.lesson_10.occlusion_map import occlusion_map
from trpo_lessons.teaching.lesson_10.whole_games import whole_games

CHECKS = in_order(observe, count_parameters, joystick_log_prob, whole_games, human_scale, occlusion_map)
