"""What lesson 10 shows where a score is low: one life played out, and runs with another setting beside the recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from teaching_contract import NARROW

from trpo_lessons.bench.curves import Curves
from trpo_lessons.bench.record import command_of
from trpo_lessons.teaching.lesson_10 import experiments, one_life, recorded_games, screens
from trpo_lessons.training import preset

RUNS = recorded_games.recorded()
KEPT = experiments.experiments()


def curve(steps: list[float], scores: list[float], **facts: object) -> Curves:
    return Curves(facts, {"total_steps": np.array(steps), "mean_return": np.array(scores)})


def experiment(
    game: str = "pong", scheme: str = "single path", seed: int = 0, changed: str = ""
) -> experiments.Experiment:
    return experiments.Experiment(game, scheme, seed, changed, curve([1e6, 2e6], [-20.0, 5.0]))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, ""),
        ({"iterations": 244, "seed": 3, "threads": 1}, ""),
        ({"delta": 0.03, "hidden": (128,)}, "delta 0.03, hidden 128"),
        ({"steps_per_iteration": 4096}, "steps_per_iteration 4096"),
        ({"sampling": "vine", "rollout_length": 8}, "rollout_length 8"),
    ],
)
def test_what_was_changed_is_read_from_the_command(settings: dict[str, object], told: str) -> None:
    words = sorted(experiments.changed(command_of(preset("pong", **settings))).split(", "))
    assert words == sorted(told.split(", "))


def test_means_are_of_the_last_tenth_of_the_steps_that_both_have() -> None:
    longer = np.arange(1.0, 201.0), np.arange(1.0, 201.0) ** 2
    shorter = np.arange(0.5, 100.5), np.where(np.arange(100) < 95, np.nan, 7.0)
    steps, one, other = experiments.over_the_same_steps(longer, shorter)
    assert steps == 99.5
    assert one == np.mean([step**2 for step in range(1, 201) if 0.9 * 99.5 < step <= 99.5])
    assert other == 7.0, "what is not known yet does not count"
    assert experiments.over_the_same_steps(shorter, longer) == (steps, other, one)


def test_an_experiment_stands_beside_the_run_of_its_game_scheme_and_seed() -> None:
    for run in RUNS:
        assert experiments.control(experiment(run.game, run.scheme, run.seed), RUNS) is run
        first = min(each.seed for each in RUNS if (each.game, each.scheme) == (run.game, run.scheme))
        assert experiments.control(experiment(run.game, run.scheme, seed=99), RUNS).seed == first


def test_a_line_and_a_curve_for_each() -> None:
    invented = [experiment("pong", changed="delta 0.03"), experiment("pong", seed=1), experiment("breakout")]
    lines = experiments.experiment_table(invented, RUNS).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["pong", "pong", "breakout"]
    assert "delta 0.03, seed 0" in lines[1]
    kept = experiments.experiment_table(KEPT, RUNS).splitlines()
    assert max(map(len, [*lines, *kept])) <= NARROW, "its lines break in a narrow window"
    figure = Figure()
    experiments.draw_experiments(figure, invented, RUNS)
    assert [axes.get_title() for axes in figure.axes] == ["Breakout", "Pong"]
    assert [len(axes.lines) for axes in figure.axes] == [2, 3]


def test_nothing_kept_is_nothing_to_show(tmp_path: Path) -> None:
    assert experiments.experiments(tmp_path) == ()


def test_what_is_kept_has_a_run_beside_it_and_is_told_apart() -> None:
    assert KEPT, "the lesson shows them"
    labels = [(each.game, each.label) for each in KEPT]
    assert len(set(labels)) == len(labels)
    for each in KEPT:
        recorded = experiments.control(each, RUNS)
        assert each.changed or each.seed != recorded.seed, "it differs in something"
        points = each.curve["total_steps"], each.curve["mean_return"]
        steps, with_it, without = experiments.over_the_same_steps(
            points, (recorded.log["total_steps"], recorded.log["mean_return"])
        )
        assert steps > 0.2 * recorded.steps
        assert np.isfinite([with_it, without]).all()


# ---- one life


class Still:
    """A policy that pushes nothing, as far as a life needs to know."""

    config = preset("seaquest")

    def act(self, obs: np.ndarray, generator: object) -> np.ndarray:
        assert obs.shape == (4, 52, 40)
        return np.array([1, 1, 0])


def test_a_submarine_that_stays_at_the_surface_loses_no_life_to_its_air() -> None:
    with pytest.raises(ValueError, match="more than 2000 steps"):
        one_life.first_life(Still())  # type: ignore[arg-type]


def test_a_life_is_what_the_emulator_plays() -> None:
    run = next(run for run in RUNS if run.game == "pong")
    breakout = next(run for run in RUNS if run.game == "breakout")
    life = one_life.first_life(recorded_games.loaded(breakout))
    ale = screens.emulator("breakout")
    np.testing.assert_array_equal(life.memory[-1].shape, (ale.getRAMSize(),))
    assert life.screens.shape == (len(life.memory), 210, 160, 3)
    assert life.memory[-1, 57] == 4, "lives of Breakout: five at the start"
    assert (life.memory[:-1, 57] == 5).all()
    again = one_life.first_life(recorded_games.loaded(breakout))
    np.testing.assert_array_equal(again.screens, life.screens)
    assert run.lengths.shape == run.scores.shape


def test_coming_up_without_a_diver_costs_a_life_and_with_one_is_not_tried() -> None:
    assert one_life.lives_after_surfacing(1.0) == (4, 3)
    figure = Figure()
    life = one_life.Life(np.zeros((100, 210, 160, 3), dtype=np.uint8), np.zeros((100, 128), dtype=np.uint8))
    one_life.draw_life(figure, life)
    assert [axes.get_title() for axes in figure.axes] == ["1 s", "2 s", "4 s", "5 s"]
