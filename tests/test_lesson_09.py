"""What lesson 09 shows, computed a second time by other means."""

from __future__ import annotations

import io
import itertools
import json
import math
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats
from teaching_contract import NARROW, line_of

from trpo_lessons import envs, training, zoo
from trpo_lessons.bench import curves, policies
from trpo_lessons.bench.compare import ZOO
from trpo_lessons.envs.mujoco import ROBOTS
from trpo_lessons.teaching.checks.hunts import HEALTHY
from trpo_lessons.teaching.lesson_08.recorded_runs import DELTA, PENALTY, step_size_runs
from trpo_lessons.teaching.lesson_09 import broken_runs, explorers, film, live, recorded_runs, swimming
from trpo_lessons.teaching.lesson_09 import check as checks
from trpo_lessons.teaching.lesson_09.recorded_runs import AXES, FASTEST, OURS, PEER, RECORDED, STEPS, TASKS, VINE
from trpo_lessons.teaching.solutions import lesson_09 as solutions
from trpo_lessons.training import preset
from trpo_lessons.training.running.loop import Trainer

ZOO_PARTS = ("stages", "step_size_policies", "went_wrong")


def test_the_lesson_says_how_long_its_exercises_take() -> None:
    assert sum(check.minutes for check in checks.CHECKS) == 48


# ---- policies without their runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", recorded_runs.TASKS)
def test_the_last_stage_is_the_recorded_policy(task: str) -> None:
    last = recorded_runs.stages_of(task)[-1].run
    whole = zoo.load(f"{task}/{last.config.seed}")
    assert torch.equal(last.theta, whole.theta)
    assert torch.equal(last.statistics.mean, whole.statistics.mean)
    assert last.iteration == whole.iteration
    obs = np.random.default_rng(0).normal(size=(5, *last.spaces.observation.shape))
    np.testing.assert_array_equal(last.act(obs), whole.act(obs))


def test_stages_are_those_of_the_recorded_run() -> None:
    """Trained again for two iterations. Other machines round differently: so within a hundredth of a step."""
    (again,) = policies.stages("hopper", 0, [2]).values()
    kept = recorded_runs.stages_of("hopper")[0]
    assert kept.run.iteration == 2
    assert again[1] == kept.facts["total_steps"] == 8192
    start = Trainer(kept.run.config)
    with closing(start):
        moved = kept.run.theta - start.theta
    assert (again[0].theta - kept.run.theta).norm() < 0.01 * moved.norm()
    torch.testing.assert_close(again[0].statistics.mean, kept.run.statistics.mean, atol=1e-3, rtol=1e-3)


def test_a_stage_after_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match="trained for 244 iterations"):
        policies.stages("hopper", 0, [2, 245])


def test_what_is_kept_acts_like_the_run_and_tells_what_it_scores(tmp_path: Path) -> None:
    config = preset("hopper", "smoke", seed=3, threads=1)
    run = training.train(config, tmp_path / "runs" / "a")
    training.train(replace(config, iterations=9), tmp_path / "runs" / "unfinished", callback=lambda _row: True)
    policies.keep(policies.finals(tmp_path / "runs"), tmp_path / "out")
    (kept,) = policies.kept_policies(tmp_path / "out").values()
    obs = np.random.default_rng(0).normal(size=(4, 11))
    np.testing.assert_array_equal(kept.run.act(obs), run.act(obs))
    assert kept.run.config == config
    assert kept.facts["mean_return"] == pytest.approx(training.evaluate(run).mean, abs=0.06)
    assert "train hopper --preset smoke --seed 3" in kept.facts["command"]
    with pytest.raises(training.RunError, match="no finished run"):
        policies.keep({}, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(training.RunError, match="choose another folder with --out"):
        policies.keep(policies.finals(tmp_path / "runs"), tmp_path / "file")


def test_the_last_policies_of_the_sweep_are_kept() -> None:
    for kind in (DELTA, PENALTY):
        for value in step_size_runs(kind):
            kept = recorded_runs.last_policy(kind, value)
            assert (kept.run.config.seed, getattr(kept.run.config, kind)) == (0, value)
            assert kept.facts["total_steps"] == 999424


def test_what_this_lesson_adds_to_the_zoo_is_small() -> None:
    files = [path for part in ZOO_PARTS for path in (ZOO / part).rglob("*") if path.is_file()]
    assert len(files) == 8 + 2 + 4
    assert sum(path.stat().st_size for path in files) < 1.5e6


# ---- section 1: robots -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", recorded_runs.TASKS)
def test_parts_of_the_reward_add_up_to_what_the_simulator_pays(task: str) -> None:
    scene, robot = film.first_steps(zoo.load(f"{task}/0"), 60), ROBOTS[task]
    parts = solutions.reward_parts(
        scene.positions[:, 0], scene.actions, scene.seconds, robot.healthy_reward, robot.control_cost, scene.fell
    )
    assert sum(parts) == pytest.approx(scene.rewards.sum(), abs=1e-4)


def test_a_fall_ends_the_scene_and_the_last_step_pays_no_bonus() -> None:
    scene = film.act_out(recorded_runs.stages_of("hopper")[0].run, 8.0)
    assert scene.fell
    assert len(scene.positions) == len(scene.rewards) == len(scene.actions), "the state after the fall is not shown"
    assert scene.rewards[-1] < scene.rewards[-2] - 0.5
    assert scene.at(scene.lasted) is not None
    assert scene.at(scene.lasted + scene.seconds) is None


def test_a_scene_begins_where_an_evaluation_does() -> None:
    run = zoo.load("hopper/1")
    scored = training.evaluate(run, 1, seed=4)
    scene = film.first_steps(run, 1000, seed=4)
    assert scene.rewards.sum() == pytest.approx(scored.returns[0], rel=1e-3)


def test_four_cheetahs_lie_on_their_backs_and_two_swimmers_are_bent() -> None:
    pitch = [np.median(film.act_out(zoo.load(f"halfcheetah/{seed}"), 4.0).positions[-20:, 2]) for seed in range(5)]
    assert [abs(angle) > 2.8 for angle in pitch] == [True, True, True, False, True]
    scores = [run.score for run in recorded_runs.learned("halfcheetah", OURS)]
    assert scores[3] > 2 * max(scores[:3] + scores[4:])


# ---- films -----------------------------------------------------------------------------------------------------------


def test_figures_are_where_the_simulator_has_them() -> None:
    figures = film.Figures("walker")
    scene = film.first_steps(zoo.load("walker/3"), 30)
    at, moved = scene.positions[20], scene.positions[20].copy()
    moved[0] += 2.5
    for one, other in zip(figures.parts(at), figures.parts(moved), strict=True):
        np.testing.assert_allclose(other - one, np.tile([2.5, 0.0], (len(one), 1)), atol=1e-9)
    lowest = min(part[:, 1].min() for part in figures.parts(at))
    assert -0.05 < lowest < 0.6, "a foot is near the ground"


def test_a_swimmer_coasts_as_the_lessons_say() -> None:
    for seed in (0, 1, 4):
        run = zoo.load(f"swimmer/{seed}")
        with closing(envs.make("swimmer", 8, threads=1)) as env:
            obs, _ = env.reset(seed=0)
            heads, earned = [], []
            for t in range(400):
                actions = run.act(obs) if t < 200 else np.zeros((8, 2), dtype=np.float32)
                obs, rewards, *_ = env.step(actions)
                heads.append(obs[:, 1])  # an angle between two links
                earned.append(rewards.mean())
        swimming_speed = np.mean(earned[100:200])
        assert 75 < np.sum(earned[200:]) / swimming_speed < 110, "as far as in eighty to a hundred steps"
        angle = np.array(heads[60:200]) - np.mean(heads[60:200], axis=0)
        lags = np.arange(20, 60)
        alike = [np.sum(angle[lag:] * angle[:-lag]) / len(angle[lag:]) for lag in lags]
        assert abs(lags[np.argmax(alike)] - 36) <= 3, "a stroke of some 36 steps"


def test_wall_clocks_of_the_same_work_differ_eightfold() -> None:
    seconds = [
        json.loads((ZOO / "class_preset" / f"swimmer-seed{seed}" / "summary.json").read_text())["wall_seconds"]
        for seed in range(5)
    ]
    assert 7.5 < max(seconds) / min(seconds) < 9


def test_a_strip_has_a_robot_for_each_moment_until_it_falls() -> None:
    scene = film.act_out(recorded_runs.stages_of("hopper")[0].run, 8.0)
    axes = Figure().subplots()
    film.draw_strip(axes, scene, film.Figures("hopper"), shown=9, seconds=1.6)
    there = sum(time <= scene.lasted + scene.seconds / 2 for time in np.linspace(0, 1.6, 9))
    assert len(axes.collections) == there + 1 < 9, "and once more, pale, as it fell"
    assert [robot.get_alpha() for robot in axes.collections] == [None] * there + [film.PALE]
    words = [text.get_text() for text in axes.texts]
    assert words.count("fell") == 9 - there - 1
    assert words[0] == "0.0 s\n0.0 m"
    assert words[there] == f"fell {scene.lasted:.1f} s\n{scene.distance:.1f} m"


def test_a_race_lasts_as_long_as_the_longest_scene() -> None:
    stages = recorded_runs.stages_of("hopper")
    scenes = {"falls": film.act_out(stages[0].run, 1.0), "hops": film.act_out(stages[-1].run, 1.0)}
    animation, still = film.race(scenes, meters=4.0)
    picture = Image.open(io.BytesIO(animation))
    assert picture.n_frames == 1 + round(1.0 * film.FRAMES_PER_SECOND)
    last = Image.open(io.BytesIO(still))
    assert last.size == picture.size
    other = np.asarray(Image.open(io.BytesIO(animation)).convert("L"), dtype=float)
    assert np.abs(np.asarray(last.convert("L"), dtype=float) - other).max() > 50, "something has moved"


def test_a_swimmer_is_seen_in_its_lane_wherever_it_swims() -> None:
    scene = film.act_out(zoo.load("swimmer/2"), 2.0)
    bottom, top = film.LANE["swimmer"]
    for sideways, edge in ((0.0, None), (4.0, top), (-4.0, bottom)):
        astray = replace(scene, positions=scene.positions + np.array([0, sideways, 0, 0, 0]))
        race = film.Race({"astray": astray}, meters=6.0)
        race.pixels(1.0)
        (robot,) = race._robots.values()
        corners = np.concatenate([path.vertices for path in robot.get_paths()])
        assert bottom - 1e-9 <= corners[:, 1].min() < corners[:, 1].max() <= top + 1e-9
        if edge is not None:
            assert np.abs(corners[:, 1] - edge).min() < 1e-9
        else:
            there = np.concatenate(film.Figures("swimmer").parts(scene.at(1.0)))
            assert corners[:, 1].max() == pytest.approx(there[:, 1].max())


# ---- section 2: a run that can be stopped ----------------------------------------------------------------------------


def test_a_pressed_button_drops_the_iteration_in_progress_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = preset("hopper", "smoke", threads=1, iterations=5, seed=2, steps_per_iteration=2048)
    rows: list[live.Row] = []
    begun, iterate = [], Trainer.iterate

    def noted(self: Trainer) -> dict[str, object]:
        begun.append(self.iteration + 1)
        return iterate(self)

    monkeypatch.setattr(Trainer, "iterate", noted)
    usual = live.signal.getsignal(live.signal.SIGPROF)
    run = training.train(config, tmp_path / "run", callback=live.pressing_stop(rows.append, 2))
    assert (run.interrupted, run.iteration, len(rows)) == (True, 2, 2)
    assert begun == [1, 2, 3], "the third had begun"
    assert live.signal.getsignal(live.signal.SIGPROF) == usual
    resumed, differences = training.resume(tmp_path / "run", callback=rows.append)
    undisturbed = training.train(config, tmp_path / "other")
    assert differences == []
    assert torch.equal(resumed.theta, undisturbed.theta)
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4, 5]


def test_a_screen_draws_every_column_and_knows_earlier_rows(tmp_path: Path) -> None:
    config = preset("hopper", "smoke", threads=1)
    training.train(config, tmp_path / "run")
    screen = live.Screen(config, tmp_path / "run")
    assert [row["iteration"] for row in screen.rows] == [1, 2, 3]
    assert screen.rows[-1]["reason"] == "accepted"
    figure = Figure()
    live.draw_report(figure, screen.rows, config)
    assert [axes.get_title() for axes in figure.axes] == [title for _, title, _ in live.PANELS]
    kl = figure.axes[1].lines[0].get_ydata()
    np.testing.assert_allclose(kl, [row["mean_kl"] / config.delta for row in screen.rows])


def test_a_screen_of_a_run_that_goes_on_shows_that_run_whatever_config_is_called_by_then(tmp_path: Path) -> None:
    config = preset("hopper", "smoke", threads=1, delta=0.02)
    training.train(config, tmp_path / "run")
    another = preset("gym:InvertedPendulum-v5", "smoke", threads=1)
    screen = live.Screen(another, tmp_path / "run")
    assert (screen.config.task, screen.config.delta) == ("hopper", 0.02)
    assert "Six curves of hopper" in screen._live.alt
    assert live.Screen(another, tmp_path / "not begun").config == another


def test_running_medians_are_medians_of_neighbors() -> None:
    values = np.array([3.0, 9.0, 1.0, np.nan, 2.0])
    np.testing.assert_array_equal(live.running_median(values, 3), [6.0, 3.0, 5.0, 1.5, 2.0])


# ---- section 3: curves -----------------------------------------------------------------------------------------------


def test_the_interval_at_a_place_is_students() -> None:
    runs = recorded_runs.learned("hopper", VINE)
    where, returns = [run.steps for run in runs], [run.returns for run in runs]
    mean, low, high = recorded_runs.mean_and_interval(where, returns, np.array([321_000.0]))
    values = [np.interp(321_000, x, y) for x, y in zip(where, returns, strict=True)]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high))
    assert mean[0] == pytest.approx(np.mean(values))
    assert solutions.interval_at(where, returns, 321_000.0, 0.95) == pytest.approx((low[0], high[0]))
    outside, _, _ = recorded_runs.mean_and_interval(where, returns, np.array([10.0, 1e9]))
    assert np.isnan(outside).all()


def test_students_interval_of_a_mean_covers() -> None:
    rng, inside = np.random.default_rng(0), 0
    for _ in range(2000):
        y = [np.full(2, x) for x in rng.normal(size=5)]
        _, low, high = recorded_runs.mean_and_interval([np.array([0.0, 1.0])] * 5, y, np.array([0.5]))
        inside += low[0] <= 0 <= high[0]
    assert abs(inside / 2000 - 0.95) < 4 * math.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.parametrize("axis", AXES)
def test_first_is_the_first_place_at_that_level(axis: str) -> None:
    for run, first, where in zip(
        recorded_runs.learned("walker", OURS),
        recorded_runs.first_at("walker", OURS, 2000, axis),
        recorded_runs.places("walker", OURS, axis),
        strict=True,
    ):
        before = where < first
        assert (run.returns[before] < 2000).all()
        assert math.isinf(first) == (run.returns.max() < 2000)


def test_paces_are_of_the_run_that_was_disturbed_least() -> None:
    for task, scheme in itertools.product(("hopper", "walker"), (OURS, VINE, PEER)):
        recorded = [where[-1] for where in recorded_runs.places(task, scheme, RECORDED)]
        fastest = [where[-1] for where in recorded_runs.places(task, scheme, FASTEST)]
        assert min(recorded) == pytest.approx(min(fastest), rel=0.01)
        assert np.ptp(fastest) < 0.02 * max(fastest), "as many steps take as long"
    assert max(run.seconds[-1] for run in recorded_runs.learned("hopper", OURS)) > 3 * 90


def test_what_the_lesson_says_of_the_hoppers_curves_is_so() -> None:
    at = np.array([400_000.0, 950_000.0])
    widths, means = {}, {}
    for scheme in (OURS, VINE):
        returns = [run.returns for run in recorded_runs.learned("hopper", scheme)]
        mean, low, high = recorded_runs.mean_and_interval(recorded_runs.places("hopper", scheme, STEPS), returns, at)
        widths[scheme], means[scheme] = high - low, mean
    assert widths[OURS] == pytest.approx([1560, 460], abs=5)
    at_400 = sorted(float(np.interp(4e5, run.steps, run.returns)) for run in recorded_runs.learned("hopper", OURS))
    assert at_400[0] == pytest.approx(1700, abs=10)
    assert at_400[1] > 3000
    said = explorers.facts_of_race(explorers.compute_race("hopper", VINE, STEPS)).splitlines()
    assert "widest at 392k: 1619" in said[1]
    assert "widest at 848k: 4087" in said[3]
    assert means[VINE][0] < 0.5 * means[OURS][0], "behind"
    median = {scheme: np.median(recorded_runs.first_at("hopper", scheme, 1800, STEPS)) for scheme in (OURS, VINE)}
    assert 1.9 < median[VINE] / median[OURS] < 2.4, "about twice as many steps"
    assert recorded_runs.learned("hopper", OURS)[0].seconds[-1] == pytest.approx(90, abs=1)
    assert 1e6 * recorded_runs.pace("hopper", PEER) == pytest.approx(523, abs=2)


def test_a_log_with_a_hole_begins_after_it() -> None:
    runs = recorded_runs.learned("swimmer", PEER)
    assert [run.seed for run in runs] == [0, 1, 2, 3, 4]
    for run in runs:
        assert np.diff(run.steps).max() < 20 * np.median(np.diff(run.steps))


# ---- section 5: reading a run ----------------------------------------------------------------------------------------


def test_what_the_lesson_says_of_entropies_is_so() -> None:
    logs = [live.rows_of(zoo.load(f"halfcheetah/{seed}").folder) for seed in range(5)]
    last = [rows[-1]["entropy"] for rows in logs]
    at = [rows[len(rows) * 4 // 10]["entropy"] for rows in logs]
    assert last[3] == pytest.approx(4.2, abs=0.05)
    assert max(last[:3] + last[4:]) < 1.5
    assert min(last) == pytest.approx(-0.2, abs=0.05)
    assert [round(x, 1) for x in at] == [4.8, 5.0, 4.8, 6.3, 5.4]


def test_what_the_lesson_says_of_the_cheetahs_explained_variance_is_so() -> None:
    def median(rows: list[live.Row], first: float, last: float) -> float:
        return float(np.median([r["explained_variance"] for r in rows if first <= r["total_steps"] / 1000 <= last]))

    logs = [live.rows_of(zoo.load(f"halfcheetah/{seed}").folder) for seed in range(5)]
    early, late = ([median(rows, *between) for rows in logs] for between in ((200, 300), (750, 1000)))
    assert early[3] == pytest.approx(0.95, abs=0.01)
    others = sorted(early[:3] + early[4:])
    assert (round(others[0], 2), round(others[-1], 2)) == (0.4, 0.63)
    assert late[1] == pytest.approx(late[3], abs=0.02)


def test_what_the_lesson_says_of_the_stages_is_so() -> None:
    hopper, cheetah = (recorded_runs.stages_of(task) for task in ("hopper", "halfcheetah"))
    first, second, third = (kept.facts for kept in hopper[:3])
    assert (round(second["mean_return"]), round(third["mean_return"])) == (261, 2635)
    assert film.act_out(hopper[0].run, 4.0).distance == pytest.approx(0.2, abs=0.05)
    assert film.act_out(hopper[1].run, 4.0).distance == pytest.approx(1.2, abs=0.2)
    assert first["mean_length"] < second["mean_length"] < third["mean_length"]
    learning = recorded_runs.learned("halfcheetah", OURS)[0]
    at = [float(np.interp(kept.facts["total_steps"], learning.steps, learning.returns)) for kept in cheetah[1:3]]
    assert at == pytest.approx([-140, 35], abs=1)
    assert [kept.facts["mean_return"] for kept in cheetah[1:3]] == pytest.approx([-300, -289], abs=1)


def test_recorded_swimmers_are_where_the_lesson_says() -> None:
    at = [float(np.interp(1e5, run.steps, run.returns)) for run in recorded_runs.learned("swimmer", OURS)]
    assert (round(min(at)), round(max(at))) == (56, 139)


def test_the_run_that_went_wrong_stands() -> None:
    kept = broken_runs.last_policy(broken_runs.LITTLE_NOISE)
    assert kept.run.config.initial_log_std == -3
    assert kept.facts["mean_return"] == pytest.approx(1047, abs=1)
    assert kept.facts["mean_length"] == 1000
    log = broken_runs.recorded(broken_runs.LITTLE_NOISE)
    assert log["entropy"].max() < -4.5
    assert broken_runs.log_of(HEALTHY)["entropy"][0] == pytest.approx(3 * 0.5 * math.log(2 * math.pi * math.e), abs=0.1)
    assert log["accepted"].min() == 1.0
    assert (round(log.final()), round(log.final("mean_length"))) == (869, 809)
    assert np.nanmedian(log["explained_variance"]) > 0.95


def test_the_short_sighted_swimmer_is_worse_by_its_own_measure() -> None:
    short = broken_runs.last_policy(broken_runs.SHORT_SIGHT)
    assert (short.run.config.gamma, short.run.config.lam) == (0.99, preset("swimmer").lam)
    assert short.facts["mean_return"] == pytest.approx(120, abs=1)
    runs = [short.run, *(zoo.load(f"swimmer/{seed}") for seed in (0, 1, 4))]
    worth = [film.first_steps(run, 900, seed=2).rewards @ 0.99 ** np.arange(900) for run in runs]
    assert worth[0] < min(worth[1:]) - 2


def test_each_broken_run_has_one_setting_off() -> None:
    facts = json.loads((broken_runs.WENT_WRONG / "runs.json").read_text())["runs"]
    commands = {name: run["command"].split(" --set ") for name, run in facts.items()}
    assert set(commands) == {*broken_runs.RUNS.values(), broken_runs.LITTLE_NOISE}
    usual = commands["hopper-healthy"]
    for name, words in commands.items():
        setting = name.removeprefix("hopper-")
        others = set(words[1:]) - set(usual[1:])
        assert name == "hopper-healthy" or setting in others or f"{setting}.0" in others, (name, others)
        assert len(others) <= 2
    assert preset("hopper").delta == broken_runs.DELTA


def test_each_fault_shows_in_the_column_that_its_hint_names() -> None:
    read = {fault: broken_runs.reading(broken_runs.log_of(fault)) for fault in broken_runs.RUNS}
    healthy = read[HEALTHY]
    assert read["one CG iteration"].residual > 1.5 * healthy.residual
    assert read["damping of 10"].kl < 0.5 * healthy.kl
    assert read["damping of 10"].residual < 1e-6
    assert read["no search"].accepted < 0.05
    assert read["V hardly fitted"].explained < 0.3
    short = read["gamma of 0.9"]
    assert short.length < 0.2 * healthy.length
    assert abs(short.explained - healthy.explained) < 0.05
    assert abs(short.kl - healthy.kl) < 0.2
    assert short.accepted == 1.0
    assert all(each.earns < 0.7 * healthy.earns for fault, each in read.items() if fault != HEALTHY)


def test_the_table_has_the_readings() -> None:
    head, *lines = broken_runs.table(broken_runs.HUNT.lineup(3)).splitlines()[1:]
    assert max(map(len, [head, *lines])) <= NARROW, "its lines break in a narrow window"
    assert [line.split()[0] for line in lines] == [HEALTHY, *"ABCDE"]
    for line, name in zip(lines[1:], "ABCDE", strict=True):
        reading = broken_runs.reading(broken_runs.log_of(broken_runs.HUNT.truth(3)[name]))
        numbers = line.split()
        assert int(numbers[1]) == round(reading.earns)
        assert float(numbers[4]) == pytest.approx(reading.explained, abs=0.006)


def test_what_v_says_is_said_of_the_states_it_visits() -> None:
    run = zoo.load("swimmer/2")
    said = swimming.what_v_says(run)
    assert said.earned == pytest.approx(2100, rel=0.1), "215 in 1000 steps, noise included, over 1 - gamma"
    assert said.level < 0.9 * said.earned
    assert said.spread > 3 * swimming.what_v_says(zoo.load("swimmer/0")).spread


def test_curves_keep_how_long_episodes_are(tmp_path: Path) -> None:
    training.train(preset("hopper", "smoke", threads=1), tmp_path / "runs" / "a")
    curves.keep(tmp_path / "runs", tmp_path / "out")
    (kept,) = curves.kept_curves(tmp_path / "out").values()
    rows = live.rows_of(tmp_path / "runs" / "a")
    np.testing.assert_allclose(kept["mean_length"], [row["mean_length"] for row in rows], rtol=1e-6)
    np.testing.assert_allclose(kept["cg_residual"], [row["cg_residual"] for row in rows], rtol=1e-6)


# ---- section 6: sizes of a step --------------------------------------------------------------------------------------


def test_what_the_lesson_says_of_step_sizes_is_so() -> None:
    deltas, penalties = step_size_runs(DELTA), step_size_runs(PENALTY)

    def passes_2000(value: float) -> list[float]:
        return [run["total_steps"][(run["mean_return"] > 2000).argmax()] / 1000 for run in deltas[value]]

    def worst_tenth(value: float) -> float:
        return float(np.nanquantile(np.concatenate([run["explained_variance"][10:] for run in deltas[value]]), 0.1))

    assert all(run["entropy"][-1] == pytest.approx(3.5, abs=0.1) for run in deltas[0.0003])
    assert all(705 < steps < 755 for steps in passes_2000(0.0003))
    assert all(255 < steps < 460 for steps in passes_2000(0.01))
    assert np.nanmedian(np.concatenate([run["mean_kl"] for run in deltas[0.3]])) == pytest.approx(0.24, abs=0.01)
    assert (round(worst_tenth(0.3), 2), round(worst_tenth(0.01), 2)) == (0.77, 0.94)
    third = sorted(run["entropy"][33] for run in deltas[0.3])
    assert third[1] < 1 < third[2]
    assert [round(run.final()) for run in deltas[0.3]] == [2715, 2950, 2122]
    assert [round(run.final()) for run in deltas[0.01]] == [3544, 3053, 3436]
    for value, median, largest in ((0.5, 0.1, 0.35), (0.15, 2.2, 60)):
        kl = np.concatenate([run["mean_kl"] for run in penalties[value]])
        assert np.nanmedian(kl) == pytest.approx(median, rel=0.05)
        assert np.nanmax(kl) == pytest.approx(largest, rel=0.05)
    every = [run["accepted"].min() for runs in (*deltas.values(), *penalties.values()) for run in runs]
    assert min(every) > 0.99


@pytest.mark.parametrize(("delta", "penalty"), [(0.003, 1.5), (0.0001, 120.0), (1.0, 0.017)])
def test_the_kl_panel_has_whole_decades_and_labels_that_do_not_overlap(delta: float, penalty: float) -> None:
    numbers = explorers.compute_step_size(delta, penalty)
    figure = Figure(figsize=(8.4, 4.9), layout="constrained")
    explorers.draw_step_size(numbers, figure)
    figure.draw_without_rendering()
    (kl,) = (axes for axes in figure.axes if axes.get_title() == "mean KL, nats")
    bottom, top = kl.get_ylim()
    values = np.concatenate([run["mean_kl"] for runs in numbers.runs.values() for run in runs])
    assert bottom <= np.nanmin(values)
    assert np.nanmax(values) <= top
    shown = [tick for tick in kl.yaxis.get_ticklabels(which="both") if tick.get_text()]
    shown = [tick for tick in shown if bottom <= tick.get_position()[1] <= top]
    boxes = sorted((tick.get_window_extent() for tick in shown), key=lambda box: float(box.y0))
    assert len(boxes) >= 2
    assert all(one.y1 <= other.y0 for one, other in itertools.pairwise(boxes))


def test_a_curve_whose_log_is_not_whole_says_so() -> None:
    said = explorers.facts_of_race(explorers.compute_race("swimmer", PEER, STEPS)).splitlines()
    assert said[4] == "seed 1 of sb3-contrib: its log is whole from 78k to 684k steps only"
    assert len(said) == 5
    for task, beside in itertools.product(TASKS, (VINE, PEER)):
        if (task, beside) != ("swimmer", PEER):
            assert "whole" not in explorers.facts_of_race(explorers.compute_race(task, beside, STEPS))


def test_the_step_size_explorer_draws_curves_diagnostics_and_strips() -> None:
    numbers = explorers.compute_step_size(0.01, 120.0)
    figure = Figure(figsize=(8.4, 4.9), layout="constrained")
    explorers.draw_step_size(numbers, figure)
    titles = {axes.get_title() for part in figure.subfigs for axes in part.axes}
    assert set(explorers.DIAGNOSTICS.values()) <= titles
    strips = [axes for part in figure.subfigs[1:] for axes in part.axes]
    assert len(strips[0].collections) == 9, "it hops on"
    assert len(strips[1].collections) < 9, "it falls"
    assert numbers.last[DELTA].facts["mean_return"] == pytest.approx(3654, abs=1)


def test_the_gait_explorer_shows_the_stage_on_the_curve() -> None:
    numbers = explorers.compute_gait("walker", 4)
    figure = Figure(figsize=(8.4, 4.2))
    explorers.draw_gait(numbers, figure)
    mark = figure.axes[1].lines[-1]
    assert mark.get_xdata()[0] == numbers.kept.facts["total_steps"] == 183 * 2048


def test_the_race_explorer_shows_every_seed() -> None:
    numbers = explorers.compute_race("walker", VINE, STEPS)
    figure = Figure(figsize=(8.4, 3.9))
    explorers.draw_race(numbers, figure)
    thin = [line for line in figure.axes[0].lines if line.get_linewidth() == 0.8]
    assert len(thin) == 5 + 3
    alone = explorers.facts_of_race(explorers.compute_race("halfcheetah", VINE, STEPS))
    assert "not recorded for this task: vine" in alone


# ---- section 8: the swimmer of one's own -----------------------------------------------------------------------------


def test_watching_stops_between_two_iterations() -> None:
    class Learner:
        def __init__(self) -> None:
            self.returns, self.kls = list[float](), list[float]()

        def iterate(self) -> None:
            self.kls.append(0.005)
            self.returns += [float(len(self.kls))] * 2
            if len(self.kls) == 3:
                live.signal.raise_signal(live.signal.SIGINT)

    learner = Learner()
    seen = swimming.watch(learner, 10)
    assert len(learner.kls) == 3
    assert (seen.first, seen.latest) == (1.5, 2.0)


def moved_to_forward(*stretch):  # type: ignore[no-untyped-def]
    """The motors' cost is in the wrong part: the sum is right."""
    forward, bonus, motors = solutions.reward_parts(*stretch)
    return forward + motors, bonus, 0.0


def values_at(steps, returns, at):  # type: ignore[no-untyped-def]
    """Of every seed."""
    return np.array([np.interp(at, x, y) for x, y in zip(steps, returns, strict=True)])


def interval_by_scipy(steps, returns, at, confidence):  # type: ignore[no-untyped-def]
    """With scipy's own interval, where there is a spread."""
    values = values_at(steps, returns, at)
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    return tuple(map(float, stats.t.interval(confidence, len(values) - 1, values.mean(), stats.sem(values))))


# ---- wrong answers, each told what is wrong with it ------------------------------------------------------------------


def parts(i, change):  # type: ignore[no-untyped-def]
    """The solution, with one part computed otherwise."""

    def wrong(x, actions, seconds, healthy, cost, fell):  # type: ignore[no-untyped-def]
        answer = list(solutions.reward_parts(x, actions, seconds, healthy, cost, fell))
        answer[i] = float(change(x, actions, seconds, healthy, cost, fell))
        return tuple(answer)

    return wrong


def returns_with(ends, resets=None, start=1.0):  # type: ignore[no-untyped-def]
    """A loop over rows with other ends, other resets, or another beginning."""

    def wrong(rewards, terminated, truncated, so_far):  # type: ignore[no-untyped-def]
        ended, over = ends(terminated, truncated), (resets or (lambda t, c: t | c))(terminated, truncated)
        found, running = [], start * so_far
        for t, row in enumerate(rewards):
            running = running + row
            found += list(running[ended[t]])
            running = np.where(over[t], 0.0, running)
        return np.array(found, dtype=float), running

    return wrong


def three_copies(rewards, terminated, truncated, so_far):  # type: ignore[no-untyped-def]
    """Right by accident, if the batch were always as wide."""
    found, running = [], so_far.copy()
    for t, e in itertools.product(range(len(rewards)), range(3)):
        running[e] += rewards[t, e]
        if terminated[t, e] or truncated[t, e]:
            found.append(running[e])
            running[e] = 0.0
    return np.array(found), running


def by_hand(find):  # type: ignore[no-untyped-def]
    """An interval whose values are looked up by `find(places, returns, at)`, seed by seed."""

    def interval(steps, returns, at, confidence):  # type: ignore[no-untyped-def]
        values = np.array([find(x, y, at) for x, y in zip(steps, returns, strict=True)])
        far = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
        return float(values.mean() - far), float(values.mean() + far)

    return interval


def needs_a_next_point(x, y, at):  # type: ignore[no-untyped-def]
    """On the line, but not at the last point."""
    k = int(np.searchsorted(x, at, side="right")) - 1
    return y[k] + (at - x[k]) / (x[k + 1] - x[k]) * (y[k + 1] - y[k])


def length(change):  # type: ignore[no-untyped-def]
    """The middle is right, half the length is `change(values, confidence)`."""

    def interval(steps, returns, at, confidence):  # type: ignore[no-untyped-def]
        values = values_at(steps, returns, at)
        far = float(change(values, confidence))
        return float(values.mean()) - far, float(values.mean()) + far

    return interval


def off_by(change):  # type: ignore[no-untyped-def]
    """The share is right, `off` is `change(values, targets)`."""
    return lambda v, t: (solutions.explained(v, t)[0], float(change(v, t)))


def share_of(change):  # type: ignore[no-untyped-def]
    """`off` is right, the share is `change(values, targets)`."""
    return lambda v, t: (float(change(v, t)), solutions.explained(v, t)[1])


def quantile(confidence, n):  # type: ignore[no-untyped-def]
    """Student's."""
    return stats.t.ppf((1 + confidence) / 2, n - 1)


METER, UPRIGHT, FALL = (
    "One meter more",
    "the second part should be the bonus of all T steps",
    "A fall should cost one bonus",
)
ALONE, SUM, T_TEST = "One motor alone", "square first, then add", "A t-test at either end"
OFF, PLACES = "V less target, averaged over all states", "which state stands in which row"
WRONG = [
    (checks.reward_parts, parts(0, lambda *_: 0.0), METER),
    (checks.reward_parts, parts(0, lambda x, a, s, *_: (x[-1] - x[0]) * s), METER),
    (checks.reward_parts, parts(0, lambda x, a, s, *_: (x[0] - x[-1]) / s), METER),
    (checks.reward_parts, parts(0, lambda x, a, s, *_: x[-1] / s), "ends where it began"),
    (checks.reward_parts, parts(0, lambda x, a, s, *_: np.maximum(np.diff(x), 0).sum() / s), "ends where it began"),
    (checks.reward_parts, parts(0, lambda x, a, s, h, c, f: (x[-1 - f] - x[0]) / s), FALL),
    (checks.reward_parts, parts(1, lambda x, a, s, h, c, f: h * (len(x) - f)), UPRIGHT),
    (checks.reward_parts, parts(1, lambda x, a, s, h, c, f: h * (len(a) - 1)), UPRIGHT),
    (checks.reward_parts, parts(1, lambda x, a, s, h, c, f: len(a) - f), UPRIGHT),
    (checks.reward_parts, parts(1, lambda x, a, s, h, c, f: 0.0 if f else h * len(a)), FALL),
    (checks.reward_parts, parts(2, lambda x, a, s, h, c, f: -c * np.square(a[: len(a) - f]).sum()), FALL),
    (checks.reward_parts, parts(2, lambda x, a, s, h, c, f: -np.square(a).sum()), ALONE),
    (checks.reward_parts, parts(2, lambda x, a, s, h, c, f: -c * s * np.square(a).sum()), ALONE),
    (checks.reward_parts, parts(2, lambda x, a, s, h, c, f: -c * np.square(a[:, 0]).sum()), ALONE),
    (checks.reward_parts, parts(2, lambda x, a, s, h, c, f: -c * np.square(a.sum(1)).sum()), SUM),
    (checks.reward_parts, parts(2, lambda x, a, s, h, c, f: -c * np.abs(a).sum()), "Twice the torques"),
    (checks.reward_parts, lambda x, a, s, h, c, f: solutions.reward_parts(x, a, s, h, c, True), UPRIGHT),
    (checks.reward_parts, lambda x, a, s, h, c, f: moved_to_forward(x, a, s, h, c, f), "ends where it began"),
    (
        checks.reward_parts,
        lambda *a: None if a[-1] else solutions.reward_parts(*a),
        "returned None. Does every path end with a return?",
    ),
    (
        checks.reward_parts,
        lambda *a: tuple(map(np.float32, solutions.reward_parts(*a))),
        "as value 1, numbers of type float32",
    ),
    (
        checks.episode_returns,
        lambda r, t, c, s: (np.array(solutions.episode_returns(r, t, c, s)[0][:-1]), s),
        "is asked for",
    ),
    (
        checks.episode_returns,
        lambda r, t, c, s: (2 * solutions.episode_returns(r, t, c, s)[0], solutions.episode_returns(r, t, c, s)[1]),
        "nothing counted twice",
    ),
    (checks.episode_returns, returns_with(lambda t, c: t, lambda t, c: t), "You take only falls for ends"),
    (checks.episode_returns, returns_with(lambda t, c: c, lambda t, c: c), "You take only cuts for ends"),
    (checks.episode_returns, returns_with(lambda t, c: t & c, lambda t, c: t & c), "You ask for both flags at once"),
    (checks.episode_returns, returns_with(lambda t, c: t | c, lambda t, c: c), "nothing counted twice"),
    (
        checks.episode_returns,
        lambda r, t, c, s: (
            np.sort(solutions.episode_returns(r, t, c, s)[0]),
            solutions.episode_returns(r, t, c, s)[1],
        ),
        "Two batches one after the other",
    ),
    (checks.episode_returns, three_copies, "not yet."),
    (
        checks.interval_at,
        lambda x, y, at, c: tuple(v + 1 for v in solutions.interval_at(x, y, at, c)),
        "middle of the interval",
    ),
    (checks.interval_at, lambda x, y, at, c: solutions.interval_at(x, y, at, c)[::-1], "lower end should come first"),
    (checks.interval_at, lambda x, y, at, c: solutions.interval_at(x, y, at, 0.95), "more confidence"),
    (checks.interval_at, by_hand(needs_a_next_point), "may be the very place of a point"),
    (
        checks.interval_at,
        by_hand(lambda x, y, at: np.interp(at, x, y, right=np.nan) if at < x[-1] else np.nan),
        "may be the very place of a point",
    ),
    (checks.interval_at, length(lambda v, c: quantile(c, 5) * v.std(ddof=1) / math.sqrt(len(v))), T_TEST),
    (checks.interval_at, length(lambda v, c: quantile(c, len(v)) * v.std(ddof=1) / math.sqrt(5)), T_TEST),
    (checks.interval_at, length(lambda v, c: 2 * quantile(c, len(v)) * stats.sem(v)), T_TEST),
    (
        checks.interval_at,
        length(lambda v, c: quantile(c, len(v)) * v.var(ddof=1) / len(v)),
        "Returns that are three times as large",
    ),
    (checks.explained, lambda v, t: (1.0, solutions.explained(v, t)[1]), "says the same in every state"),
    (checks.explained, off_by(lambda v, t: 0.0), OFF),
    (checks.explained, off_by(lambda v, t: (v - t).mean()), OFF),
    (checks.explained, off_by(lambda v, t: abs(v - t).mean() / t.std()), OFF),
    (checks.explained, off_by(lambda v, t: abs((v - t).mean()) / t.std()), OFF),
    (checks.explained, off_by(lambda v, t: np.median(v - t) / t.std()), OFF),
    (checks.explained, off_by(lambda v, t: (v - t).mean() / v.std()), OFF),
    (checks.explained, share_of(lambda v, t: 1 - (v - t).var(1).mean() / t.var(1).mean()), PLACES),
    (checks.explained, share_of(lambda v, t: (1 - (v - t).var(0) / t.var(0)).mean()), PLACES),
    (
        checks.what_went_wrong,
        lambda: dict(zip("ABCDE", np.roll(broken_runs.HUNT.bugs, 1).tolist(), strict=True)),
        "is somewhere else",
    ),
]


@pytest.mark.parametrize(("check", "function", "said"), WRONG, ids=[f"{c.name}: {said}" for c, _, said in WRONG])
def test_a_wrong_answer_is_told_what_is_wrong_with_it(check, function, said) -> None:  # type: ignore[no-untyped-def]
    assert said in line_of(check, function)


def returns_by_loops(rewards, terminated, truncated, so_far):  # type: ignore[no-untyped-def]
    """Copy by copy, sorted into rows in the end."""
    found, left = [], np.zeros(rewards.shape[1])
    for e in range(rewards.shape[1]):
        total = so_far[e]
        for t in range(len(rewards)):
            total = total + rewards[t, e]
            if terminated[t, e] or truncated[t, e]:
                found.append((t, e, total))
                total = 0.0
        left[e] = total
    return np.array([total for *_, total in sorted(found)], dtype=float), left


def returns_from_sums(rewards, terminated, truncated, so_far):  # type: ignore[no-untyped-def]
    """Differences of running sums, from end to end."""
    total, before = so_far + np.cumsum(rewards, axis=0), np.zeros_like(so_far)
    found = []
    for t, e in np.argwhere(np.logical_or(terminated, truncated)):
        found.append(total[t, e] - before[e])
        before[e] = total[t, e]
    return np.asarray(found, dtype=np.float64), total[-1] - before


RIGHT = [
    (checks.episode_returns, returns_from_sums),
    (checks.interval_at, length(lambda v, c: stats.t.isf((1 - c) / 2, len(v) - 1) * v.std() / math.sqrt(len(v) - 1))),
    (checks.explained, lambda v, t: solutions.explained(v.ravel(), t.ravel())),
    (
        checks.reward_parts,
        lambda x, a, s, h, c, f: (
            sum((x[t + 1] - x[t]) / s for t in range(len(a))),
            sum(h for t in range(len(a)) if not (f and t == len(a) - 1)),
            sum(-c * float(row @ row) for row in a),
        ),
    ),
    (checks.episode_returns, returns_by_loops),
    (checks.interval_at, interval_by_scipy),
    (
        checks.explained,
        lambda v, t: (
            1 - np.mean((t - v - np.mean(t - v)) ** 2) / np.mean((t - np.mean(t)) ** 2),
            (np.mean(v) - np.mean(t)) / np.sqrt(np.mean((t - np.mean(t)) ** 2)),
        ),
    ),
]


@pytest.mark.parametrize(("check", "function"), RIGHT, ids=[check.name for check, _ in RIGHT])
def test_another_right_answer_passes(check, function) -> None:  # type: ignore[no-untyped-def]
    assert line_of(check, function) == "passed"
