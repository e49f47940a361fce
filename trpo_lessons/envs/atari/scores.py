"""What a random player and a person score: raw scores of whole games, from the paper's table 1."""

from __future__ import annotations

RANDOM_AND_HUMAN = {
    "beam_rider": (354.0, 7456.0),
    "breakout": (1.2, 31.0),
    "enduro": (0.0, 368.0),
    "pong": (-20.4, -3.0),
    "qbert": (157.0, 18900.0),
    "seaquest": (110.0, 28010.0),
    "space_invaders": (179.0, 3690.0),
}


def human_normalised(game: str, score: float) -> float:
    """A raw score on a scale where a random player has 0 and a person 1."""
    random, human = RANDOM_AND_HUMAN[game]
    return (score - random) / (human - random)
