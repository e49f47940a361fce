"""Named settings: `smoke` for tests (seconds), `class` for a lesson (minutes on two CPU cores)."""

from __future__ import annotations

from typing import Any

from trpo_lessons.training.config import SettingError, TrainConfig

_SMOKE: dict[str, Any] = {
    "iterations": 3,
    "steps_per_iteration": 256,
    "num_envs": 8,
    "hidden": (16,),
    "value_hidden": (16,),
}

_CLASS: dict[str, dict[str, Any]] = {
    "cartpole": {"iterations": 40, "steps_per_iteration": 2048, "num_envs": 32},
    # Swimming pays off over hundreds of steps: gamma .99 scores about 41, .9999 about 360.
    "swimmer": {"gamma": 0.9999},
    # Its Fisher matrix is badly conditioned: ten iterations on a quarter of the batch leave most of the residual.
    "halfcheetah": {"cg_iterations": 20, "fisher_stride": 2},
}


def preset(task: str, name: str = "class", **overrides: Any) -> TrainConfig:
    """The configuration of a named preset for a task, with some settings replaced.

    Raises SettingError for an unknown preset or setting, and UnknownTask for an unknown task.
    """
    if name not in ("smoke", "class"):
        raise SettingError(f"unknown preset {name!r}; there are smoke and class")
    settings = {**_CLASS.get(task, {}), **(_SMOKE if name == "smoke" else {})}
    return TrainConfig.from_json({"task": task, "preset": name, **settings, **overrides})
