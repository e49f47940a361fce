"""Training runs from the parts that the lessons explain.

Reading order: after `value_function`. Three rooms:

    settings   `config` and `presets` say what a run is, `policy_for` and `obs_statistics` which policy an environment
               needs and how it sees
    sampling   `path_sampler`, `game_sampler` (of the paths in `game_path`) and `vine_sampler` collect samples on all
               cores, by `groups` of environments; `memory` keeps the memory that was freed, `threads` says how many
               torch computes with
    running    `loop` is one iteration after another, `run_folder` keeps it on disk, `run` starts it and goes on with
               it, `stopping` ends it, `device` says where it computes, `reporting` shows it, `evaluation` scores it and
               `acting` lets its policy act
"""

from trpo_lessons.training.running.evaluation import Evaluation, evaluate
from trpo_lessons.training.running.run import Run, differences, load_run, resume, train
from trpo_lessons.training.running.run_folder import RunError
from trpo_lessons.training.settings.config import SettingError, TrainConfig
from trpo_lessons.training.settings.presets import preset

__all__ = [
    "Evaluation",
    "Run",
    "RunError",
    "SettingError",
    "TrainConfig",
    "differences",
    "evaluate",
    "load_run",
    "preset",
    "resume",
    "train",
]
