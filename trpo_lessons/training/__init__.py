"""Training runs from the parts that the lessons explain.

Reading order: after `prior_methods`. Four rooms:

    settings   `config` and `presets` say what a run is, `methods` which settings a method reads, `rules` what each may
               be; `policy_for` and `obs_statistics` which policy an environment needs and how it sees
    sampling   `path_sampler` and `vine_sampler`, for games `game_sampler` (of the paths in `game_path`) and
               `game_vine_sampler`, collect samples on all cores, by `groups` of environments, and
               `population_sampler` plays the episodes of a population;
               `memory` keeps the memory that was freed, `threads` says how many torch computes with
    running    `loop` is one iteration after another (of the method's update, from `updates`), `population_loop` one
               generation after another, `run_folder` keeps them on disk, with checkpoints by `checkpoint_file`, `run`
               starts them and goes on with them (`files`, `log_file` and `run_errors` are what both need of a disk),
               `stopping` ends them, `device` says where they compute, `reporting`
               shows them, `evaluation` scores them and `acting` lets their policy act
    sweeping   many runs in one folder: `plan` says which, `sweep` sees them through, `hands` are this machine's or a
               cluster's, `own_process` is where one of them happens (by `one_run`), `table` shows
               what came out
"""

from trpo_lessons.training.running.evaluation import Evaluation, evaluate
from trpo_lessons.training.running.run import Run, differences, load_run, resume, train
from trpo_lessons.training.running.run_errors import RunError
from trpo_lessons.training.settings.config import SettingError, TrainConfig
from trpo_lessons.training.settings.presets import preset
from trpo_lessons.training.sweeping.sweep import Sweep, sweep

__all__ = [
    "Evaluation",
    "Run",
    "RunError",
    "SettingError",
    "Sweep",
    "TrainConfig",
    "differences",
    "evaluate",
    "load_run",
    "preset",
    "resume",
    "sweep",
    "train",
]
