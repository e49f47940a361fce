"""The games: two environments that play the same, exact restores, scores of whole games, and what is refused."""

import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from ale_py import roms
from ale_py.env import AtariEnv
from gymnasium import spaces

from trpo_lessons import envs
from trpo_lessons.envs.atari import GAMES, AtariSettings, AtariVectorEnv, MissingRom, NativeAtariVectorEnv, make_atari
from trpo_lessons.envs.atari.settings import Controls, joystick


def joystick_actions(num_envs, steps, seed=0):
    """Uniform over the joystick, [steps, E, 3]."""
    return np.random.default_rng(seed).integers([3, 3, 2], size=(steps, num_envs, 3))


class StartsLike(AtariVectorEnv):
    """Its games start after as many frames as those of its native twin, which draws these numbers by itself."""

    def __init__(self, twin, *arguments, **options):
        super().__init__(*arguments, **options)
        self.twin = twin

    def _draw_starts(self, rows):
        return self.twin.start_frames[rows] - self.settings.fire_reset


def assert_equal_steps(one, two):
    for left, right in zip(one[:4], two[:4], strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    assert one[4].keys() == two[4].keys()
    for name in ("lives", "life_lost"):
        np.testing.assert_array_equal(one[4][name], two[4][name])
    done = one[2] | one[3]
    if done.any():
        np.testing.assert_array_equal(one[4]["final_obs"][done], two[4]["final_obs"][done])
        np.testing.assert_array_equal(one[4]["episode"]["r"][done], two[4]["episode"]["r"][done])
        np.testing.assert_array_equal(one[4]["episode"]["l"][done], two[4]["episode"]["l"][done])
    return done.sum()


def play_side_by_side(game, num_envs, steps, settings, **options):
    """How many games ended, how many lives were lost before; the sum of the scores."""
    native = NativeAtariVectorEnv(game, num_envs, settings, seed=11, threads=1, **options)
    workers = StartsLike(native, game, num_envs, settings, seed=11, threads=1, **options)
    first = native.reset()[0]
    np.testing.assert_array_equal(workers.reset()[0], first)
    sample = np.random.default_rng(1)
    ended = lost = score = 0
    space = native.single_action_space
    for _ in range(steps):
        sizes = space.nvec if isinstance(space, spaces.MultiDiscrete) else space.n
        action = sample.integers(sizes, size=native.action_space.shape)
        step = native.step(action)
        ended += assert_equal_steps(workers.step(action), step)
        lost += step[4]["life_lost"].sum()
        score += np.abs(step[1]).sum()
    native.close()
    workers.close()
    return ended, lost, score


@pytest.mark.parametrize("game", GAMES)
def test_workers_and_native_threads_play_the_same_game(game):
    """Observations, raw rewards, lives and ends over 2,000 steps, to the bit; the paper's settings."""
    ended, lost, score = play_side_by_side(game, 1, 2000, AtariSettings())
    assert ended or game == "enduro"  # whose shortest game is longer
    assert lost or game in ("enduro", "pong")  # which have no lives
    assert score > 0 or game == "enduro"  # cars are overtaken by who accelerates


@pytest.mark.parametrize(
    ("game", "settings"),
    [
        ("breakout", AtariSettings(84, 84, fire_reset=True)),
        ("seaquest", AtariSettings(84, 84)),
        ("qbert", AtariSettings(105, 80, actions="minimal", no_op_max=1)),
        ("space_invaders", AtariSettings(42, 40, actions="legal", fire_reset=True)),
        ("pong", AtariSettings(210, 160)),
        ("beam_rider", AtariSettings(210, 80)),
        ("enduro", AtariSettings(37, 61)),
    ],
)
def test_so_they_do_with_other_settings_and_a_time_limit(game, settings):
    ended, _, _ = play_side_by_side(game, 2, 130, settings, max_episode_steps=50)
    assert ended >= 4


def test_a_game_of_half_an_hour_is_truncated():
    for env in (make_atari("pong", 1), make_atari("pong", 1, native=True)):
        assert 4 * env.max_episode_steps == 108_000
        env.close()


# ---- save and restore ------------------------------------------------------------------------------------------------


def future(env, actions):
    """All that follows, as a list of arrays, up to the state in the end."""
    told = []
    for action in actions:
        obs, rewards, terminated, truncated, infos = env.step(action)
        told += [obs, rewards, terminated, truncated, infos["lives"], infos["life_lost"]]
        if "episode" in infos:
            told += [infos["final_obs"], infos["episode"]["r"], infos["episode"]["l"]]
    return told + [array for _, array in sorted(env.save_state().items())]


CONTINUE = """
import sys
import numpy as np
from trpo_lessons.envs.atari import make_atari
folder, *names = sys.argv[1:]
for name in names:
    given = dict(np.load(f"{folder}/{name}.npz"))
    actions, (game, percent) = given.pop("actions"), name.split("-")
    env = make_atari(game, 1, threads=1, sticky_actions=int(percent) / 100)
    obs = [env.restore_state(given)]
    rewards, lives = [], []
    for action in actions:
        step = env.step(action)
        obs.append(step[0])
        rewards.append(step[1])
        lives.append(step[4]["lives"])
    np.savez(f"{folder}/{name}.future.npz", obs=obs, rewards=rewards, told_lives=lives, **env.save_state())
    env.close()
"""


def test_a_restored_game_goes_on_to_the_bit_in_this_process_and_in_a_new_one(tmp_path):
    """Every game, with and without sticky actions, 200 steps (800 frames): screens, scores, lives, the last state."""
    expected = {}
    for i, (game, percent) in enumerate(product(GAMES, (0, 25))):
        name = f"{game}-{percent}"
        env = make_atari(game, 1, seed=i, threads=1, sticky_actions=percent / 100)
        env.reset()
        actions = joystick_actions(1, 260, seed=i)
        for action in actions[:60]:
            env.step(action)
        state = env.save_state()
        first = future(env, actions[60:])
        obs = [env.restore_state(state)]
        for one, two in zip(first, future(env, actions[60:]), strict=True):
            np.testing.assert_array_equal(one, two)
        env.restore_state(state)
        rewards, lives = [], []
        for action in actions[60:]:
            step = env.step(action)
            obs.append(step[0])
            rewards.append(step[1])
            lives.append(step[4]["lives"])
        expected[name] = {"obs": obs, "rewards": rewards, "told_lives": lives, **env.save_state()}
        env.close()
        np.savez(tmp_path / f"{name}.npz", actions=actions[60:], **state)
    subprocess.run([sys.executable, "-c", CONTINUE, str(tmp_path), *expected], check=True)
    for name, arrays in expected.items():
        told = dict(np.load(tmp_path / f"{name}.future.npz"))
        assert told.keys() == arrays.keys()
        for column, array in arrays.items():
            np.testing.assert_array_equal(told[column], array, err_msg=f"{name} % sticky: {column}")


def test_a_state_of_another_game_is_refused():
    pong, breakout = make_atari("pong", 1, threads=1), make_atari("breakout", 1, threads=1)
    pong.reset(seed=0)
    breakout.reset(seed=0)
    with pytest.raises(ValueError, match="this state was saved by another task than breakout"):
        breakout.restore_state(pong.save_state())
    pong.close()
    breakout.close()


def test_the_native_one_cannot_be_saved_and_says_so():
    env = envs.make("pong", 1, native=True)
    with pytest.raises(ValueError, match="pong cannot save and restore its state"):
        envs.restorable(env)
    env.close()
    own = envs.make("pong", 1)
    assert envs.restorable(own) is own
    own.close()


def test_a_reset_that_is_refused_leaves_the_games_as_they_were():
    """Whichever way they go on: to the next game, too, which starts as it would have started."""
    env, twin = (make_atari("seaquest", 2, seed=3, threads=1) for _ in range(2))
    for each in (env, twin):
        each.max_episode_steps = 5
        each.reset()
        each.step(np.ones((2, 3), int))
    for bad in ({"seed": -1}, {"seed": [1, 2, 3]}, {"options": {"speed": 1}}, {"seed": 1, "options": {"speed": 1}}):
        with pytest.raises(ValueError, match=r"seed|takes no reset options"):
            env.reset(**bad)
    for action in joystick_actions(2, 12):
        np.testing.assert_array_equal(env.step(action)[0], twin.step(action)[0])
    env.close()
    twin.close()


# ---- what a learner is told ------------------------------------------------------------------------------------------


def test_an_episode_is_a_whole_game_and_rewards_are_raw():
    """Breakout has five lives: four are lost before the game is over, whose score is the sum of what was paid."""
    env = make_atari("breakout", 2, seed=0, threads=1)
    env.reset()
    lost, paid, games = np.zeros(2, int), np.zeros(2), 0
    for action in joystick_actions(2, 500):
        _, rewards, terminated, truncated, infos = env.step(action)
        lost, paid = lost + infos["life_lost"], paid + rewards
        assert not truncated.any()
        np.testing.assert_array_equal(infos["lives"], np.where(terminated, 5, 5 - lost))
        for row in np.flatnonzero(terminated):
            games += 1
            assert (lost[row], paid[row]) == (4, infos["episode"]["r"][row])
            lost[row], paid[row] = 0, 0
    assert games >= 4
    env.close()


def test_scores_are_not_clipped():
    env = make_atari("space_invaders", 2, seed=0, threads=1)
    env.reset()
    rewards = np.concatenate([env.step(action)[1] for action in joystick_actions(2, 200)])
    assert {5.0, 10.0} <= set(rewards)
    env.close()


def test_sticky_actions_depend_on_the_seed_and_others_do_not():
    def played(**settings):
        env = make_atari("seaquest", 3, threads=1, no_op_max=1, **settings)
        env.reset(seed=0)
        actions = np.repeat(joystick_actions(1, 100), 3, axis=1)
        frames = np.stack([env.step(action)[0][:, -1] for action in actions])
        env.close()
        return frames

    certain, sticky = played(), played(sticky_actions=0.25)
    assert len(np.unique(certain.swapaxes(0, 1), axis=0)) == 1
    assert len(np.unique(sticky.swapaxes(0, 1), axis=0)) == 3


def test_no_action_sticks_from_one_game_to_the_next():
    """Before the first step of every game the stick was at rest, whatever it did in the game before."""
    env = make_atari("pong", 40, seed=0, threads=1, sticky_actions=0.9)
    for _ in range(2):
        env.reset()
        for _ in range(3):
            env.step(np.tile([2, 1, 0], (40, 1)))  # right, until it is held nearly everywhere
    env.reset()
    env.step(np.tile([0, 1, 0], (40, 1)))
    assert {0, 4} >= set(env._shared["actions"].ravel().tolist())
    env.close()


def test_an_action_sticks_as_often_as_it_should():
    """Left and right in turn: frame k of four still has the other one with probability p to the k."""
    env = make_atari("pong", 5, seed=0, threads=1, sticky_actions=0.25)
    env.reset()
    stuck = []
    for t in range(201):
        env.step(np.tile([2 * (t % 2), 1, 0], (5, 1)))
        stuck.append(env._shared["actions"] != (3 if t % 2 else 4))
    env.close()
    share, expected = np.concatenate(stuck[1:]).mean(axis=0), 0.25 ** np.arange(1, 5)
    assert (np.abs(share - expected) <= 4.5 * np.sqrt(expected / 1000)).all()


@pytest.mark.parametrize("fire_reset", [False, True])
def test_starts_are_uniform_over_their_range(fire_reset):
    """From 0 to 29 frames; with the button, that is one of them, so that 0 and 1 both become 1."""
    settings = AtariSettings(fire_reset=fire_reset)
    generator = np.random.default_rng(0)
    frames = fire_reset + np.array([settings.frames_before_start(generator) for _ in range(3000)])
    counts = np.bincount(frames, minlength=30)
    expected = np.full(30, 100.0) if not fire_reset else np.array([0, 200.0, *[100.0] * 28])
    assert counts.sum() == 3000
    assert (np.abs(counts - expected) <= 4.5 * np.sqrt(expected)).all()


def test_native_starts_are_in_the_same_range():
    env = make_atari("pong", 6, seed=0, native=True)
    starts = []
    for _ in range(5):
        env.reset()
        starts += env.start_frames.tolist()
    assert 0 <= min(starts) < 10 < 20 <= max(starts) < 30
    env.close()


# ---- the joystick ----------------------------------------------------------------------------------------------------


def test_the_joystick_is_the_emulator_s():
    """Left to right, up to down, button; `ale_py` counts directions from -1 and has up as 1."""
    codes = joystick()
    for x in (-1, 0, 1):
        for y in (-1, 0, 1):
            for fire in (False, True):
                assert codes[x + 1, 1 - y, int(fire)] == AtariEnv.map_action_idx(x, y, fire).value
    assert sorted(codes.ravel()) == list(range(18))


def test_the_tasks_are_the_seven_games_of_the_paper():
    assert tuple(envs.GAMES) == GAMES
    assert len(GAMES) == 7
    assert all(task.frees_interpreter for task in envs.GAMES.values())


def test_action_spaces():
    whole = Controls("pong", "joystick")
    assert whole.space == spaces.MultiDiscrete([3, 3, 2])
    np.testing.assert_array_equal(whole.emulator_actions(np.array([[0, 1, 0], [2, 0, 1], [1, 1, 0]])), [4, 14, 0])
    assert Controls("pong", "legal").space == spaces.Discrete(18)
    minimal = Controls("pong", "minimal")
    assert minimal.space == spaces.Discrete(6)
    np.testing.assert_array_equal(minimal.emulator_actions(np.arange(6)), [0, 1, 3, 4, 11, 12])
    assert Controls("breakout", "minimal").space == spaces.Discrete(4)


def test_holding_the_joystick_to_the_right_moves_the_paddle_there():
    """Breakout's paddle, the brightest thing in its row: the same row, more to the right."""
    places = []
    for side in (0, 2):
        env = make_atari("breakout", 1, seed=0, threads=1, height=210, width=160)
        env.reset()
        for _ in range(20):
            obs = env.step(np.array([[side, 1, 0]]))[0]
        places.append(np.flatnonzero(obs[0, -1, 191, 8:152]).mean())
        env.close()
    assert places[0] < 30 < 100 < places[1]


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 0}, "height must be from 1 to 210, not 0"),
        ({"width": 161}, "width must be from 1 to 160, not 161"),
        ({"no_op_max": 0}, "no_op_max must be from 1 to 1000, not 0"),
        ({"actions": "paddle"}, "actions must be joystick, legal or minimal, not 'paddle'"),
        ({"sticky_actions": 1.0}, "sticky_actions must be a probability below 1, not 1.0"),
        ({"threads": 0}, "threads must be 1 or more, not 0"),
        ({"episodic_life": True}, "pong has no setting 'episodic_life'; its settings: height, width, actions"),
    ],
)
@pytest.mark.parametrize("native", [False, True])
def test_bad_settings_are_refused(settings, message, native):
    with pytest.raises(ValueError, match=message):
        envs.make("pong", 1, native=native, **settings)


@pytest.mark.parametrize("native", [False, True])
def test_a_missing_rom_is_one_clear_line(monkeypatch, native):
    monkeypatch.setattr(roms, "get_rom_path", lambda game: None)
    with pytest.raises(MissingRom, match="the ROM of pong is missing: it comes with the package ale-py") as refusal:
        envs.make("pong", 1, native=native)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("native", [False, True])
def test_impossible_actions_are_refused(native):
    env = make_atari("pong", 2, native=native)
    env.reset(seed=0)
    for action in ([[0, 0, 2], [0, 0, 0]], [[0, 0, 0], [-1, 0, 0]], [[0, 3, 0], [0, 0, 0]], [[0.5, 0, 0], [0, 0, 0]]):
        with pytest.raises(ValueError, match=r"pong needs integer actions from 0 to \[2, 2, 1\]"):
            env.step(np.array(action))
    env.close()
