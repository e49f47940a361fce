"""The paper's network on real screens: its size follows from the environment, its products from float64."""

import numpy as np
import pytest
import torch
from helpers import convolutional_policy

from trpo_lessons.envs.atari import make_atari
from trpo_lessons.kl import fisher_vector_product
from trpo_lessons.policies import FactoredHead
from trpo_lessons.surrogate import States


@pytest.fixture(scope="module")
def screens():
    """Observations of a few games of Breakout, uint8 [N, 4, 52, 40]; and the spaces they come from."""
    env = make_atari("breakout", 4, seed=0, threads=1)
    obs = [env.reset()[0]]
    generator = np.random.default_rng(0)
    for _ in range(12):
        obs.append(env.step(generator.integers([3, 3, 2], size=(4, 3)))[0])
    env.close()
    return torch.from_numpy(np.concatenate(obs)), env.single_observation_space, env.single_action_space


@pytest.fixture(scope="module")
def policy(screens):
    _, obs_space, action_space = screens
    return convolutional_policy(obs_space.shape, FactoredHead(tuple(action_space.nvec.tolist())))


def test_the_spaces_of_the_paper_s_settings_make_the_paper_s_network(policy):
    assert policy.num_parameters == 33_500


def test_its_fisher_product_in_single_precision_against_double(screens, policy):
    obs = screens[0]
    theta = policy.initial_theta(torch.Generator().manual_seed(0)).double()
    theta += 0.02 * torch.randn(theta.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    direction = torch.randn(theta.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def product(dtype, chunk_size=None):
        states = States(obs.to(dtype))
        return fisher_vector_product(policy, theta.to(dtype), states, chunk_size)(direction.to(dtype)).double()

    exact = product(torch.float64)
    assert exact.norm() > 1e-3
    assert (product(torch.float64, chunk_size=7) - exact).norm() <= 1e-10 * exact.norm()
    assert (product(torch.float32) - exact).norm() <= 1e-4 * exact.norm()
    assert (product(torch.float32, chunk_size=7) - exact).norm() <= 1e-4 * exact.norm()
