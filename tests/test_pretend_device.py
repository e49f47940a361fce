"""Every training path on a pretend accelerator: nothing on the wrong side, the same numbers, few of them fetched."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import seeded
from pretend_device import DEVICE, OnDevice, PretendDevice, WrongDeviceError, counting
from torch import Tensor

from trpo_lessons import training
from trpo_lessons.distributions import Distribution
from trpo_lessons.problem import Problem
from trpo_lessons.surrogate import Batch, sampled_surrogate
from trpo_lessons.training.running.loop import Trainer
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.training.sampling.groups import Experience
from trpo_lessons.training.settings.config import TrainConfig
from trpo_lessons.training.settings.methods import SETTINGS_OF
from trpo_lessons.training.settings.obs_statistics import FrameMoments
from trpo_lessons.trpo import trpo_update

PATHS: dict[str, dict[str, Any]] = {
    "path": {"task": "cartpole"},
    "path in chunks, every state": {"task": "cartpole", "chunk_size": 60, "fisher_stride": 1, "value_stride": 1},
    "path of a robot": {"task": "hopper"},
    "path without a value function": {"task": "cartpole", "value_hidden": ()},
    "vine of every action": {"task": "cartpole", "sampling": "vine"},
    "vine in chunks": {"task": "hopper", "sampling": "vine", "chunk_size": 20},
    "own environment of Gymnasium": {"task": "gym:Pendulum-v1"},
    "games": {"task": "pong", "num_envs": 2, "steps_per_iteration": 32},
    "natural gradient": {"task": "cartpole", "method": "natural-gradient"},
    "empirical Fisher matrix": {"task": "hopper", "method": "empirical-fim"},
    "max KL": {"task": "barto-cartpole", "method": "max-kl", "hidden": ()},
    "max KL in chunks": {"task": "cartpole", "method": "max-kl", "hidden": (), "chunk_size": 60},
    "PPO": {"task": "cartpole", "method": "ppo"},
    "PPO of a game": {"task": "pong", "method": "ppo", "num_envs": 2, "steps_per_iteration": 32},
    "RWR": {"task": "cartpole", "method": "rwr", "chunk_size": 60},
    "RWR of a game": {"task": "pong", "method": "rwr", "num_envs": 2, "steps_per_iteration": 32},
    "REPS": {"task": "hopper", "method": "reps"},
    "REPS with the flow": {"task": "cartpole", "method": "reps", "reps_constraint": "flow", "epsilon": 0.5},
    "vine of a game": {"task": "pong", "num_envs": 2, "sampling": "vine"},
    "games in chunks": {"task": "pong", "num_envs": 2, "steps_per_iteration": 32, "chunk_size": 8},
    "games without statistics": {"task": "pong", "num_envs": 2, "steps_per_iteration": 32, "normalise_obs": False},
}
SMALL = {"num_envs": 4, "steps_per_iteration": 176, "hidden": (8,), "value_hidden": (8,), "threads": 1}


def config_for(path: str, device: str = "cpu") -> TrainConfig:
    settings = {"name": "smoke", **SMALL, **PATHS[path]}
    searching = {"shrink": 0.5} if settings.get("method", "trpo") in SETTINGS_OF["shrink"] else {}
    config = training.preset(**settings, **searching)
    object.__setattr__(config, "device", device)  # not one that people can ask for
    return config


@pytest.fixture
def device() -> Iterator[PretendDevice]:
    with PretendDevice() as pretend:
        yield pretend


def trainer_on(pretend: PretendDevice, path: str) -> Trainer:
    trainer = Trainer(config_for(path, DEVICE))
    trainer._second_thread.shutdown()
    trainer._second_thread = ThreadPoolExecutor(1, initializer=pretend.__enter__)
    return trainer


def advantages_of(samples: Experience) -> Tensor:
    """Some that differ from step to step, [T, E]."""
    return torch.randn(samples.trunk.rewards.shape, generator=seeded(5), dtype=torch.float64)


def without_times(row: dict[str, Any]) -> str:
    return repr({name: value for name, value in row.items() if not name.startswith("seconds")})


# ---- training


@pytest.mark.parametrize("path", PATHS)
def test_every_training_path_gives_the_processors_numbers(path: str, device: PretendDevice, tmp_path: Path) -> None:
    """Two iterations, the second one after a checkpoint was written and read."""
    with closing(Trainer(config_for(path))) as here, closing(trainer_on(device, path)) as there:
        assert without_times(there.iterate()) == without_times(here.iterate())
        folder = RunFolder(tmp_path)
        folder.save_checkpoint(*there.state())
    with closing(Trainer(config_for(path))) as here, closing(trainer_on(device, path)) as there:
        for resumed in (here, there):
            resumed.load_state(*folder.load_checkpoint())
        assert without_times(there.iterate()) == without_times(here.iterate())
        assert isinstance(there.theta, OnDevice)
        assert torch.equal(there.theta.held, here.theta)


# ---- what is brought back


@pytest.mark.parametrize("path", ["path", "path in chunks, every state", "vine in chunks", "games in chunks"])
def test_an_update_brings_few_values_back_to_the_host(path: str, device: PretendDevice) -> None:
    """A few for each iteration of conjugate gradient and each candidate, however many samples and parameters."""
    with closing(trainer_on(device, path)) as trainer:
        samples = trainer.sampler.sample(trainer.pi_old)
        problem = samples.problem(trainer.policy, advantages_of(samples), trainer.config.chunk_size).to(DEVICE)
        with counting() as brought:
            _, report = trpo_update(problem, trainer.theta)
        iterations, candidates = len(report.residual_norms) - 1, report.backtracks + 1
        assert iterations > 1
        assert 2 * iterations < brought.values <= 8 + 2 * iterations + 4 * candidates


# ---- faults


def batch_on_device() -> tuple[Trainer, Problem]:
    trainer = Trainer(config_for("path"))
    samples = trainer.sampler.sample(trainer.pi_old)
    problem = samples.problem(trainer.policy, advantages_of(samples), None).to(DEVICE)
    trainer.close()
    return trainer, problem


def on_the_right_side(pi: Distribution, batch: Batch) -> Tensor:
    mask = torch.ones(len(batch), device=batch.obs.device)
    return mask * sampled_surrogate(pi, batch)


def mask_on_the_wrong_side(pi: Distribution, batch: Batch) -> Tensor:
    return torch.ones(len(batch)) * sampled_surrogate(pi, batch)


def generator_of_the_processor(pi: Distribution, batch: Batch) -> Tensor:
    noise = torch.rand(len(batch), generator=seeded(0), device=batch.obs.device)
    return sampled_surrogate(pi, batch) + 0 * noise


def by_way_of_numpy(pi: Distribution, batch: Batch) -> Tensor:
    return sampled_surrogate(pi, batch) * float(batch.advantages.numpy().std())


def constant_on_the_wrong_side(pi: Distribution, batch: Batch) -> Tensor:
    return sampled_surrogate(pi, batch) - torch.tensor([0.5])


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(
    "fault", [mask_on_the_wrong_side, generator_of_the_processor, by_way_of_numpy, constant_on_the_wrong_side]
)
def test_faults_in_an_update_are_caught(fault: Any) -> None:
    trainer, problem = batch_on_device()
    theta = trainer.theta.to(DEVICE)
    for surrogate in (sampled_surrogate, on_the_right_side):
        assert trpo_update(Problem(problem.policy, problem.batch, surrogate), theta)[1].accepted
    with pytest.raises(WrongDeviceError):
        trpo_update(Problem(problem.policy, problem.batch, fault), theta)


def test_a_statistic_left_on_the_processor_is_caught(device: PretendDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    def normalise(self: FrameMoments, obs: Tensor) -> Tensor:
        scale, shift = self._scale_and_shift
        return obs.float().mul(scale).add(shift) if self.count else obs.float() / 255

    with closing(trainer_on(device, "games")) as trainer:
        trainer.iterate()
        monkeypatch.setattr(FrameMoments, "normalise", normalise)
        with pytest.raises(WrongDeviceError, match="tensors on two devices"):
            trainer.iterate()


def test_numpy_in_the_loop_is_caught(device: PretendDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(trainer_on(device, "path")) as trainer:
        update = trainer._update

        def curious(problem: Problem, theta: Tensor) -> Any:
            assert theta.numpy() is not None
            return update(problem, theta)

        monkeypatch.setattr(trainer, "_update", curious)
        with pytest.raises(WrongDeviceError, match="numpy"):
            trainer.iterate()


def test_theta_left_on_the_processor_is_caught(device: PretendDevice) -> None:
    with closing(trainer_on(device, "path")) as trainer:
        trainer.theta = trainer.theta.cpu()
        with pytest.raises(WrongDeviceError):
            trainer.iterate()


def test_what_a_thread_makes_that_does_not_know_of_the_device_is_caught(device: PretendDevice) -> None:
    """A real accelerator would take it; here nobody would notice what that thread mixes up."""
    x = torch.ones(3, device=DEVICE)
    with ThreadPoolExecutor(1) as unaware, ThreadPoolExecutor(1, initializer=device.__enter__) as aware:
        assert (x + aware.submit(torch.ones, 3, device=DEVICE).result()).tolist() == [2, 2, 2]
        elsewhere = unaware.submit(torch.ones, 3, device=DEVICE).result()
    with pytest.raises(WrongDeviceError, match="a thread that does not know"):
        x + elsewhere


@pytest.mark.usefixtures("device")
def test_the_device_itself() -> None:
    x = torch.arange(6.0).view(2, 3).to(DEVICE)
    assert x.device.type == DEVICE
    with counting() as brought:
        assert (x * 2).sum().item() == 30
        assert x[1].tolist() == [3, 4, 5]
        assert x.cpu().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (brought.values, brought.waits) == (1 + 3 + 6, 3)
    x[0] += 1
    assert x.cpu()[0].tolist() == [1, 2, 3]
    at = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(at.square().sum(), at)
    assert torch.equal(gradient.cpu(), 2 * x.cpu())
    for wrong in (lambda: x + torch.ones(3), lambda: x[torch.tensor([0])], lambda: torch.stack([x, torch.ones(2, 3)])):
        with pytest.raises(WrongDeviceError):
            wrong()
