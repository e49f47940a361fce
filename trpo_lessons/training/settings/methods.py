"""Which methods there are, and which settings each of them reads."""

from __future__ import annotations

_WITH_FISHER = ("trpo", "natural-gradient", "empirical-fim")
_SEARCHING = ("trpo", "empirical-fim", "max-kl")
_FITTED = ("rwr", "reps")
POPULATION_METHODS = ("cem", "cma")
"""Methods that search for theta with populations of policies, and see neither steps nor gradients."""
METHODS = (*_WITH_FISHER, "max-kl", *_FITTED, *POPULATION_METHODS, "ppo")
"""Every method, by the names that people give them."""
SETTINGS_OF: dict[str, tuple[str, ...]] = {
    "delta": _SEARCHING,
    "damping": (*_WITH_FISHER, "max-kl"),
    "cg_iterations": _WITH_FISHER,
    "fisher_stride": _WITH_FISHER,
    "shrink": _SEARCHING,
    "max_backtracks": _SEARCHING,
    "penalty": ("natural-gradient",),
    "temperature": ("rwr",),
    "largest_weight": ("rwr",),
    "epsilon": ("reps",),
    "reps_constraint": ("reps",),
    "fit_iterations": _FITTED,
    "clip": ("ppo",),
    "epochs": ("ppo",),
    "minibatch_size": ("ppo",),
    "learning_rate": ("ppo",),
}
"""Which methods read a setting; those that are not listed belong to all."""
_OF_UPDATES = (
    *("steps_per_iteration", "gamma", "lam", "value_hidden", "value_steps", "value_damping", "value_stride"),
    *("chunk_size", "life_loss_ends", "initial_log_std"),
)
SETTINGS_OF |= dict.fromkeys(_OF_UPDATES, tuple(name for name in METHODS if name not in POPULATION_METHODS))
SETTINGS_OF |= dict.fromkeys(("population", "episodes", "initial_std"), POPULATION_METHODS)
SETTINGS_OF |= dict.fromkeys(("elite_share", "extra_noise", "noise_generations"), ("cem",))
OF_THE_VINE = ("vine_states", "vine_branches", "rollout_length", "first_actions")
"""Settings that nobody reads who follows single paths, or plays whole episodes."""
NEED_A_PATH = {
    "empirical-fim": "the actions taken in every state, and a vine's trunk has none",
    "rwr": "one weighted action in every state, and a vine has several",
    "reps": "one weighted action in every state, and a vine has several",
    "ppo": "one action and its ratio in every state, and a vine has several",
}
"""Methods that a vine has no samples for, and what they learn from."""
