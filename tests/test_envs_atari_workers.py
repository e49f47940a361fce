"""Worker processes: what happens when one fails, is killed, is interrupted, or loses its owner."""

import gc
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from trpo_lessons.envs.atari import WorkerError, make_atari, workers

ACTION = np.ones((3, 3), dtype=int)


@pytest.fixture
def env():
    env = make_atari("pong", 3, seed=0, threads=2)
    env.reset()
    yield env
    env.close()


def test_there_is_one_worker_for_each_thread_and_no_more_than_games(env):
    assert len(env._workers.process_ids) == 2
    assert workers_of(threads=5, num_envs=2) == 2
    assert workers_of(threads=None, num_envs=100) == min(os.cpu_count(), 100)


def workers_of(threads, num_envs):
    from trpo_lessons.envs.atari.games import worker_count

    return worker_count(threads, num_envs)


def test_how_many_workers_there_are_changes_nothing():
    actions = np.random.default_rng(0).integers([3, 3, 2], size=(20, 3, 3))
    seen = []
    for threads in (1, 3):
        env = make_atari("seaquest", 3, seed=4, threads=threads)
        seen.append([env.reset()[0], *[env.step(action)[0] for action in actions]])
        env.close()
    np.testing.assert_array_equal(seen[0], seen[1])


def test_a_problem_in_a_worker_is_one_clear_line_here_and_the_games_must_start_again(env):
    with pytest.raises(WorkerError, match=r"pong cannot go on: KeyError: b'\?'") as problem:
        env._order(b"?")
    assert "\n" not in str(problem.value)
    with pytest.raises(ResetNeeded):
        env.step(ACTION)
    env.reset()
    env.step(ACTION)


def test_a_damaged_emulator_that_gets_past_the_check_is_refused_by_its_worker(env):
    env.save_state()
    env._shared["emulator"][1, 100] ^= 1
    with pytest.raises(WorkerError, match="pong cannot go on: ValueError: the saved state of the emulator is damaged"):
        env._order(workers.RESTORE)


def test_a_worker_that_was_killed_is_an_error_and_nothing_hangs(env):
    os.kill(env._workers.process_ids[1], signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(WorkerError, match=r"pong cannot go on: its worker process \d+ ended with status -9"):
            env.reset()


def test_after_an_interruption_answers_are_not_mixed_up(env, monkeypatch):
    """Ctrl-C while a step is carried out: the games are nowhere, until they are restored; then all is as it was."""
    state = env.save_state()
    expected = [env.step(ACTION)[0] for _ in range(5)]
    env.restore_state(state)
    answer = workers._Worker.answer

    def interrupted(_worker):
        monkeypatch.setattr(workers._Worker, "answer", answer)
        raise KeyboardInterrupt

    monkeypatch.setattr(workers._Worker, "answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        env.step(ACTION)
    with pytest.raises(ResetNeeded):
        env.step(ACTION)
    env.restore_state(state)
    np.testing.assert_array_equal([env.step(ACTION)[0] for _ in range(5)], expected)


def test_close_ends_every_worker_and_may_be_called_twice(env):
    processes = [worker.process for worker in env._workers._workers]
    env.close()
    assert [process.returncode for process in processes] == [0, 0]
    env.close()


def test_an_environment_that_is_forgotten_ends_its_workers():
    env = make_atari("pong", 1, seed=0, threads=1)
    env.reset()
    (worker,) = env._workers._workers
    del env
    gc.collect()
    assert worker.process.returncode == 0


def test_workers_before_the_first_reset_end_as_well():
    env = make_atari("pong", 1)
    processes = [worker.process for worker in env._workers._workers]
    env.close()
    assert [process.returncode for process in processes] == [0]


OWNER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have jobs in the background ignore it
from trpo_lessons.envs.atari import make_atari
env = make_atari("pong", 2, seed=0, threads=2)
env.reset()
env.step(env.action_space.sample())
try:
    print("ready", flush=True)
    {then}
except KeyboardInterrupt:
    pass
"""


def owner(then):
    """A process with two workers. They inherit its standard output, so that is at its end when all three are gone."""
    program = OWNER.format(then=then)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def test_no_worker_survives_an_owner_that_is_killed():
    process = owner("time.sleep(1000)")
    process.kill()
    printed = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert printed == (b"", b"")


def test_an_owner_that_does_not_close_ends_without_a_word():
    process = owner("pass")
    assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == 0


def test_an_interrupt_of_the_owner_leaves_no_tracebacks_of_workers():
    process = owner("time.sleep(1000)")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == (b"", b"")


def test_a_script_without_a_main_guard_is_not_run_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(OWNER.format(then="pass"))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")


@pytest.mark.parametrize("memory", [True, False])
def test_shared_arrays_are_seen_from_both_sides(monkeypatch, memory):
    if not memory:  # as on macOS, where a temporary file takes its place
        monkeypatch.delattr(os, "memfd_create", raising=False)
    fields = {"a": workers.Field((3,), np.uint8), "b": workers.Field((), np.float64)}
    ours = workers.SharedArrays(5, fields)
    theirs = workers.SharedArrays(5, fields, os.dup(ours.file))
    ours.arrays["b"][:] = np.arange(5)
    theirs.arrays["a"][2] = 7
    assert ours.arrays["a"].shape == (5, 3)
    assert not ours.arrays["a"][:2].any()
    np.testing.assert_array_equal(ours.arrays["a"][2], [7, 7, 7])
    np.testing.assert_array_equal(theirs.arrays["b"], np.arange(5))
    os.close(ours.file)
    os.close(theirs.file)
