"""What lesson 10 shows where a score is low: one life played out, and runs with another setting beside the recorded."""

from __future__ import annotations

import dataclasses
import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from teaching_contract import NARROW

from trpo_lessons import envs, zoo
from trpo_lessons.bench.curves import Curves
from trpo_lessons.bench.record import command_of
from trpo_lessons.teaching.lesson_10 import experiments, one_life, recorded_games
from trpo_lessons.training import preset

RUNS = recorded_games.recorded()
KEPT = experiments.experiments()


def curve(steps: list[float], scores: list[float], **facts: object) -> Curves:
    return Curves(facts, {"total_steps": np.array(steps), "mean_return": np.array(scores)})


def experiment(
    game: str = "pong", scheme: str = "single path", seed: int = 0, **changed: str
) -> experiments.Experiment:
    return experiments.Experiment(game, scheme, seed, changed, curve([1e6, 2e6], [-20.0, 5.0]))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, {}),
        ({"iterations": 244, "seed": 3, "threads": 1}, {}),
        ({"delta": 0.03, "hidden": (20,)}, {"delta": "0.03", "hidden": "20"}),
        ({"steps_per_iteration": 4096}, {"steps_per_iteration": "4096"}),
        ({"sampling": "vine", "rollout_length": 8}, {"rollout_length": "8"}),
    ],
)
def test_what_was_changed_is_read_from_the_command(settings: dict[str, object], told: dict[str, str]) -> None:
    assert experiments.changed(command_of(preset("pong", **settings))) == told


def test_what_was_changed_in_words() -> None:
    assert experiments.told({}) == "the same"
    assert experiments.told({"delta": "0.03", "gamma": "0.999"}) == "delta 0.03, gamma 0.999"
    assert experiments.told({"delta": "0.03", "hidden": "20", "value_hidden": "20"}) == "20 units, delta 0.03"
    assert experiments.told({"hidden": "20", "value_hidden": "64"}) == "hidden 20, value_hidden 64"
    assert experiments.told({"value_hidden": "64"}) == "value_hidden 64"
    assert experiments.told({"vine_states": "256", "rollout_length": "4", "delta": "1"}) == "256 x 4 steps, delta 1"
    assert experiments.told({"rollout_length": "4"}) == "rollout_length 4"
    batch = {"vine_states": "256", "steps_per_iteration": "20480"}
    assert experiments.told({**batch, "delta": "0.03"}) == "256 states, delta 0.03"
    assert experiments.told({"steps_per_iteration": "4096"}) == "steps_per_iteration 4096"
    assert experiments.told({"first_actions": "uniform", "delta": "1"}) == "uniform, delta 1"


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
        assert [
            beside.curve for beside in experiments.controls(experiment(run.game, run.scheme, run.seed), [], RUNS)
        ] == [run.log]
        first = min(each.seed for each in RUNS if (each.game, each.scheme) == (run.game, run.scheme))
        (chosen,) = experiments.controls(experiment(run.game, run.scheme, seed=99, delta="1"), [], RUNS)
        assert [each.seed for each in RUNS if each.log is chosen.curve] == [first]


def test_an_experiment_on_top_of_another_stands_beside_that_one() -> None:
    small, other_seed = experiment(hidden="20"), experiment(hidden="20", seed=1)
    larger_steps = experiment(hidden="20", delta="0.03", seed=1)
    found = [small, other_seed, larger_steps, experiment(delta="0.1"), experiment("breakout", hidden="20")]
    (beside,) = experiments.controls(larger_steps, found, RUNS)
    assert beside.curve is other_seed.curve, "the one of its seed"
    assert beside.settings == {"hidden": "20"}
    assert experiments.controls(larger_steps, [small, larger_steps], RUNS)[0].curve is small.curve
    assert [other.settings for other in experiments.controls(small, found, RUNS)] == [{}]
    both = experiments.controls(experiment(hidden="20", delta="1"), found, RUNS)
    assert [other.settings for other in both] == [{"hidden": "20"}, {}], "and the recorded run of its seed"
    elsewhere = experiments.controls(experiment(scheme="vine", hidden="20", delta="1"), [small], vines())
    assert [other.settings for other in elsewhere] == [{}]


def test_where_the_recorded_run_is_older_than_the_preset_its_settings_are_told() -> None:
    (run,) = (run for run in RUNS if run.name == "breakout")
    narrow = {"hidden": (20,), "value_hidden": (20,)}
    older = dataclasses.replace(run, game="breakout")
    older.__dict__["config"] = dataclasses.replace(run.config, **narrow)
    far_sighted = experiment("breakout", gamma="0.999")
    (beside,) = experiments.controls(far_sighted, [], [older])
    assert beside.settings == {"hidden": "20", "value_hidden": "20"}
    assert experiments.its_own(far_sighted, beside) == {"hidden": "64", "value_hidden": "64", "gamma": "0.999"}
    as_narrow = experiment("breakout", hidden="20", value_hidden="20", delta="0.03")
    assert experiments.its_own(as_narrow, beside) == {"delta": "0.03"}
    assert [other.settings for other in experiments.controls(far_sighted, [], [run])] == [{}]


def vines() -> list[recorded_games.Recorded]:
    """The recorded runs, as if they were of the other scheme."""
    return [dataclasses.replace(run, scheme="vine") for run in RUNS]


def test_a_line_and_a_curve_for_each() -> None:
    invented = [
        experiment("breakout", hidden="20", value_hidden="20"),
        experiment("pong", delta="0.03"),
        experiment("pong", delta="0.03", gamma="0.999", seed=1),
    ]
    lines = experiments.experiment_table(invented, RUNS).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["breakout", "pong", "pong"]
    assert "20 units                the preset" in lines[1]
    assert "gamma 0.999, seed 1     delta 0.03" in lines[3]
    assert lines[3].split()[-2:] == ["5", "5"], "both scores of invented runs"
    kept = experiments.experiment_table(KEPT, RUNS).splitlines()
    assert max(map(len, [*lines, *kept])) <= NARROW, "its lines break in a narrow window"
    figure = Figure()
    experiments.draw_experiments(figure, invented, RUNS)
    assert [axes.get_title() for axes in figure.axes] == ["Breakout", "Pong"]
    assert [len(axes.lines) for axes in figure.axes] == [2, 3]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["recorded", *(each.label for each in invented)]


def test_one_change_looks_the_same_in_every_panel() -> None:
    figure = Figure()
    games = ("breakout", "enduro", "pong", "qbert", "space_invaders")
    experiments.draw_experiments(figure, [experiment(game, hidden="20") for game in games], RUNS)
    assert [axes.get_title() for axes in figure.axes] == [recorded_games.TITLES[game] for game in games]
    assert len({axes.lines[-1].get_color() for axes in figure.axes}) == 1
    assert len(figure.legends[0].get_texts()) == 2


@pytest.mark.parametrize("scheme", ["single path", "vine"])
def test_no_two_labels_look_the_same(scheme: str) -> None:
    figure = Figure()
    experiments.draw_experiments(figure, [each for each in KEPT if each.scheme == scheme], RUNS)
    (legend,) = figure.legends
    looks = [(line.get_color(), str(line.get_linestyle()), str(line._dash_pattern)) for line in legend.get_lines()]
    assert len(set(looks)) == len(looks) > 4


def test_a_curve_is_told_by_what_differs_from_the_recorded_one_beside_it() -> None:
    (run,) = (run for run in RUNS if run.name == "breakout")
    older = dataclasses.replace(run, game="breakout")
    older.__dict__["config"] = dataclasses.replace(run.config, hidden=(20,), value_hidden=(20,))
    figure = Figure()
    experiments.draw_experiments(figure, [experiment("breakout", gamma="0.999")], [older])
    assert figure.legends[0].get_texts()[-1].get_text() == "64 units, gamma 0.999, seed 0"


def test_nothing_kept_is_nothing_to_show(tmp_path: Path) -> None:
    assert experiments.experiments(tmp_path) == ()


def test_what_is_kept_has_a_run_beside_it_and_is_told_apart() -> None:
    assert KEPT, "the lesson shows them"
    labels = [(each.game, each.label) for each in KEPT]
    assert len(set(labels)) == len(labels)
    for each in KEPT:
        for beside in experiments.controls(each, KEPT, RUNS):
            points = each.curve["total_steps"], each.curve["mean_return"]
            other = beside.curve["total_steps"], beside.curve["mean_return"]
            steps, with_it, without = experiments.over_the_same_steps(points, other)
            assert steps > 800_000, "a fifth of what the preset takes"
            assert np.isfinite([with_it, without]).all()


@pytest.mark.parametrize("each", KEPT, ids=lambda each: f"{each.game} {each.label}")
def test_its_command_has_the_settings_with_which_it_ran(each: experiments.Experiment) -> None:
    """Under the presets of this version: where those change, commands must too."""
    given = {name: preset_value(name, text) for name, text in each.changed.items()}
    sampling = {"sampling": "vine"} if each.scheme == "vine" else {}
    given["iterations"] = each.curve.facts["iterations"]
    config = preset(each.game, "class", seed=each.seed, threads=1, **sampling, **given)
    assert sorted(command_of(config).split()) == sorted(each.curve.facts["command"].split())
    for name, value in each.curve.facts["settings"].items():
        assert json.loads(json.dumps(config.to_json()[name])) == value, name


def preset_value(name: str, text: str) -> object:
    if name in ("hidden", "value_hidden"):
        return (int(text),)
    if text.isalpha():
        return text
    return int(text) if text.isdigit() else float(text)


# ---- one life


class Still:
    """A policy that pushes nothing, as far as a life needs to know."""

    config = preset("seaquest")

    def act(self, obs: np.ndarray, generator: object) -> np.ndarray:
        assert obs.shape == (4, 52, 40)
        return np.array([1, 1, 0])


class Diving(Still):
    def act(self, obs: np.ndarray, generator: object) -> np.ndarray:
        return np.array([1, 2, 0])


def test_a_submarine_that_stays_at_the_surface_keeps_its_life() -> None:
    life = one_life.first_life(Still(), longest=300)  # type: ignore[arg-type]
    assert not life.lost
    assert life.screens.shape == (300, 210, 160, 3)


def test_one_that_dives_and_comes_up_with_no_diver_loses_it_at_once() -> None:
    """And one that stays below does not, so soon: it is coming up that costs it."""
    asked = []

    def soon(memory: np.ndarray) -> bool:
        asked.append(int(memory[one_life.DIVERS]))
        return len(asked) > 60

    life = one_life.first_life(Diving(), rise=soon, longest=130)  # type: ignore[arg-type]
    assert life.lost
    assert len(asked) == 61, "it goes on rising without being asked again"
    assert not any(asked)
    depth = life.memory[:, one_life.DEPTH].astype(int)
    assert depth[59] > depth[-2], "it rose"
    assert not one_life.first_life(Diving(), longest=len(life.memory)).lost  # type: ignore[arg-type]


def test_a_life_is_what_the_emulator_plays() -> None:
    breakout = recorded_games.loaded(next(run for run in RUNS if run.game == "breakout"))
    life = one_life.first_life(breakout)
    assert life.screens.shape == (len(life.memory), 210, 160, 3)
    assert life.lost
    assert life.memory[-1, 57] == 4, "lives of Breakout: five at the start"
    assert (life.memory[:-1, 57] == 5).all()
    np.testing.assert_array_equal(one_life.first_life(breakout).screens, life.screens)
    np.testing.assert_array_equal(one_life.first_life(breakout, longest=20).screens, life.screens[:20])


def test_four_screens_of_a_life_with_their_times() -> None:
    figure = Figure()
    bytes_ = np.zeros((100, 210, 160, 3), dtype=np.uint8), np.zeros((100, 128), dtype=np.uint8)
    one_life.draw_life(figure, one_life.Life(*bytes_, lost=True))
    assert [axes.get_title() for axes in figure.axes] == ["1 s", "2 s", "4 s", "5 s"]


# ---- a day of Enduro


@pytest.mark.slow
def test_a_day_of_enduro_gives_nothing_for_more_than_its_200_cars() -> None:
    """As lesson 10 says: the score stands at 200 from there to the end of the first day, and then goes on."""
    run = zoo.load("enduro")
    env = envs.make("enduro", 4, threads=1)
    with closing(env):
        obs, generator = envs.begin_episodes(env, [11, 12, 13, 14]), torch.Generator().manual_seed(0)
        scores = np.zeros((3500, 4))
        for step in range(len(scores)):
            obs, rewards, *_ = env.step(run.act(obs, generator))
            scores[step] = scores[step - 1] + rewards
    assert (scores[3310] == 200).all()
    assert ((scores == 200).sum(0) > 30).all(), "they stand there for a while"
    assert (scores[-1] > 200).all()
    assert scores[:3310].max() == 200
