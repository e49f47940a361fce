"""What lesson 10 shows, computed a second time by other means."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy import stats
from teaching_contract import NARROW, line_of

from trpo_lessons.distributions import FactoredCategorical
from trpo_lessons.envs.atari.console import EMULATOR_BYTES, Console
from trpo_lessons.envs.atari.resize import AreaResize
from trpo_lessons.envs.atari.settings import GAMES, AtariSettings, joystick, rom_path
from trpo_lessons.kl import fisher_vector_product
from trpo_lessons.policies import Policy, convolutional
from trpo_lessons.surrogate import States
from trpo_lessons.teaching.lesson_10 import (
    both_schemes,
    explorers,
    films,
    live_run,
    looking,
    move_to_ball,
    recorded_games,
    screens,
)
from trpo_lessons.teaching.lesson_10 import check as checks
from trpo_lessons.teaching.solutions import lesson_10 as solutions
from trpo_lessons.training import preset
from trpo_lessons.training.running.loop import Trainer
from trpo_lessons.viewing.game_drawing import JOYSTICK, GameDrawing

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "10_atari.ipynb"
RUNS = recorded_games.recorded()
by_run = pytest.mark.parametrize("run", RUNS, ids=[run.name for run in RUNS])


# ---- section 1: screens


@pytest.mark.parametrize("game", ["breakout", "space_invaders"])
def test_frames_of_the_explorer_are_those_of_the_package(game: str) -> None:
    play, rng, codes = screens.played(game), np.random.default_rng(0), joystick().ravel()
    frames, screen = np.zeros((4, 52, 40), dtype=np.uint8), np.zeros((210, 160), dtype=np.uint8)
    console = Console(rom_path(game), AtariSettings(), frames, screen, np.zeros(EMULATOR_BYTES, dtype=np.uint8))
    console.load()
    console.reset(0)
    for step in range(100):
        console.step([int(codes[rng.integers(len(codes))])] * 4)
        np.testing.assert_array_equal(frames[-1], play.frames[step])
        np.testing.assert_array_equal(play.greys[step].max(0), screen)
    np.testing.assert_array_equal(play.stack(99), frames)


def test_a_shot_of_the_invaders_is_in_one_of_two_screens_only() -> None:
    greys = screens.played("space_invaders").greys[129:134, :, 130:190, 31:33]
    lit = (greys > 0).sum((2, 3))
    assert (lit.max(1) > 0).all()
    assert (lit.min(1) == 0).all()
    assert len(set(lit.argmax(1).tolist())) == 1, "always the same one: every fourth frame has the same parity"


def test_pixels_blink_in_space_invaders() -> None:
    found = {game: screens.steps_that_blink(game) for game in GAMES}
    assert max(found, key=lambda game: found[game]) == "space_invaders"
    assert found["space_invaders"] > 50
    greys = screens.played("qbert").greys
    count = 0
    for step in range(60, 160):
        same = (greys[step, 0] == greys[step - 1, 0]) & (greys[step, 1] == greys[step - 1, 1])
        count += bool((same & (greys[step, 0] != greys[step, 1])).any())
    assert found["qbert"] == count


def test_the_share_of_the_background() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (5, 3, 2), dtype=np.uint8)
    mean = sum(frame.astype(float) for frame in frames) / 5
    assert screens.background_share(frames) == pytest.approx((mean**2).sum() * 5 / (frames.astype(float) ** 2).sum())
    assert screens.background_share(np.repeat(frames[:1], 4, 0)) == pytest.approx(1)
    shares = {game: screens.background_share(screens.played(game).frames) for game in ("pong", "breakout")}
    assert all(share > 0.99 for share in shares.values())


def test_grey_is_what_the_emulator_says() -> None:
    play = screens.played("breakout")
    ours = np.rint(play.pairs[90] @ np.array([0.299, 0.587, 0.114]))
    np.testing.assert_array_equal(ours, play.greys[90])


def test_the_exercise_is_the_packages_preprocessing() -> None:
    play = screens.played("qbert")
    stack = np.arange(4 * 42 * 32, dtype=np.uint8).reshape(4, 42, 32)
    for step in (70, 129):
        found = solutions.observe(play.pairs[step], stack, False)
        np.testing.assert_array_equal(found[-1], AreaResize(42, 32)(play.greys[step].max(0)))
        np.testing.assert_array_equal(found[:-1], stack[1:])


def test_bytes_must_stay_bytes_where_a_game_begins_too() -> None:
    def student(screens: np.ndarray, stack: np.ndarray, first: bool) -> np.ndarray:
        found = solutions.observe(screens, stack, first)
        return np.concatenate([np.zeros((3, *stack.shape[1:])), found[-1:]]) if first else found  # zeros are floats

    assert "and not bytes" in line_of(checks.observe, student)


# ---- section 2: the network


@pytest.mark.parametrize("shape", [(4, 52, 40), (4, 84, 84), (2, 33, 21)])
def test_parameters_are_those_of_the_policies(shape: tuple[int, int, int]) -> None:
    policy = Policy(convolutional(shape, (20,), 8), move_to_ball.network().head)
    assert solutions.count_parameters(*shape, 20, 8) == policy.num_parameters


def test_the_papers_count() -> None:
    assert solutions.count_parameters(4, 52, 40, 20, 8) == 33_500


def test_joystick_log_prob_is_the_packages() -> None:
    rng = np.random.default_rng(1)
    logits, actions = torch.from_numpy(rng.normal(size=(7, 8))), torch.from_numpy(rng.integers(0, [3, 3, 2], (7, 3)))
    expected = FactoredCategorical(logits, (3, 3, 2)).log_prob(actions)
    torch.testing.assert_close(solutions.joystick_log_prob(logits, (3, 3, 2), actions), expected)


# ---- section 3: inputs


@pytest.fixture(scope="module")
def ball() -> tuple[np.ndarray, np.ndarray]:
    return move_to_ball.screens_with_a_ball(64, steps=700)


def test_the_ball_is_on_the_side_that_is_told(ball: tuple[np.ndarray, np.ndarray]) -> None:
    """Seen in the pictures themselves: what is lit below the bricks, the paddle in its row, the ball above it."""
    frames, sides = ball[0][:, -1].astype(float), ball[1]
    assert (sides == 1).sum() == (sides == -1).sum() == 32
    right = seen = 0
    for frame, side in zip(frames, sides, strict=True):
        paddle, between = frame[46:49, 3:37].sum(0), frame[24:45, 3:37].sum(0)
        if paddle.max() > 0 and between.max() > 0:
            columns = np.arange(34)
            apart = (columns @ between) / between.sum() - (columns @ paddle) / paddle.sum()
            if abs(apart) > 4:
                seen += 1
                right += np.sign(apart) == side
    assert seen > 15
    assert right == seen


def test_inputs_are_one_picture_in_two_units(ball: tuple[np.ndarray, np.ndarray]) -> None:
    shown = move_to_ball.inputs(ball[0])
    names = ["bytes / 255", "bytes / deviation", "without the background / 255", "normalized"]
    assert list(shown) == names
    raw, scaled, centred, normalised = shown.values()
    ratio = scaled[raw > 0] / raw[raw > 0]
    assert float(ratio.max()) == pytest.approx(float(ratio.min()), rel=1e-4)
    inside = normalised.abs() < 10  # where nothing is clipped
    torch.testing.assert_close(normalised[inside], (centred * ratio.mean())[inside], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(centred[:, -1].mean(0), torch.zeros(52, 40), rtol=0, atol=1e-5)


def test_toward_is_one_for_whoever_always_moves_there() -> None:
    logits = torch.zeros(2, 8)
    logits[0, 2] = logits[1, 0] = 100.0  # right, left
    states = move_to_ball.Sides(torch.zeros(2, 1), torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(
        move_to_ball.toward(FactoredCategorical(logits, (3, 3, 2)), states), torch.tensor([1.0, -1.0])
    )


def test_the_spectrum_is_the_fisher_matrix(ball: tuple[np.ndarray, np.ndarray]) -> None:
    obs = move_to_ball.inputs(ball[0])["normalized"][:6]
    values = move_to_ball.fisher_spectrum(obs)
    policy = move_to_ball.network()
    theta = policy.initial_theta(torch.Generator().manual_seed(0)).double()
    product = fisher_vector_product(policy, theta, States(obs.double()))
    v = torch.from_numpy(np.random.default_rng(0).normal(size=len(theta)))
    for _ in range(60):
        v = product(v / v.norm())
    assert float(v.norm()) == pytest.approx(values[0], rel=1e-3)
    assert len(values) == 30, "five for each state: eight logits, less a constant for each of three choices"


def test_promises_are_kept_as_a_share() -> None:
    assert move_to_ball.Learned([0.0, 0.1], [0.2, 0.2], [0.1, 0.2]).kept == pytest.approx(0.75)


# ---- section 4: a short run


def test_stopped_and_gone_on_with_is_never_stopped(tmp_path: Path) -> None:
    config = preset("pong", "smoke", threads=1, num_envs=2, steps_per_iteration=64)
    live_run.go_on(tmp_path / "a", config, iterations=1)
    one, rows = live_run.go_on(tmp_path / "a", config, iterations=2)
    other, _ = live_run.go_on(tmp_path / "b", config, iterations=2)
    assert torch.equal(one.theta, other.theta)
    assert [row["iteration"] for row in rows] == [1, 2]
    again, same = live_run.go_on(tmp_path / "a", config, iterations=1)  # as all cells of the lesson run once more
    assert torch.equal(again.theta, one.theta)
    assert len(same) == len(rows)
    assert rows[0]["entropy"] == pytest.approx(math.log(18), abs=0.01)


# ---- sections 5 and 6: recorded runs


def test_every_recorded_run_of_a_game_is_found() -> None:
    assert {run.game for run in RUNS} >= {"pong", "breakout"}
    assert len({run.name for run in RUNS}) == len(RUNS)
    for run in RUNS:
        convolutions, features = 1040 + 4112, 16 * 11 * 8  # of 52 x 40 pixels
        behind = run.hidden_units * (features + 1) + 8 * (run.hidden_units + 1)
        assert run.load().policy.num_parameters == convolutions + behind
        summary = json.loads((run.folder / "summary.json").read_text())
        assert run.scores.mean() == pytest.approx(summary["mean_return"])
        assert run.log["total_steps"][-1] == summary["total_steps"] == run.steps


ONE_SCHEME = [run for run in RUNS if (run.game, run.scheme) != (RUNS[0].game, "vine")]


@pytest.fixture
def larger_zoo(tmp_path: Path) -> Path:
    """`ONE_SCHEME`, the recorded runs but for vines of the first game, and two more: another game, and such a vine."""
    first = RUNS[0]
    for run in ONE_SCHEME:
        shutil.copytree(run.folder, tmp_path / run.folder.parent.name / run.folder.name)
    for folder, changes in {
        "one_more/qbert-seed0": {"task": "qbert"},
        "class_preset_games_vine/again-seed3": {"sampling": "vine", "seed": 3},
    }.items():
        shutil.copytree(first.folder, tmp_path / folder)
        path = tmp_path / folder / "config.json"
        config = json.loads(path.read_text())
        config["settings"] |= changes
        path.write_text(json.dumps(config))
    return tmp_path


def test_a_run_that_is_recorded_later_appears_by_itself(larger_zoo: Path) -> None:
    runs = recorded_games.recorded(larger_zoo)
    assert len(runs) == len(ONE_SCHEME) + 2
    names = [run.name for run in runs]
    assert f"{RUNS[0].game}/vine" in names
    assert any(name.startswith("qbert") for name in names)
    rows = recorded_games.own_rows(runs)
    assert [row.who for row in rows][-1] == "ours, vine"
    there = {game for row in rows for game, score in zip(GAMES, row.scores, strict=True) if score is not None}
    assert there == {run.game for run in runs}
    figure = Figure()
    recorded_games.draw_curves(figure, runs)
    titles = [axes.get_title() for axes in figure.axes if axes.axison]
    assert titles == [recorded_games.TITLES[game] for game in recorded_games.games_of(runs)]
    assert {text.get_text() for text in figure.legends[0].get_texts()} >= {"single path", "vine"}
    curves = sum(len(axes.lines) for axes in figure.axes)
    assert curves == len(runs) + 3 * len(titles)
    told = recorded_games.diagnosis_table(runs)
    assert all(f"{name:20}" in told for name in names)
    recorded_games.draw_scale(Figure(), [*rows, *recorded_games.PAPER, *recorded_games.OTHERS], runs)


def test_both_schemes_of_a_game_stand_beside_each_other(larger_zoo: Path) -> None:
    runs = recorded_games.recorded(larger_zoo)
    both = both_schemes.in_both_schemes(runs)
    assert set(both_schemes.in_both_schemes(ONE_SCHEME)) < set(both)
    its = both[RUNS[0].game]
    assert {run.scheme for run in its} == set(recorded_games.SCHEMES)
    for run in its:
        summary = json.loads((run.folder / "summary.json").read_text())
        assert (np.diff(run.hours_so_far) > 0).all()
        assert run.hours_so_far[-1] == pytest.approx(summary["wall_seconds"] / 3600, abs=1 / 3600)
    head, *lines = both_schemes.table(runs).splitlines()
    assert len(lines) == sum(map(len, both.values()))
    assert max(map(len, [head, *lines])) <= NARROW
    (line,) = [line for line in lines if line.startswith(f"{its[0].game:15}single path")]
    assert float(line.split()[-1]) == pytest.approx(np.median(its[0].log["surrogate_gain"]), abs=6e-4)
    figure = Figure()
    both_schemes.draw(figure, runs)
    assert len(figure.axes) == 2 * len(both)
    assert [axes.get_title().split(":")[0] for axes in figure.axes[::2]] == [
        recorded_games.TITLES[game] for game in both
    ]
    for steps, clock in zip(figure.axes[::2], figure.axes[1::2], strict=True):
        assert len(steps.lines) == len(clock.lines) >= 2
        assert steps.get_ylim() == clock.get_ylim()
        for one, other in zip(steps.lines, clock.lines, strict=True):
            np.testing.assert_array_equal(one.get_ydata(), other.get_ydata())
            assert one.get_color() == other.get_color()


def test_the_stored_lesson_shows_every_recorded_run() -> None:
    printed = [
        output.text
        for cell in nbformat.read(NOTEBOOK, as_version=4).cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream"
    ]
    for run in RUNS:
        there = any(f"{run.name:20}" in text for text in printed)
        assert there, f"{run.name} was recorded after lesson 10 was: make record LESSON=10"


def test_rows_of_the_table() -> None:
    for row in (*recorded_games.PAPER, *recorded_games.OTHERS, *recorded_games.PLAYERS):
        assert len(row.scores) == len(GAMES)
    rows = recorded_games.table(recorded_games.PLAYERS, human_scale=True).splitlines()
    assert set(rows[2].split()[2:]) == {"0.00"}
    assert set(rows[3].split()[3:]) == {"1.00"}
    means = {run.game: run.scores.mean() for run in RUNS if run.scheme == "single path"}
    (own,) = [row for row in recorded_games.own_rows(RUNS) if row.who == "ours, single path"]
    assert own.scores[GAMES.index("pong")] == pytest.approx(means["pong"])


@pytest.mark.parametrize("human_scale", [False, True])
def test_a_line_of_the_table_is_one_on_the_screen_too(human_scale: bool) -> None:
    rows = [*recorded_games.own_rows(RUNS), *recorded_games.PAPER, *recorded_games.OTHERS]
    table = recorded_games.table([*rows, *recorded_games.PLAYERS], human_scale).splitlines()
    assert {len(line) for line in table} == {len(table[0])}
    assert len(table[0]) <= NARROW
    heads = [word for line in table[:2] for word in line.split()]
    said = [word for halves in recorded_games.HEADS.values() for word in halves if word]
    assert sorted(heads) == sorted([*said, "steps"]), "two heads have grown together"
    assert all(len(line) <= NARROW for line in recorded_games.diagnosis_table(RUNS).splitlines())


@by_run
def test_a_diagnosis_is_what_the_log_says(run: recorded_games.Recorded) -> None:
    found = recorded_games.diagnosis(run)
    assert found.standard_error == pytest.approx(stats.sem(run.scores))
    assert found.refused == pytest.approx(np.mean(run.log["accepted"] == 0))
    assert found.kl > 0
    assert 0 <= found.entropy <= recorded_games.ENTROPY_OF_CHANCE + 0.01
    assert found.met or recorded_games.symptoms(found)
    assert not (found.met and recorded_games.symptoms(found))


def test_symptoms_name_what_is_wrong() -> None:
    (run, *_) = RUNS
    well = {
        "score": 5.0,
        "standard_error": 0.1,
        "kl": 0.009,
        "entropy": 1.5,
        "explained": 0.8,
        "refused": 0.0,
        "still_rising": 0.0,
    }
    assert recorded_games.symptoms(recorded_games.Diagnosis(run, 4.0, **well)) == []
    assert "healthy" in recorded_games.symptoms(recorded_games.Diagnosis(run, 40.0, **well))[0]
    for change, word in (
        ({"refused": 0.2}, "refused"),
        ({"entropy": 2.85}, "at random"),
        ({"entropy": 0.3}, "anything new"),
        ({"explained": 0.1}, "V explains"),
        ({"explained": math.nan}, "V explains"),
        ({"still_rising": 0.3}, "rising"),
    ):
        (said,) = recorded_games.symptoms(recorded_games.Diagnosis(run, 40.0, **(well | change)))
        assert word in said


def test_a_score_within_two_standard_errors_has_met_its_bar() -> None:
    (run, *_) = RUNS
    rest = {"kl": 0.0, "entropy": 1.5, "explained": 0.8, "refused": 0.0, "still_rising": 0.0}
    assert recorded_games.Diagnosis(run, 20.0, 19.7, 0.2, **rest).met
    assert not recorded_games.Diagnosis(run, 20.0, 19.5, 0.2, **rest).met


# ---- section 7: films, filters, occlusion


def test_bars_of_a_film_are_read_back() -> None:
    rng, drawing = np.random.default_rng(2), GameDrawing(JOYSTICK)
    screen = rng.integers(0, 256, (210, 160, 3), dtype=np.uint8)
    for probabilities in ([np.array([1.0, 0.0, 0.0])] * 2 + [np.array([0.5, 0.5])], None):
        given = probabilities or [rng.dirichlet(np.ones(len(names))) for names in JOYSTICK]
        found = films.probabilities_in(drawing(screen, given))
        for one, other in zip(found, given, strict=True):
            np.testing.assert_allclose(one, other, atol=0.02)


@pytest.mark.parametrize("run", [run for run in RUNS if run.film.exists()], ids=lambda run: run.name)
def test_moments_of_a_film(run: recorded_games.Recorded) -> None:
    moments = films.moments(run.film)
    assert len(moments) == films.MOMENTS
    seconds = [moment.seconds for moment in moments]
    assert seconds[0] == 0
    assert (np.diff(seconds) > 0).all()
    for moment in moments:
        assert all(abs(each.sum() - 1) < 0.04 for each in moment.probabilities)
    assert len({moment.screen.tobytes() for moment in moments}) > films.MOMENTS / 2


@by_run
def test_the_beginning_of_a_run_is_that_of_its_seed(run: recorded_games.Recorded) -> None:
    trained = recorded_games.loaded(run)
    trainer = Trainer(trained.config)
    try:
        assert torch.equal(recorded_games.untrained(trained).theta, trainer.theta)
    finally:
        trainer.close()


@pytest.fixture(scope="module")
def breakout() -> recorded_games.Recorded:
    return next(run for run in RUNS if run.game == "breakout")


def test_the_occlusion_map_is_the_exercises(breakout: recorded_games.Recorded) -> None:
    trained = recorded_games.loaded(breakout)
    obs = looking.seen(trained, breakout.states)[2]
    answer = looking.answers(trained)

    def log_probs(several: np.ndarray) -> np.ndarray:
        pi = answer(torch.from_numpy(several))
        left, up, fire = (factor.log_probs for factor in pi.factors)
        joint = left[:, :, None, None] + up[:, None, :, None] + fire[:, None, None, :]
        return joint.flatten(1).numpy()

    twin = solutions.occlusion_map(log_probs, obs.numpy(), np.zeros((52, 40)), 8)
    np.testing.assert_allclose(looking.occlusion(answer, obs, 8), twin, atol=1e-10)
    assert twin.shape == (7, 5)


def test_a_shuffled_frame_has_the_same_patches(breakout: recorded_games.Recorded) -> None:
    obs = looking.seen(recorded_games.loaded(breakout), breakout.states)[0]
    mixed = looking.shuffled(obs)

    def tiles(frames: torch.Tensor) -> list[bytes]:
        return sorted(
            frames[:, r : r + 4, c : c + 4].numpy().tobytes() for r in range(0, 52, 4) for c in range(0, 40, 4)
        )

    assert tiles(mixed) == tiles(obs)
    assert not torch.equal(mixed, obs)


def test_responses_are_those_of_the_first_layer(breakout: recorded_games.Recorded) -> None:
    trained = recorded_games.loaded(breakout)
    obs = looking.seen(trained, breakout.states)[1]
    found, bank = looking.responses(trained, obs), looking.filters(trained.theta)
    bias = trained.theta[looking.FIRST : looking.FIRST + 16].double().numpy()
    assert found.shape == (16, 25, 19)
    for number, row, column in ((0, 0, 0), (7, 12, 9), (15, 24, 18)):
        window = obs[:, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4].numpy()
        assert found[number, row, column] == pytest.approx(np.tanh((window * bank[number]).sum() + bias[number]))


@by_run
def test_the_last_layer_s_share_of_theta_scales_the_logits(run: recorded_games.Recorded) -> None:
    trained = recorded_games.loaded(run)
    obs, size = looking.seen(trained, run.states), looking.size_of_outputs(trained)

    def logits(doubled: int) -> torch.Tensor:
        theta = trained.theta.double().clone()
        theta[len(theta) - doubled :] *= 2
        return torch.cat(
            [each - each.mean(1, keepdim=True) for each in looking.answers(trained, theta)(obs).parameters], 1
        )

    torch.testing.assert_close(logits(doubled=size), 2 * logits(doubled=0))
    for other in (size - 1, size + 1):
        assert not torch.allclose(logits(doubled=other), 2 * logits(doubled=0))


@by_run
def test_decided_has_outputs_as_large(run: recorded_games.Recorded) -> None:
    trained = recorded_games.loaded(run)
    before = recorded_games.untrained(trained)
    theta, size = looking.decided(before, trained), looking.size_of_outputs(trained)
    assert float(theta[-size:].norm()) == pytest.approx(float(trained.theta[-size:].norm()), rel=1e-5)
    assert torch.equal(theta[:-size], before.theta[:-size])


def test_half_of_a_map() -> None:
    assert looking.half_of(np.array([[1.0, 1.0], [1.0, 5.0]])) == 1
    assert looking.half_of(np.ones((3, 4))) == 6


def test_what_there_is_to_cover() -> None:
    obs = torch.arange(4 * 5 * 3, dtype=torch.float64).view(4, 5, 3)
    found = looking.in_patches(obs, 2)
    assert found.shape == (3, 2)
    assert found[2, 1] == pytest.approx(float(obs[:, 4:, 2:].square().sum()))


def test_changes_are_kls_of_mean_states(breakout: recorded_games.Recorded) -> None:
    trained = recorded_games.loaded(breakout)
    found = looking.changes(trained, breakout.states, trained)
    assert found.earlier_filters == pytest.approx(0, abs=1e-9)
    still = breakout.states.copy()
    still[:, :-1] = still[:, -1:]
    pi, other = (looking.answers(trained)(looking.seen(trained, each)) for each in (breakout.states, still))
    assert found.still == pytest.approx(float(pi.kl(other).mean()))
    assert found.other_state > 0


def test_the_likeliest_action_is_a_product() -> None:
    words, p = explorers.likeliest([np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.8, 0.1]), np.array([0.4, 0.6])])
    assert words == "left, fire"
    assert p == pytest.approx(0.7 * 0.8 * 0.6)
    assert explorers.likeliest([np.array([0.0, 1.0, 0.0])] * 2 + [np.array([1.0, 0.0])]) == ("nothing", 1.0)


@pytest.mark.parametrize("stage", list(explorers.STAGES))
def test_stages_follow_each_other(stage: int) -> None:
    now = explorers.compute_stage("breakout", stage, 100)
    if stage > 1 and stage != explorers.LARGER:
        before = explorers.compute_stage("breakout", stage - 1, 100)
        np.testing.assert_array_equal(now.before, before.after)
    assert now.words


# ---- section 6: scores


def test_whole_games_by_a_loop() -> None:
    rng = np.random.default_rng(5)
    rewards, over = rng.integers(0, 8, 50).astype(float), rng.random(50) < 0.15
    found, total = [], 0.0
    for reward, ends in zip(rewards, over, strict=True):
        total += reward
        if ends:
            found.append(total)
            total = 0.0
    np.testing.assert_allclose(solutions.whole_games(rewards, np.zeros(50, dtype=bool), over), found)


def test_the_human_scale_is_scipys_standard_error() -> None:
    scores = np.random.default_rng(6).normal(10, 4, 20)
    mean, error = solutions.human_scale(scores, -20.4, -3.0)
    assert mean == pytest.approx((scores.mean() + 20.4) / 17.4)
    assert error == pytest.approx(stats.sem(scores) / 17.4)


# ---- wrong answers, each told what is wrong with it

WRONG = [
    (checks.observe, lambda s, k, f: np.zeros_like(k), "three newest of the observation before"),
    (checks.observe, lambda s, k, f: solutions.observe(s, k, f).astype(float), "of type float64, but uint8"),
    (checks.observe, lambda s, k, f: solutions.observe(s[:1], k, f), "which of the two screens came first"),
    (checks.observe, lambda s, k, f: solutions.observe(s, k, f).astype(int), "of type uint8, as the stack is"),
    (checks.observe, lambda s, k, f: solutions.observe(s, k, f).astype(np.uint16), "of type uint8, as the stack is"),
    (checks.observe, lambda s, k, f: solutions.observe(s.min(0)[None], k, f), "that of the other screen alone"),
    (checks.observe, lambda s, k, f: observed(s, k, f, lambda x: x.max(-1)), "should be 76 where it is red"),
    (checks.observe, lambda s, k, f: observed(s, k, f, block=np.median), "should have 10"),
    (checks.observe, lambda s, k, f: observed(s, k, f, block=lambda x, _: x[:, 1, :, 1]), "may change places"),
    (checks.observe, lambda s, k, f: flipped(solutions.observe(s, k, f)), "at the block's own place"),
    (checks.count_parameters, lambda f, h, w, n, o: 33_500, "One more output"),
    (
        checks.count_parameters,
        lambda f, h, w, n, o: solutions.count_parameters(f, h, w, n, o) - 4112,
        "the convolutions alone",
    ),
    (checks.count_parameters, lambda f, h, w, n, o: solutions.count_parameters(f, h, w, n, o) + n, "One more"),
    (
        checks.joystick_log_prob,
        lambda x, n, a: solutions.joystick_log_prob(x, n, a) + 1,
        "should add up to 1",
    ),
    (
        checks.joystick_log_prob,
        lambda x, n, a: torch.stack(
            [
                torch.softmax(part, 1).gather(1, each[:, None])[:, 0].log()
                for part, each in zip(torch.split(x, list(n), 1), a.T, strict=True)
            ]
        ).sum(0),
        "torch.log_softmax",
    ),
    (
        checks.joystick_log_prob,
        lambda x, n, a: (
            x.gather(1, a + torch.tensor([sum(n[:i]) for i in range(len(n))])).sum(1)
            - sum(part.logsumexp(1).detach() for part in torch.split(x, list(n), 1))
        ),
        "Let it flow through the normalising constant",
    ),
    (checks.whole_games, lambda r, lost, over: r[over], "should be counted once"),
    (checks.whole_games, lambda r, lost, over: solutions.whole_games(abs(r), lost, over), "counted once"),
    (checks.whole_games, lambda r, lost, over: np.sort(solutions.whole_games(r, lost, over)), "in the order of the"),
    (
        checks.whole_games,
        lambda r, lost, over: solutions.whole_games(r[:-1], lost[:-1], over[:-1]),
        "in which a game is over goes wrong",
    ),
    (
        checks.whole_games,
        lambda r, lost, over: np.add.reduceat(r, [0, *np.flatnonzero(over) + 1])[:-1],
        "in which a game is over goes wrong",
    ),
    (
        checks.whole_games,
        lambda r, lost, over: np.array([x for x in solutions.whole_games(r, lost, over) if x]),
        "without a single point",
    ),
    (checks.whole_games, lambda r, lost, over: [r.sum()], "a list, but a NumPy array"),
    (
        checks.human_scale,
        lambda s, r, h: (solutions.human_scale(s, r, h)[0], 0.1),
        "should halve the standard error",
    ),
    (
        checks.human_scale,
        lambda s, r, h: (abs(solutions.human_scale(s, r, h)[0]), solutions.human_scale(s, r, h)[1]),
        "should be below 0",
    ),
    (
        checks.human_scale,
        lambda s, r, h: (float((s.max() - r) / (h - r)), solutions.human_scale(s, r, h)[1]),
        "Each game should count alike",
    ),
    (
        checks.human_scale,
        lambda s, r, h: (solutions.human_scale(s, r, h)[0], 2 * solutions.human_scale(s, r, h)[1]),
        "half of what lies between them",
    ),
    (
        checks.human_scale,
        lambda s, r, h: (solutions.human_scale(s, r, h)[0], -solutions.human_scale(s, r, h)[1]),
        "never negative",
    ),
    (checks.human_scale, lambda s, r, h: (0.5, 0.1), "has 0, and one who scores as a person does 1"),
    (
        checks.occlusion_map,
        lambda p, o, b, k: abs(solutions.occlusion_map(p, o, b, k)) + 0.1,
        "give a map of zeros",
    ),
    (checks.occlusion_map, lambda p, o, b, k: solutions.occlusion_map(p, o, b, k) / 4, "they are added up"),
    (checks.occlusion_map, lambda p, o, b, k: solutions.occlusion_map(p, o, b, k) / np.log(2), "in nats"),
    (checks.occlusion_map, lambda p, o, b, k: solutions.occlusion_map(p, o, b, 2), "Patches of another size"),
]


def observed(screens, stack, first, grey=None, block=np.mean) -> np.ndarray:  # type: ignore[no-untyped-def]
    """The solution with another way to make grey, or another number for a block."""
    levels = np.rint(screens @ np.array([0.299, 0.587, 0.114])) if grey is None else grey(screens)
    (h, w), (H, W) = stack.shape[1:], screens.shape[1:3]
    newest = np.rint(block(levels.max(0).reshape(h, H // h, w, W // w), (1, 3))).astype(np.uint8)
    return np.concatenate([solutions.observe(screens, stack, first)[:-1], newest[None]])


def flipped(stack: np.ndarray) -> np.ndarray:
    """With the newest frame upside down."""
    return np.concatenate([stack[:-1], stack[-1:, ::-1]])


@pytest.mark.parametrize(("check", "function", "said"), WRONG, ids=[f"{c.name}: {said}" for c, _, said in WRONG])
def test_a_wrong_answer_is_told_what_is_wrong_with_it(check, function, said) -> None:  # type: ignore[no-untyped-def]
    assert said in line_of(check, function)


def observed_by_loops(screens: np.ndarray, stack: np.ndarray, first: bool) -> np.ndarray:
    """With OpenCV's order of things, pixel by pixel."""
    h, w = stack.shape[1:]
    block = screens.shape[1] // h, screens.shape[2] // w
    new = np.zeros((h, w), dtype=np.uint8)
    for i in range(h):
        for j in range(w):
            part = screens[:, i * block[0] : (i + 1) * block[0], j * block[1] : (j + 1) * block[1]].astype(int)
            grey = (0.299 * part[..., 0] + 0.587 * part[..., 1] + 0.114 * part[..., 2] + 0.5).astype(int)
            new[i, j] = int(grey.max(0).mean() + 0.5)
    return np.stack([*(0 * stack[1:] if first else stack[1:]), new])


def occluded_at_once(log_probs, obs: np.ndarray, background: np.ndarray, patch: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    """All covered observations in one batch."""
    _, height, width = obs.shape
    masks = []
    for row in range(0, height, patch):
        for column in range(0, width, patch):
            mask = np.zeros((height, width), dtype=bool)
            mask[row : row + patch, column : column + patch] = True
            masks.append(mask)
    covered = np.where(np.array(masks)[:, None], background, obs)
    whole, others = log_probs(obs[None]), log_probs(covered)
    return (np.exp(whole) * (whole - others)).sum(1).reshape(-1, len(range(0, width, patch)))


RIGHT = [
    (checks.observe, observed_by_loops),
    *((checks.observe, lambda s, k, f, way=way: rounded(s, k, f, way)) for way in (0.5, -0.5)),
    (
        checks.count_parameters,
        lambda f, h, w, n, o: Policy(convolutional((f, h, w), (n,), o), _Outputs(o)).num_parameters,
    ),
    (checks.joystick_log_prob, lambda x, n, a: FactoredCategorical(x, n).log_prob(a)),
    (
        checks.whole_games,
        lambda r, lost, over: np.diff(np.concatenate([[0.0], r.cumsum()[over]])),
    ),
    (
        checks.human_scale,
        lambda s, r, h: (float(((s - r) / (h - r)).mean()), float(stats.sem((s - r) / (h - r)))),
    ),
    (checks.occlusion_map, occluded_at_once),
]


def rounded(screens: np.ndarray, stack: np.ndarray, first: bool, way: float) -> np.ndarray:
    """The solution where halves are rounded up, or down: a check must not mind which."""

    def whole(x: np.ndarray) -> np.ndarray:
        return np.floor(x + way) if way > 0 else np.ceil(x + way)

    larger = whole(screens @ np.array([0.299, 0.587, 0.114])).max(0)
    (h, w), (H, W) = stack.shape[1:], larger.shape
    newest = whole(larger.reshape(h, H // h, w, W // w).mean((1, 3))).astype(np.uint8)
    return np.concatenate([stack[1:] * (not first), newest[None]])


class _Outputs:
    """A head that has so many inputs and no parameters."""

    num_free = 0

    def __init__(self, num_inputs: int) -> None:
        self.num_inputs = num_inputs


@pytest.mark.parametrize(("check", "function"), RIGHT, ids=[f"{check.name} {i}" for i, (check, _) in enumerate(RIGHT)])
def test_another_right_answer_passes(check, function) -> None:  # type: ignore[no-untyped-def]
    assert line_of(check, function) == "passed"
