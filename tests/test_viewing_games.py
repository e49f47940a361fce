"""A game is watched as it is scored, and what stands beside its screen are the policy's own probabilities."""

from __future__ import annotations

import dataclasses
import itertools
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import normal
from PIL import Image, ImageSequence

from trpo_lessons import training
from trpo_lessons.viewing import HEIGHT, WIDTH, playing, watching
from trpo_lessons.viewing.game_drawing import JOYSTICK, GameDrawing
from trpo_lessons.viewing.playing import game_stage, play

BLUE = (0, 114, 178)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> training.Run:
    config = training.preset("breakout", "smoke", iterations=1, steps_per_iteration=32, num_envs=2, threads=1)
    return training.train(config, tmp_path_factory.mktemp("games") / "run")


def test_what_is_watched_is_what_evaluate_scores(run: training.Run) -> None:
    stage = game_stage(run)
    with closing(stage.env):
        episode = play(run, stage, seconds=8, seed=3)
    result = training.evaluate(run, 1, 3, time_limit=120)
    assert (episode.score, episode.seconds) == (result.returns[0], 8.0)
    assert len(episode.moments) == 120


def test_beside_the_screen_are_the_policy_s_own_probabilities(
    run: training.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = dataclasses.replace(run, theta=run.theta + 0.1 * normal(0, len(run.theta)).float())
    shown: list[list[np.ndarray]] = []
    monkeypatch.setattr(playing, "GameDrawing", lambda _: lambda screen, probabilities: shown.append(probabilities))
    stage = game_stage(run)
    with closing(stage.env):
        obs, _ = stage.env.reset(seed=5)
        for _ in range(6):
            obs, *_ = stage.env.step(np.array([[0, 1, 1]]))
        stage.look()
    background, spread = run.statistics.mean, (run.statistics.deviations.mean() / run.statistics.count).sqrt()
    assert run.statistics.count
    seen = ((torch.from_numpy(obs).double() - background) / spread).clamp(-10, 10)
    logits = run.policy(run.theta, seen.float()).parameters[0][0].detach().double()
    for part, expected in zip(shown[0], logits.split([3, 3, 2]), strict=True):
        np.testing.assert_allclose(part, expected.softmax(0), rtol=1e-4)
        assert np.ptp(part) > 0.01, "a policy to which all is equal tests nothing"


def test_a_film_of_a_game_moves(run: training.Run, tmp_path: Path) -> None:
    film = watching.animate(run, tmp_path, seconds=1)
    assert (film.drawn_by, film.reason) == ("the emulator", "")
    pictures = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(Image.open(film.path))]
    assert len(pictures) == 15
    assert all((before != after).any() for before, after in itertools.pairwise(pictures))


def filled(picture: np.ndarray) -> list[int]:
    """How many pixels of each bar are filled, from the top."""
    is_blue = (picture[:, HEIGHT * 160 // 210 + 1 :] == BLUE).all(-1).sum(1)
    starts = np.flatnonzero((is_blue[1:] > 0) & (is_blue[:-1] == 0)) + 3
    return is_blue[starts].tolist()


@pytest.mark.parametrize("choices", [JOYSTICK, [[f"action {i}" for i in range(18)]]])
def test_bars_are_as_long_as_actions_are_likely(choices: list[list[str]]) -> None:
    likely = [np.arange(9, 9 + len(names)) / np.arange(9, 9 + len(names)).sum() for names in choices]
    screen = np.full((210, 160, 3), 77, dtype=np.uint8)
    picture = GameDrawing(choices)(screen, likely)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert (picture[:, : HEIGHT * 160 // 210] == 77).all()
    lengths = np.array(filled(picture)) / 122
    np.testing.assert_allclose(lengths, np.concatenate(likely), atol=0.02)
