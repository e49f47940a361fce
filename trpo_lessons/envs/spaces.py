"""Gymnasium's spaces as what policies here know: vectors of numbers to see, and one or several choices to make."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from trpo_lessons.envs.base import Floats


def flat_observation_space(space: spaces.Space[Any]) -> spaces.Box:
    """The space of `flat_observations`, [obs_dim]. Raises ValueError for a space that cannot be made vectors of."""
    if not isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        remedy = ""
        if isinstance(space, (spaces.Dict, spaces.Tuple)):
            remedy = "; wrap the environment in gymnasium.wrappers.FlattenObservation"
        raise ValueError(f"the observation space {type(space).__name__} cannot be used{remedy}")
    return spaces.Box(-np.inf, np.inf, shape=(spaces.flatdim(space),), dtype=np.float64)


def flat_observations(space: spaces.Space[Any], obs: NDArray[Any]) -> Floats:
    """Observations [N, ...] of one of Gymnasium's spaces as vectors [N, obs_dim], in a new array.

    A box is flattened, a discrete observation becomes an indicator vector, several become several, one after the other.
    Raises ValueError where they are not what the space says: of another shape, or a number that it does not have.
    """
    if obs.shape[1:] != space.shape:
        raise ValueError(f"the observation has shape {obs.shape[1:]}, which is not in {space}")
    if isinstance(space, (spaces.Box, spaces.MultiBinary)):
        return np.array(obs, dtype=np.float64).reshape(len(obs), -1)
    assert isinstance(space, (spaces.Discrete, spaces.MultiDiscrete))
    sizes = np.atleast_1d(space.n if isinstance(space, spaces.Discrete) else space.nvec).ravel()
    choices = (obs - space.start).reshape(len(obs), -1)
    if choices.dtype.kind not in "iu" or (choices < 0).any() or (choices >= sizes).any():
        raise ValueError(f"the observation {obs[0] if len(obs) == 1 else obs.tolist()} is not in {space}")
    indicators = np.zeros((len(obs), int(sizes.sum())))
    firsts = np.cumsum(sizes) - sizes
    np.put_along_axis(indicators, choices + firsts, 1.0, axis=1)
    return indicators


def flat_action_space(space: spaces.Space[Any]) -> spaces.Box | spaces.Discrete | spaces.MultiDiscrete:
    """What a policy chooses from: a vector, one choice counted from 0, or several.

    Raises ValueError for a space that no policy here has actions for.
    """
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec.ravel())
    if isinstance(space, spaces.MultiBinary):
        return spaces.MultiDiscrete([2] * spaces.flatdim(space))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        with np.errstate(over="ignore"):  # what is no float32 is no bound
            return spaces.Box(space.low.ravel().astype(np.float32), space.high.ravel().astype(np.float32))
    kind = type(space).__name__ + (f" of {space.dtype}" if isinstance(space, spaces.Box) else "")
    usable = "a Box of floats, Discrete, MultiDiscrete or MultiBinary"
    raise ValueError(
        f"the action space {kind} cannot be used, but {usable} can: wrap the environment in a gymnasium.ActionWrapper"
    )


def inner_actions(space: spaces.Space[Any], actions: NDArray[Any]) -> NDArray[Any]:
    """Actions of `flat_action_space(space)`, [N] or [N, action_dim], as the space has them, [N, ...]; a new array.

    Those of a box are clipped to its bounds, because many environments refuse what lies outside.
    """
    if isinstance(space, spaces.Box):
        return actions.reshape(len(actions), *space.shape).clip(space.low, space.high).astype(space.dtype)
    shaped = actions.reshape((len(actions), *(space.shape or ())))
    return (shaped + getattr(space, "start", 0)).astype(space.dtype)


def into_box(actions: NDArray[Any], space: spaces.Box) -> NDArray[Any]:
    """Actions [N, action_dim] of a policy, scaled and clipped to a box; `single_path.for_environment` says how."""
    if (scale := action_scale(space)) is not None:
        middle, half_width = scale
        actions = middle + half_width * actions
    bounded: NDArray[Any] = np.fmin(np.fmax(actions, space.low), space.high)  # unlike np.clip: no NaN passes
    return bounded


def action_scale(space: spaces.Box) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Middle and half width of the box in every component, 0 and 1 where it is not bounded on both sides.

    None where every component is left as it is, as in a box from -1 to 1. The largest number of a type is no bound.
    """
    return _scale_of(space.low.astype(np.float64).tobytes(), space.high.astype(np.float64).tobytes(), space.shape)


def scaling_in_words(space: spaces.Space[Any]) -> str:
    """How a policy's actions are scaled to the space, or "" where they are taken as they are."""
    if not isinstance(space, spaces.Box) or (scale := action_scale(space)) is None:
        return ""
    middle, half_width = scale
    low, high = (", ".join(f"{x:g}" for x in each.ravel()) for each in (middle - half_width, middle + half_width))
    return f"actions are scaled: -1 and 1 of the policy are {low} and {high} of the environment"


@cache  # it is asked for at every step
def _scale_of(
    low_bytes: bytes, high_bytes: bytes, shape: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    low, high = (np.frombuffer(each).reshape(shape) for each in (low_bytes, high_bytes))
    limit = float(np.finfo(np.float32).max)
    bounded = (low > -limit) & (high < limit)
    low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    middle, half_width = ((high / 2 + sign * low / 2).astype(np.float32) for sign in (1, -1))
    return None if (middle == 0).all() and (half_width == 1).all() else (middle, half_width)
