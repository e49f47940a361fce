"""Solutions of lesson 10, Atari."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def observe(screens: Bytes, stack: Bytes, first: bool) -> Bytes:
    """The next observation [4, h, w], the oldest frame first, from the last two screens [2, H, W, 3]."""
    grey = np.rint(screens @ np.array([0.299, 0.587, 0.114]))
    larger = grey.max(0)
    (H, W), (h, w) = larger.shape, stack.shape[1:]
    newest = np.rint(larger.reshape(h, H // h, w, W // w).mean((1, 3))).astype(np.uint8)
    older = np.zeros_like(stack[1:]) if first else stack[1:]
    return np.concatenate([older, newest[None]])


def count_parameters(frames: int, height: int, width: int, hidden: int, outputs: int) -> int:
    """Weights and biases of two unpadded convolutions (16 filters, 4 x 4, stride 2), a hidden layer and the outputs."""
    count, channels = 0, frames
    for _ in range(2):
        count += 16 * (channels * 4 * 4 + 1)
        channels, height, width = 16, (height - 4) // 2 + 1, (width - 4) // 2 + 1
    return count + hidden * (16 * height * width + 1) + outputs * (hidden + 1)


def joystick_log_prob(logits: Tensor, sizes: tuple[int, ...], actions: Tensor) -> Tensor:
    """log pi(a|s) [N] of actions [N, choices] that are made of independent choices."""
    of_choices = torch.split(logits, list(sizes), dim=1)
    terms = [torch.log_softmax(each, 1).gather(1, a[:, None]) for each, a in zip(of_choices, actions.T, strict=True)]
    return torch.cat(terms, 1).sum(1)


def whole_games(rewards: Floats, life_lost: Bools, game_over: Bools) -> Floats:  # noqa: ARG001
    """The score of every game that has ended; the one that goes on is left out."""
    return np.array([game.sum() for game in np.split(rewards, np.flatnonzero(game_over) + 1)[:-1]])


def human_scale(scores: Floats, random: float, human: float) -> tuple[float, float]:
    """The mean score and its standard error, where a random player has 0 and a person 1."""
    span = human - random
    error = scores.std(ddof=1) / len(scores) ** 0.5
    return float((scores.mean() - random) / span), float(error / span)


def occlusion_map(log_probs: Callable[[Floats], Floats], obs: Floats, background: Floats, patch: int) -> Floats:
    """KL(whole || covered) for every patch of the frames that is covered by the background, [rows, columns]."""
    _, height, width = obs.shape
    whole = log_probs(obs[None])[0]
    found = []
    for row in range(0, height, patch):
        for column in range(0, width, patch):
            covered = obs.copy()
            place = np.s_[row : row + patch, column : column + patch]
            covered[:, *place] = background[place]
            found.append((np.exp(whole) * (whole - log_probs(covered[None])[0])).sum())
    return np.reshape(found, (-(-height // patch), -(-width // patch)))
