"""Training runs from the parts that the lessons explain.

Reading order: after `vine`. `config` and `presets` say what a run is, `path_sampler`, `game_sampler` (of the paths in
`game_path`) and `vine_sampler` collect samples on all cores (by `groups` of environments), `policy_for` and
`obs_statistics` say which policy an environment needs and how it sees, `objective` what to maximise. `memory` keeps
the memory that was freed, `threads` says how many torch computes with, `loop` is one iteration after another,
`run_folder` keeps it on disk, `run` starts it and goes on with it, `evaluation` scores it.
"""

from trpo_lessons.training.config import SettingError, TrainConfig
from trpo_lessons.training.evaluation import Evaluation, evaluate
from trpo_lessons.training.presets import preset
from trpo_lessons.training.run import Run, differences, load_run, resume, train
from trpo_lessons.training.run_folder import RunError

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
