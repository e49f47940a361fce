"""The way in: names, settings, and what is said about wrong ones."""

import pytest

from trpo_lessons import envs


def test_every_task_can_be_made_and_steps():
    for task in envs.TASKS:
        env = envs.make(task, 2, seed=0, threads=1)
        env.reset()
        assert env.step(env.action_space.sample())[0].shape[0] == 2
        env.close()


@pytest.mark.parametrize(
    ("wrong", "closest"),
    [("hoper", "hopper"), ("Hopper", "hopper"), ("cheetah", "halfcheetah"), ("cart-pole", "cartpole")],
)
def test_an_unknown_task_names_the_closest_and_all(wrong, closest):
    with pytest.raises(envs.UnknownTask) as refusal:
        envs.make(wrong, 2)
    message = str(refusal.value)
    assert f"there is no task {wrong!r}; did you mean {closest!r}?" in message
    assert all(task in message for task in envs.TASKS)
    assert "\n" not in message
    assert isinstance(refusal.value, ValueError)


def test_a_name_unlike_any_other_gets_no_guess():
    with pytest.raises(envs.UnknownTask, match=r"there is no task 'zzz'; tasks: cartpole.*, and gym:ENV_ID"):
        envs.check_task("zzz")


def test_an_unknown_setting_names_the_known_ones():
    with pytest.raises(ValueError, match="hopper has no setting 'control'; its settings: control_cost"):
        envs.make("hopper", 2, control=1.0)
    with pytest.raises(ValueError, match="cartpole has no setting 'control_cost'; its settings: none"):
        envs.make("cartpole", 2, control_cost=1.0)
