"""The figures of `trpo-lessons bench` agree with each other and with what was measured."""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import command

from trpo_lessons import training
from trpo_lessons.bench import game_ceiling, peer_process, robot_ceiling, speed, table
from trpo_lessons.bench.game_branches import GameBranches, vine_like
from trpo_lessons.bench.game_ceiling import GameCeiling
from trpo_lessons.bench.peer_process import PeerError, PeerProcess
from trpo_lessons.bench.robot_ceiling import RobotCeiling
from trpo_lessons.bench.robot_population import RobotPopulation
from trpo_lessons.bench.speed import Round, Speed
from trpo_lessons.cli import subcommands
from trpo_lessons.envs import GAMES
from trpo_lessons.envs.mujoco import ROBOTS, MujocoVectorEnv
from trpo_lessons.training.running.loop import PHASES, Trainer

TINY = {"num_envs": 5, "steps_per_iteration": 100}
STEPS_A_SECOND = ("ceiling", "environment", "training", "vine", "population", "population_ceiling")
COLUMNS = (*STEPS_A_SECOND, "gradient", "fisher_product", "peer")
ROUNDS = tuple(
    Round(**dict(zip(COLUMNS, numbers, strict=True)))
    for numbers in (
        (100.0, 90.0, 50.0, 80.0, 75.0, 125.0, 2.0, 2.2, 10.0),
        (1000.0, 800.0, 700.0, 700.0, 720.0, 900.0, 1.0, 1.3, 70.0),
        (10.0, 9.6, 6.0, 9.0, 7.8, 11.0, 4.0, 4.0, 0.5),
    )
)


@pytest.fixture(autouse=True)
def nobody_to_compare_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_process, "find_spec", lambda _name: None)


def invented(phases: list[float], other: float = 1.0, *, threads: int = 2, no_peer: str = "") -> Speed:
    """A measurement whose update and value fit ran side by side, if there are two threads."""
    config = training.preset("hopper", "class", threads=threads)
    acting, simulating, advantages, *update, value = phases
    fits = max(sum(update), value) if threads > 1 else sum(update) + value
    seconds = acting + simulating + advantages + fits + other
    return Speed(config, ROUNDS, seconds, dict(zip(PHASES, phases, strict=True)), no_peer)


# ---- arithmetic -----------------------------------------------------------------------------------------------------


SECONDS = st.lists(st.floats(0, 10), min_size=7, max_size=7)


@given(SECONDS, st.floats(0.01, 10))
def test_shares_add_up_to_one_where_phases_follow_each_other(phases: list[float], other: float) -> None:
    measured = invented(phases, other, threads=1)
    assert sum(measured.shares.values()) == pytest.approx(1)
    assert measured.shares["other"] == pytest.approx(other / measured.seconds)
    assert measured.solving == pytest.approx(sum(measured.shares[name] for name in ("cg", "search", "value")))


@given(SECONDS, st.floats(0.01, 10))
def test_what_runs_at_the_same_time_counts_once(phases: list[float], other: float) -> None:
    """A timeline in small steps: at each of them one of the two threads solves something, or neither does."""
    measured = invented(phases, other)
    shares = measured.shares
    assert shares["other"] == pytest.approx(other / measured.seconds, abs=1e-9)
    update = [shares[name] for name in ("gradient", "cg", "search")]
    instants = np.linspace(0, 1, 20_001)
    policy_solves = (instants >= update[0]) & (instants < sum(update))
    assert measured.solving == pytest.approx(np.mean(policy_solves | (instants < shares["value"])), abs=2e-4)


def test_ratios_are_quotients_of_what_stands_in_the_same_round() -> None:
    facts = table.as_facts(invented([1.0] * 7))
    expected = {
        "environment_of_ceiling": (0.9, 0.8, 0.96),
        "training_of_ceiling": (0.5, 0.7, 0.6),
        "vine_of_ceiling": (0.8, 0.7, 0.9),
        "population_of_ceiling": (75 / 125, 720 / 900, 7.8 / 11),
        "fisher_product_in_gradients": (1.1, 1.3, 1.0),
        "training_to_sb3_contrib": (5.0, 10.0, 12.0),
    }
    assert facts["ratios"].keys() == expected.keys()
    for name, quotients in expected.items():
        low, median, high = sorted(quotients)
        found = facts["ratios"][name]
        assert found["median"] == pytest.approx(median)
        assert low <= found["low"] <= median <= found["high"] <= high
    assert facts["rounds"] == [dataclasses.asdict(each) for each in ROUNDS]


def test_the_table_says_the_same_as_the_facts() -> None:
    text = " ".join(table.as_text(invented([1.0, 5, 0.5, 0.5, 1, 0.5, 0.5], other=1.0)).split())
    assert "ceiling 100 steps/s mujoco.rollout, open loop" in text
    assert "environment alone 90 steps/s 0.90 [0.85, 0.93] of the ceiling" in text
    assert "training 50 steps/s 0.60 [0.55, 0.65] of the ceiling" in text
    assert "vine sampling 80 steps/s 0.80 [0.75, 0.85] of the ceiling" in text
    assert "population 75 steps/s 0.71 [0.65, 0.75] of the ceiling under its own controls" in text
    assert "training is 10.0 [7.5, 11.0] times as fast" in text
    assert "A Fisher product takes 1.10 [1.05, 1.20] gradients." in text
    assert "simulating 53%" in text
    assert "Conjugate gradient, search and value fit together: 21%." in text
    assert "these overlap" in text
    assert "these overlap" not in table.as_text(invented([1.0] * 7, threads=1))


def test_without_sb3_contrib_its_ratio_is_left_out_and_the_reason_told() -> None:
    alone = invented([1.0] * 7, no_peer="sb3-contrib is not installed")
    assert "training_to_sb3_contrib" not in table.as_facts(alone)["ratios"]
    assert table.as_facts(alone)["no_sb3_contrib"] == "sb3-contrib is not installed"
    assert "not measured: sb3-contrib is not installed\n" in table.as_text(alone)
    assert "sb3" not in table.as_line(1, dataclasses.replace(ROUNDS[0], peer=None))
    line = table.as_line(1, ROUNDS[0])
    assert line.endswith("vine sampling 0.80 of it, population 0.60 of its own, 5.0 times sb3-contrib")


# ---- measuring ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_a_small_measurement_is_complete(threads: int) -> None:
    seen: list[Round] = []
    config = training.preset("hopper", "smoke", threads=threads, **TINY)
    measured = speed.measure(config, 0.5, seen.append)
    assert len(measured.rounds) >= speed.MIN_ROUNDS
    assert tuple(seen) == measured.rounds
    assert measured.no_peer == "sb3-contrib is not installed"
    for each in seen:
        numbers = dataclasses.asdict(each)
        assert [numbers.pop(name) for name in ("peer", "vine_training", "branches", "loop", "emulator")] == [
            None
        ] * 5  # of games
        assert all(np.isfinite(number) and number > 0 for number in numbers.values())
    shares = measured.shares
    assert all(0 < shares[phase] < 1 for phase in PHASES)
    assert -0.02 < shares["other"] < 1
    if threads == 1:
        assert sum(shares.values()) == pytest.approx(1)
    json.loads(json.dumps(table.as_facts(measured)))


def test_a_peer_is_measured_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    class Peer:
        asked = 0

        def steps_per_second(self) -> float:
            Peer.asked += 1
            return 10.0 * Peer.asked

    monkeypatch.setattr(speed, "_peer", lambda _task, _stack: (Peer(), ""))
    measured = speed.measure(training.preset("swimmer", "smoke", threads=1, **TINY), 0.2)
    assert [each.peer for each in measured.rounds] == [10.0 * (i + 1) for i in range(len(measured.rounds))]


def test_open_loop_and_environment_take_the_robots_of_training_through_the_same_controls() -> None:
    """Stepped once more by hand; the cheetah never falls, so no episode begins in between."""
    trainer = Trainer(training.preset("halfcheetah", "smoke", threads=2, **TINY))
    trainer.iterate()
    before = {name: tensor.clone() for name, tensor in trainer.state()[0].items()}
    with ExitStack() as stack:
        simulator = RobotCeiling(trainer, stack)
        simulator.go_to_where(trainer)
        assert simulator.environment()[0] == robot_ceiling.BURST * 260, (
            "52 times 5 copies are as many as the ceiling's 256"
        )
        assert simulator.ceiling()[0] == robot_ceiling.BURST * robot_ceiling.CEILING_COPIES
        ours = np.concatenate([env.save_state()["integration_state"] for env in simulator._envs])
        model = simulator._open_loop._model
        data = mujoco.MjData(model)
        full = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
        [env, other] = simulator._envs
        assert (env.num_envs, other.num_envs) == (3, 2)
        last_bursts = [bursts[-1] for bursts in simulator._bursts]
        starts = np.concatenate([state["integration_state"] for state, _ in last_bursts])
        controls = np.concatenate([controls for _, controls in last_bursts])
        for copy in range(5):
            mujoco.mj_setState(model, data, starts[copy], mujoco.mjtState.mjSTATE_INTEGRATION.value)
            for control in controls[copy]:
                data.ctrl[:] = control
                mujoco.mj_step(model, data, nstep=ROBOTS["halfcheetah"].frame_skip)
            by_hand = np.empty(full)
            mujoco.mj_getState(model, data, by_hand, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
            np.testing.assert_allclose(ours[copy, :full], by_hand, rtol=1e-9, atol=1e-9)
        _bursts_follow_the_policy(simulator, trainer)
    for name, tensor in trainer.state()[0].items():
        assert tensor.equal(before[name]), "measuring does not touch the run"
    trainer.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_population_is_measured_beside_its_own_controls(threads: int) -> None:
    """Stepped once more by hand, nobody falls before the end of a burst, and who falls there fell in the episode."""
    with ExitStack() as stack:
        population = RobotPopulation(training.preset("hopper", "smoke", threads=threads, **TINY), stack, warm_up=0)
        sampler, thetas = population._trainer.sampler, population._thetas
        played = sampler.play(population._trainer.policy, thetas, population._trainer.statistics, 0)
        assert population.play()[0] == played.num_steps == played.lengths.sum()
        copies, burst, _ = population.controls.shape
        assert burst == min(robot_ceiling.BURST, played.lengths.max())
        assert copies == (played.lengths // burst).sum() > 0
        assert population.ceiling()[0] == copies * burst
        env = MujocoVectorEnv(ROBOTS["hopper"], copies, threads=1)
        env.reset(seed=0)
        env.restore_state({**env.save_state(), "integration_state": population.states})
        fallen = np.array([env.step(population.controls[:, t])[2] for t in range(burst)])
        assert not fallen[:-1].any()
        assert fallen[-1].sum() == (played.lengths % burst == 0).sum()


def _bursts_follow_the_policy(simulator: RobotCeiling, trainer: Trainer) -> None:
    """The first begins where training is, each next one where the one before has ended, and the policy chooses."""
    generator = torch.Generator().manual_seed(0)
    for env, trained, bursts in zip(simulator._envs, trainer.sampler.envs, simulator._bursts, strict=True):
        state = trained.save_state()
        for start, controls in bursts:
            assert np.array_equal(start["integration_state"], state["integration_state"])
            obs = env.restore_state(start)
            for t in range(robot_ceiling.BURST):
                distribution = trainer.policy(trainer.theta, trainer.statistics.normalise(torch.tensor(obs))).detach()
                drawn = distribution.sample(generator).numpy()
                np.testing.assert_array_equal(controls[:, t], np.clip(drawn, -1, 1))
                obs, *_ = env.step(controls[:, t])
            state = env.save_state()


def test_as_many_gradients_as_products_over_the_same_states(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(training.preset("hopper", "smoke", threads=1, **TINY))
    path = trainer.sampler.sample(trainer.pi_old)
    batch, calls = path.batch(path.rewards), {"gradient": 0, "graph": 0, "product": 0}
    gradient, fisher = speed.surrogate_gradient, speed.fisher_vector_product

    def counted_gradient(policy, theta, samples, chunk_size):  # type: ignore[no-untyped-def]
        assert (len(samples), chunk_size) == (100, 40)
        calls["gradient"] += 1
        return gradient(policy, theta, samples, chunk_size=chunk_size)

    def counted_fisher(policy, theta, samples, chunk_size):  # type: ignore[no-untyped-def]
        assert (len(samples), chunk_size) == (100, 40)
        calls["graph"] += 1
        product = fisher(policy, theta, samples, chunk_size)

        def counted(vector):  # type: ignore[no-untyped-def]
            calls["product"] += 1
            return product(vector)

        return counted

    monkeypatch.setattr(speed, "surrogate_gradient", counted_gradient)
    monkeypatch.setattr(speed, "fisher_vector_product", counted_fisher)
    seconds = speed.seconds_of_products(trainer.policy, trainer.theta, batch, 11, 0.01, 40)
    trainer.close()
    assert min(seconds) > 0
    assert calls["gradient"] == calls["product"] == 11 * calls["graph"] > 0


def test_only_robots_and_games_have_a_ceiling() -> None:
    with pytest.raises(ValueError, match=r"one of swimmer, .*, space_invaders, not cartpole"):
        speed.measure(training.preset("cartpole", "smoke"), 1)


# ---- games ----------------------------------------------------------------------------------------------------------


def test_a_small_measurement_of_a_game_is_complete() -> None:
    config = speed.config_for(
        "pong", "paper", num_envs=3, steps_per_iteration=60, fisher_stride=2, chunk_size=20, threads=2
    )
    assert (config.preset, config.hidden, config.value_hidden) == ("paper", (20,), ())
    measured = speed.measure(config, 0.2)
    for each in measured.rounds:
        numbers = dataclasses.asdict(each)
        assert [numbers.pop(name) for name in ("peer", "population", "population_ceiling")] == [None] * 3
        assert all(np.isfinite(number) and number > 0 for number in numbers.values())
    assert all(0 < measured.shares[phase] < 1 for phase in PHASES if phase not in ("advantages", "value"))
    facts, text = table.as_facts(measured), table.as_text(measured)
    of_all = {"environment_of_ceiling", "training_of_ceiling", "vine_of_ceiling", "fisher_product_in_gradients"}
    assert facts["ratios"].keys() == of_all | {"vine_training_of_ceiling", "branches_to_loop", "branches_to_emulator"}
    ratio = np.median([each.branches / each.loop for each in measured.rounds])
    assert facts["ratios"]["branches_to_loop"]["median"] == pytest.approx(ratio)
    assert facts["preset"] == "paper"
    json.loads(json.dumps(facts, allow_nan=False))
    assert "pong, paper preset, 3 environments" in text
    assert "ale_py's own threads" in text
    assert f"{ratio:.2f} [" in text
    assert "times one emulator in a loop" in text
    by_vine = np.median([each.vine_training / each.ceiling for each in measured.rounds])
    assert f"{by_vine:.2f} [" in next(line for line in text.splitlines() if "training by vine" in line)
    assert ", training by vine " in table.as_line(1, measured.rounds[0])
    assert "population" not in text + table.as_line(1, measured.rounds[0])
    assert "not measured: its recipe is for robots\n" in text


def test_the_vine_that_is_measured_is_that_of_the_preset() -> None:
    for game in GAMES:
        assert vine_like(speed.config_for(game)) == training.preset(game, sampling="vine")
    small = vine_like(speed.config_for("pong", "paper"))
    assert small.steps_per_iteration == pytest.approx(speed.STEPS_OF_GAMES, rel=0.01)
    assert small.vine_states * small.vine_branches * small.rollout_length == pytest.approx(5000, rel=0.01)


def test_the_branches_of_the_loop_are_those_of_the_vine() -> None:
    """Every branch with the frames that the sampler's own games show, to the end."""
    config = speed.config_for("pong", "paper", num_envs=2, steps_per_iteration=60, threads=2, hidden=(5,))
    with closing(Trainer(vine_like(config))) as trainer:
        games = GameBranches(trainer)
        found = games._sampler.roll_out(trainer.pi_old, games._vine.saved, games._first, games._noise)
        for m in range(4):
            assert games.loop()[0] == found.lengths[m] == 16
            assert np.array_equal(games._frames, found.last_obs[m])
        assert games.branches()[0] == found.num_steps == 64
        assert games.emulator()[0] == 16
        assert games.vine()[0] == 64 + 30


def test_the_games_of_training_and_native_ones_take_the_actions_of_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(speed.config_for("pong", "paper", num_envs=3, steps_per_iteration=60, threads=2))
    path = trainer.sampler.sample(trainer.pi_old)
    taken: dict[int, list[np.ndarray]] = {}
    with ExitStack() as stack:
        ceiling = GameCeiling(trainer, path, stack)
        assert [env.num_envs for env in ceiling._groups] == [2, 1]
        for env in (ceiling._native, *ceiling._groups):
            step, seen = env.step, taken.setdefault(id(env), [])
            monkeypatch.setattr(
                env, "step", lambda actions, step=step, seen=seen: (seen.append(actions), step(actions))
            )
        assert ceiling.ceiling()[0] == ceiling.environment()[0] == game_ceiling.BURST * 3
        ceiling.ceiling()
        native, *groups = taken.values()
    trainer.close()
    # Paths of 20 steps, bursts of 50: the second one begins with row 10.
    assert all(np.array_equal(actions, path.actions[t % 20]) for t, actions in enumerate(native))
    assert len(native) == 100
    assert all(
        np.array_equal(np.concatenate(rows), path.actions[t % 20]) for t, rows in enumerate(zip(*groups, strict=True))
    )


# ---- sb3-contrib in its own process ---------------------------------------------------------------------------------


FAKES = {
    "sb3_contrib/__init__.py": """
class TRPO:
    def __init__(self, policy, env, **recipe):
        assert (env, recipe["batch_size"], recipe["gamma"]) == (("Swimmer-v5", 2), 128, 0.9999), (env, recipe)

    def learn(self, steps, reset_num_timesteps):
        assert (steps, reset_num_timesteps) == (2048, False)
        with open(LOG, "a") as file:
            file.write("learned\\n")
            if file.tell() > 30:
                raise MemoryError
""",
    "stable_baselines3/__init__.py": "",
    "stable_baselines3/common/__init__.py": "",
    "stable_baselines3/common/env_util.py": "def make_vec_env(name, n_envs, seed): return name, n_envs",
    "stable_baselines3/common/vec_env.py": "def VecNormalize(env, norm_reward, gamma): return env",
}


def test_the_peer_trains_only_when_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, source in FAKES.items():
        path = tmp_path / "packages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source.replace("LOG", repr(str(tmp_path / "log"))))
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setattr(peer_process, "find_spec", lambda name: sys.path and name)
    with PeerProcess("swimmer") as peer:
        assert (tmp_path / "log").read_text().count("learned") == 1, "to warm up"
        assert peer.steps_per_second() > 0
        assert peer.steps_per_second() > 0
        assert (tmp_path / "log").read_text().count("learned") == 3
        with pytest.raises(PeerError, match="is installed but does not train here"):
            peer.steps_per_second()
    assert not peer._process.is_alive()


# ---- the command ----------------------------------------------------------------------------------------------------


def test_bench_prints_json_alone_and_a_line_for_each_round_on_the_side() -> None:
    outcome = command("bench", "swimmer", "--seconds", 1, "--envs", 8, "--threads", 1, "--json")
    assert outcome.status == 0, outcome.stderr
    facts = json.loads(outcome.stdout)
    assert (facts["task"], facts["num_envs"], facts["threads"]) == ("swimmer", 8, 1)
    lines = [line for line in outcome.stderr.splitlines() if line.startswith("round ")]
    assert len(lines) == len(facts["rounds"]) >= 3
    first = facts["rounds"][0]
    assert f"environment {first['environment'] / first['ceiling']:.2f}, " in lines[0]


def test_the_command_knows_every_robot_and_game() -> None:
    assert (tuple(ROBOTS), tuple(GAMES)) == (subcommands.ROBOTS, subcommands.GAMES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("cartpole", "'cartpole' is not one of 'swimmer', 'hopper', 'walker', 'halfcheetah', 'beam_rider'"),
        ("--envs 100", "steps_per_iteration (4096) must be a multiple of num_envs (100)"),
        ("hopper --preset paper", "the paper preset of hopper is not measured: one iteration takes minutes"),
        ("--envs 0", "num_envs must be a whole number, at least 1, got 0"),
        ("--threads 0", "threads must be a whole number, at least 1, got 0"),
        ("--seconds 0", "Invalid value for '--seconds'"),
    ],
)
def test_what_cannot_be_measured_is_one_line(arguments: str, message: str) -> None:
    outcome = command("bench", *arguments.split())
    assert outcome.status == 2
    assert message in outcome.message
    assert outcome.stdout == ""
