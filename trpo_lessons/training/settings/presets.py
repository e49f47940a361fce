"""Settings by name.

    smoke   for tests (seconds; it learns little)
    class   for a lesson (minutes on two CPU cores, games an hour or so): generalized advantage estimation and a value
            function
    paper   the budgets and networks of the paper's Tables 2 and 3: Monte Carlo returns, no value function

A setting that is given by hand comes before that of a preset.
"""

from __future__ import annotations

from typing import Any

from trpo_lessons.envs import GAMES, check_task
from trpo_lessons.training.settings.config import SettingError, TrainConfig
from trpo_lessons.training.settings.methods import METHODS, OF_THE_VINE, POPULATION_METHODS, SETTINGS_OF
from trpo_lessons.training.settings.rules import shown

_EVERY: dict[str, dict[str, Any]] = {
    "barto-cartpole": {"hidden": ()},  # the paper's linear policy: four weights, a bias and a log standard deviation
}

_SMOKE: dict[str, Any] = {
    "iterations": 3,
    "steps_per_iteration": 256,
    "num_envs": 8,
    "hidden": (16,),
    "value_hidden": (16,),
}

# Four million steps, an hour or so. The paper's convolutions, with a value function that looks at pictures in the same
# way, and 64 hidden units in both: with the paper's 20 the learning curve of Space Invaders ended at 475 in place of
# 537, that of Q*bert at 2768 in place of 3664, and that of Breakout at 30 in place of 25 (one seed each); an iteration
# took as long. (openai/baselines' TRPO has 128 on games, and Space Invaders ended at 562 with them; the recorded runs
# would take twice the room.) All thinned states fit in one chunk, whose graph is kept from one product to the next. A
# step of so many nats costs so many samples: with 2048 to an update Pong came to a halt level with its opponent, where
# 8192 won. Frames are normalised: from bytes divided by 255 Breakout scored 2 after a million steps, and 16 from
# normalised ones. (These two were tried with 20 units.)
_CLASS_GAME: dict[str, Any] = {
    "iterations": 488,
    "steps_per_iteration": 8192,
    "num_envs": 16,
    "hidden": (64,),
    "value_hidden": (64,),
    "value_steps": 1,
    "value_stride": 16,
    "fisher_stride": 16,
    "chunk_size": 1024,
    "life_loss_ends": True,
}

_CLASS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(GAMES, _CLASS_GAME),
    "cartpole": {"iterations": 40, "steps_per_iteration": 2048, "num_envs": 32},
    "barto-cartpole": {"iterations": 60, "steps_per_iteration": 2048, "num_envs": 32},
    # With gamma .99, a hopper that leaps ahead and falls after 400 steps is nearly as good as one that goes on: what
    # comes after the next hundred steps hardly counts. Half of the seeds ended so. The value function fits as well with
    # an eighth of the states in its products, and no longer keeps the policy waiting.
    "hopper": {"gamma": 0.995, "value_stride": 8},
    # The last three follow few robots for long. Where episodes go on for a thousand steps, the states of many short
    # stretches were reached by many policies, most of them older than the one that learns from them.
    #
    # A stroke takes some 36 steps, and what it has moved coasts on for a hundred: with gamma .99 seed 0 ended at
    # 120, with .9999 five seeds at 216 to 361. So far ahead V can be wrong and still agree with itself; a larger lambda
    # asks the path more.
    "swimmer": {"iterations": 488, "steps_per_iteration": 2048, "num_envs": 4, "gamma": 0.9999, "lam": 0.99},
    # Two legs take more updates to learn than one, each from fewer steps.
    "walker": {"iterations": 488, "steps_per_iteration": 2048, "num_envs": 8},
    # Its Fisher matrix is badly conditioned: ten iterations on a quarter of the batch leave most of the residual. It
    # cannot fall, so larger steps do no harm.
    "halfcheetah": {"num_envs": 8, "delta": 0.02, "cg_iterations": 20, "fisher_stride": 2},
}

# Where the paper is silent or contradicts itself, this is our reading. Each environment runs for long stretches,
# because rewards past the end of a batch are unknown and count as zero: with gamma .99, the last hundred steps notice.
_PAPER_HOPPER: dict[str, Any] = {
    "iterations": 200,
    "steps_per_iteration": 1_000_000,
    "num_envs": 200,
    "control_cost": 1e-5,
    "hidden": (50,),
    "value_hidden": (),
    "fisher_stride": 10,  # section 6 of the paper: a tenth of the data is enough for the Fisher matrix
    "chunk_size": 100_000,  # bounds the memory of an update; the thinned states still fit in one chunk
}
# Table 3. Forty games for 2,500 steps each: whole games of most, and pictures enough at a time for acting to be cheap.
_PAPER_GAME: dict[str, Any] = {
    "iterations": 500,
    "steps_per_iteration": 100_000,
    "num_envs": 40,
    "normalise_obs": False,
    "hidden": (20,),
    "value_hidden": (),
    "fisher_stride": 10,
    "chunk_size": 1000,
}
_PAPER: dict[str, dict[str, Any]] = {
    "barto-cartpole": {"iterations": 60, "steps_per_iteration": 10_000, "num_envs": 10, "value_hidden": ()},
    "swimmer": {**_PAPER_HOPPER, "steps_per_iteration": 50_000, "num_envs": 50, "hidden": (30,)},
    "hopper": _PAPER_HOPPER,
    # The paper does not say what an impact costs. Here standing costs next to nothing, and a hard landing, of some ten
    # times the robot's weight, as much as a step earns.
    "walker": {**_PAPER_HOPPER, "impact_cost": 0.01},
    "halfcheetah": _PAPER_HOPPER,  # not in the paper
    **dict.fromkeys(GAMES, _PAPER_GAME),
}


# For the vine, on top of the settings above. Its budget is that of the single path unless it says otherwise.
_SMOKE_VINE: dict[str, Any] = {"vine_states": 16, "vine_branches": 2, "rollout_length": 4}
# Half of the single path's steps are the trunk's, where the value function is fitted as well, and half the branches'. A
# branch of 16 steps is about a second of play. The thinned states are as many as the single path's. Q*bert ended at 739
# with these settings and at 763 with 4 steps in 256 states, which were ahead on the way. First actions of the policy in
# the place of uniform ones were behind there: 558 for 687 after 1.6M steps. With 2 steps in 512 states Pong learned
# nothing in 0.9M. (One seed each.)
_CLASS_VINE_GAME: dict[str, Any] = {
    "vine_states": 64,
    "vine_branches": 4,
    "rollout_length": 16,
    "fisher_stride": 8,
    "value_stride": 8,
}
# A trunk has few states, so that none are left out when the Fisher matrix or the value function is fitted.
_FEW_STATES: dict[str, Any] = {"fisher_stride": 1, "value_stride": 1}
_CLASS_VINE: dict[str, dict[str, Any]] = {
    **dict.fromkeys(GAMES, _CLASS_VINE_GAME),
    "cartpole": {**_FEW_STATES, "num_envs": 16, "vine_states": 12, "vine_branches": 2, "rollout_length": 64},
    "barto-cartpole": {**_FEW_STATES, "num_envs": 16, "vine_states": 8, "vine_branches": 4, "rollout_length": 32},
    "swimmer": {
        **_FEW_STATES,
        "iterations": 244,
        "steps_per_iteration": 4096,
        # 32 states with rollouts of 20 steps: 149. Lambda 1 for V: 50, 288 and 270 in place of 328, 341 and 139.
        "vine_states": 64,
        "vine_branches": 4,
        "rollout_length": 10,
    },
    # Wide and short trunks: the same scores as with half as many environments, and fewer steps of the policy.
    "hopper": {**_FEW_STATES, "num_envs": 64, "vine_states": 64, "vine_branches": 4, "rollout_length": 10},
    # Twice as many branches of half the length: 3703 in place of 833.
    "walker": {**_FEW_STATES, "vine_states": 64, "vine_branches": 4, "rollout_length": 5},
    "halfcheetah": {**_FEW_STATES, "vine_states": 64, "vine_branches": 4, "rollout_length": 10},
}
_PAPER_VINE_HOPPER: dict[str, Any] = {
    "steps_per_iteration": 1_016_000,
    "num_envs": 16,  # trunks of 1000 steps
    "vine_states": 2500,  # the paper says 2500 Q-values; only 2500 states make up its million steps
    "vine_branches": 4,
    "rollout_length": 100,
    "fisher_stride": 1,  # the trunk has a sixtieth of a single path's states
}
# Table 3: 400,000 steps, about four rollouts a state. The paper is silent on the rest: trunk and rollout length are
# Hopper's.
_PAPER_VINE_GAME: dict[str, Any] = {
    "steps_per_iteration": 400_000,
    "num_envs": 16,  # trunks of 1000 steps
    "vine_states": 960,
    "vine_branches": 4,
    "rollout_length": 100,
    "fisher_stride": 2,  # about as many states as a tenth of the single path's
}
_PAPER_VINE: dict[str, dict[str, Any]] = {
    **dict.fromkeys(GAMES, _PAPER_VINE_GAME),
    "barto-cartpole": {"vine_states": 50, "vine_branches": 4, "rollout_length": 25},  # our choice; the paper has none
    "swimmer": {
        **_PAPER_VINE_HOPPER,
        "steps_per_iteration": 41_000,
        "vine_states": 125,  # 500 Q-values, which is near its 50K steps
        "rollout_length": 50,
    },
    "hopper": _PAPER_VINE_HOPPER,
    "walker": _PAPER_VINE_HOPPER,
    "halfcheetah": _PAPER_VINE_HOPPER,
}


# A network of thousands of parameters also fits the noise of the actions, and takes it for confidence. From equal
# weights there is nothing to learn, and yet twenty iterations of a fit to one batch of Hopper made a KL of .026, took
# .05 nats of entropy and lowered the surrogate by .018; five made .005, took .02 and lowered it by .001. Seventy
# updates of RWR with twenty iterations left an entropy of -.8 and a return of 350, where TRPO had 3.3 and 2140.
_ROBOTS = ("swimmer", "hopper", "walker", "halfcheetah")
_EARLY_END: dict[str, Any] = {"fit_iterations": 5}

_PPO_OF_GAMES: dict[str, Any] = {"clip": 0.1, "epochs": 3, "minibatch_size": 256, "learning_rate": 2.5e-4}

# Of one method, on top of the settings above.
#
# The natural gradient's penalty: what TRPO's multiplier is in the class preset, where its KL is delta. The median over
# the iterations of recorded runs. PPO's steps are those of its paper (Schulman et al., 2017, tables 3 and 5);
# TrainConfig has those for robots. Batches are ours, which are larger, and nothing decays in games.
_OF_METHOD: dict[str, dict[str, dict[str, Any]]] = {
    "natural-gradient": {
        "swimmer": {"penalty": 1.0},
        "hopper": {"penalty": 1.5},
        "walker": {"penalty": 3.0},
        "halfcheetah": {"penalty": 2.0},
    },
    "rwr": dict.fromkeys(_ROBOTS, _EARLY_END),
    "reps": dict.fromkeys(_ROBOTS, _EARLY_END),
    "ppo": dict.fromkeys(GAMES, _PPO_OF_GAMES),
}


# Searches with populations, on top of the settings above. Their policies are linear: a search learns from one number
# for each theta, so that it needs the more episodes the more parameters there are, and linear policies can hop, walk,
# run and swim (Mania et al., 2018). CMA-ES on Hopper, 600,000 steps, one seed each: the population's mean return was
# 1038 with 36 parameters, 588 with 243 (a hidden layer of 16), and 529 with 5123 (64 and 64).
_POPULATION_CARTPOLE: dict[str, Any] = {
    "hidden": (),
    "iterations": 20,
    "population": 32,
    "num_envs": 32,
    "initial_std": 0.5,
    "extra_noise": 0.125,  # half of the first variance
    "noise_generations": 15,
}
_POPULATION_ROBOT: dict[str, Any] = {
    "hidden": (),
    "iterations": 1000,
    "step_budget": 1_000_000,
    "population": 32,
    "num_envs": 32,
    "initial_std": 0.3,
    "extra_noise": 0.02,
    "noise_generations": 15,
}
# Where episodes end early there are more generations. Populations of 64 learned less from as many steps: on Hopper
# CMA-ES scored 1102 in place of 2404 after half a million of them, and CEM 1063 in place of 2866 (seed 1).
_POPULATION_FALLING: dict[str, Any] = {**_POPULATION_ROBOT, "noise_generations": 40}
_POPULATION: dict[str, dict[str, Any]] = {
    "cartpole": _POPULATION_CARTPOLE,
    "barto-cartpole": _POPULATION_CARTPOLE,
    "swimmer": _POPULATION_ROBOT,
    "hopper": _POPULATION_FALLING,
    "walker": _POPULATION_FALLING,
    "halfcheetah": _POPULATION_ROBOT,
}
_SMOKE_POPULATION: dict[str, Any] = {"iterations": 3, "step_budget": None, "population": 8, "num_envs": 8}


def _population_settings(task: str, name: str) -> dict[str, Any]:
    """For `paper`, which has none of its own: the paper's network, reward and budget."""
    settings = dict(_POPULATION.get(task, {}))
    if name == "paper":
        settings.pop("hidden", None)  # games have none; TrainConfig says why they are not searched
        settings["step_budget"] = _PAPER[task]["iterations"] * _PAPER[task]["steps_per_iteration"]
        settings["iterations"] = 100_000
    return settings | _SMOKE_POPULATION if name == "smoke" else settings


def preset(task: str, name: str = "class", **overrides: Any) -> TrainConfig:
    """The configuration of a named preset for a task, with some settings replaced.

    Raises SettingError for an unknown preset or setting, a task that the preset does not have, or a setting that the
    method or the sampling scheme does not read, and UnknownTask for an unknown task.
    """
    check_task(task)
    if "preset" in overrides:  # it would be a label alone
        given = shown(overrides["preset"])
        raise SettingError(f"preset={given}: name it as the second argument, as in preset({task!r}, {given})")
    if name not in ("smoke", "class", "paper"):
        raise SettingError(f"unknown preset {name!r}; there are smoke, class and paper")
    if name == "paper" and task not in _PAPER:
        raise SettingError(f"the paper preset has no {task}; it has {', '.join(_PAPER)}")
    settings = _PAPER[task] if name == "paper" else _CLASS.get(task, {})
    if overrides.get("sampling") == "vine":
        settings = settings | (_PAPER_VINE if name == "paper" else _CLASS_VINE).get(task, {})
    if name == "smoke":
        settings = settings | _SMOKE | _SMOKE_VINE
    settings = settings | _EVERY.get(task, {})
    method = overrides.get("method", "trpo")
    if method in METHODS:
        settings = settings | ({} if name == "smoke" else _OF_METHOD.get(method, {}).get(task, {}))
        if method in POPULATION_METHODS:
            settings = settings | _population_settings(task, name)
        _refuse_settings_of_others(method, overrides)
    config = TrainConfig.from_json({"task": task, "preset": name, **settings, **overrides})
    if config.sampling != "vine":
        _refuse_settings_of_the_vine(overrides)
    elif "first_actions" in overrides and task in (*_ROBOTS, "barto-cartpole"):
        raise SettingError(f"{task} has no first_actions: its actions are continuous, and those are the policy's")
    return config


def _refuse_settings_of_others(method: str, given: dict[str, Any]) -> None:
    for name in given.keys() & SETTINGS_OF.keys():
        if method not in SETTINGS_OF[name]:
            raise SettingError(f"{method} has no {name}; methods that have it: {', '.join(SETTINGS_OF[name])}")


def _refuse_settings_of_the_vine(given: dict[str, Any]) -> None:
    if unread := [name for name in OF_THE_VINE if name in given]:
        raise SettingError(f"{unread[0]} is read by the vine alone; leave it out, or use sampling vine")
