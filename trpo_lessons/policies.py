"""Policies as functions of one flat parameter vector.

Reading order: after `distributions`. Lesson 02.

`policy(theta, obs)` returns a distribution over actions. Theta is an argument, never a hidden attribute: a line search
is `f(theta + step * direction)`, nothing is mutated and nothing has to be restored afterwards. A policy is a network
followed by a head, and a network is a list of layers; each knows the shapes of its parameters and owns no numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.init import orthogonal_

from trpo_lessons.convolution import tanh_convolution
from trpo_lessons.distributions import Categorical, DiagGaussian, Distribution, FactoredCategorical


class Head(Protocol):
    """Turns the network's last layer into a distribution; may own parameters that no observation changes."""

    @property
    def num_inputs(self) -> int:
        """Width of the network's last layer."""

    @property
    def num_free(self) -> int:
        """How many entries at the end of theta belong to the head itself."""

    def initial_free(self) -> Tensor:
        """Their initial values, [num_free]."""

    def __call__(self, outputs: Tensor, free: Tensor) -> Distribution:
        """The distributions for `outputs` [N, num_inputs] and the head's own parameters `free` [num_free]."""


@dataclass(frozen=True)
class CategoricalHead:
    """One of `num_actions` actions."""

    num_actions: int
    num_free: int = 0

    @property
    def num_inputs(self) -> int:
        return self.num_actions

    def initial_free(self) -> Tensor:
        return torch.empty(0, dtype=torch.float32)

    def __call__(self, outputs: Tensor, free: Tensor) -> Distribution:  # noqa: ARG002
        return Categorical(outputs)


@dataclass(frozen=True)
class FactoredHead:
    """Several independent choices, for example 3 + 3 + 2 for a joystick."""

    sizes: tuple[int, ...]
    num_free: int = 0

    @property
    def num_inputs(self) -> int:
        return sum(self.sizes)

    def initial_free(self) -> Tensor:
        return torch.empty(0, dtype=torch.float32)

    def __call__(self, outputs: Tensor, free: Tensor) -> Distribution:  # noqa: ARG002
        return FactoredCategorical(outputs, self.sizes)


@dataclass(frozen=True)
class GaussianHead:
    """Continuous actions; log sigma is a parameter of its own, the same in every state (appendix D of the paper)."""

    action_dim: int
    initial_log_std: float = 0.0

    @property
    def num_inputs(self) -> int:
        return self.action_dim

    @property
    def num_free(self) -> int:
        return self.action_dim

    def initial_free(self) -> Tensor:
        return torch.full((self.action_dim,), self.initial_log_std, dtype=torch.float32)

    def __call__(self, outputs: Tensor, free: Tensor) -> Distribution:
        return DiagGaussian(outputs, free)


@dataclass(frozen=True)
class Layer:
    """`apply(inputs, *parameters)`, and the shapes of its parameters: none, or a weight and a bias."""

    apply: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...] = ()


class FlatNetwork:
    """Layers one after the other, as a function of one flat parameter vector."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = tuple(layers)
        self._shapes = [shape for layer in layers for shape in layer.shapes]
        self._sizes = [math.prod(shape) for shape in self._shapes]

    @property
    def num_parameters(self) -> int:
        """How many weights and biases there are."""
        return sum(self._sizes)

    def __call__(self, theta: Tensor, inputs: Tensor) -> Tensor:
        """The network's outputs [N, outputs] for `inputs` [N, ...] under the parameters `theta` [num_parameters]."""
        return self.at(theta)(inputs)

    def at(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        """The network with its parameters in place: a function of the inputs alone."""
        parts = iter(torch.split(theta, self._sizes))
        layers = [(layer.apply, [next(parts).view(shape) for shape in layer.shapes]) for layer in self._layers]

        def network(inputs: Tensor) -> Tensor:
            for apply, parameters in layers:
                inputs = apply(inputs, *parameters)
            return inputs

        return network

    def initial_theta(self, last_layer_gain: float, generator: torch.Generator | None = None) -> Tensor:
        """Random parameters [num_parameters], float32: orthogonal weights, zero biases. Saxe et al. (2014).

        The gain is sqrt(2), except for the last layer's, which is given.
        """
        last = max(i for i, shape in enumerate(self._shapes) if len(shape) > 1)
        parts = [torch.zeros(shape, dtype=torch.float32) for shape in self._shapes]  # whatever torch's default is
        for i, part in enumerate(parts):
            if part.ndim > 1:
                orthogonal_(part, last_layer_gain if i == last else math.sqrt(2), generator=generator)
        return torch.cat([part.flatten() for part in parts])


class Policy:
    """A network followed by a head, as a function of (theta, obs)."""

    def __init__(self, layers: Sequence[Layer], head: Head) -> None:
        self._network = FlatNetwork(layers)
        self.head = head

    @property
    def num_parameters(self) -> int:
        """Length of theta: every weight, every bias, and the head's own parameters at the end."""
        return self._network.num_parameters + self.head.num_free

    def __call__(self, theta: Tensor, obs: Tensor) -> Distribution:
        """Distributions over actions for `obs` [N, *obs_shape] under the parameters `theta` [num_parameters].

        Raises ValueError when theta has the wrong length.
        """
        return self.at(theta)(obs)

    def at(self, theta: Tensor) -> Callable[[Tensor], Distribution]:
        """The policy at theta, as a function of the observations alone: theta is taken apart once for many calls.

        Raises ValueError when theta has the wrong length.
        """
        if theta.shape != (self.num_parameters,):
            raise ValueError(f"theta has shape {tuple(theta.shape)}, but this policy needs ({self.num_parameters},)")
        weights, free = torch.split(theta, [self._network.num_parameters, self.head.num_free])
        network = self._network.at(weights)
        return lambda obs: self.head(network(obs), free)

    def initial_theta(self, generator: torch.Generator | None = None) -> Tensor:
        """A random theta [num_parameters], float32.

        The last layer is small, which makes the first policy almost the same in every state: early actions explore.
        """
        return torch.cat([self._network.initial_theta(0.01, generator), self.head.initial_free()])


TANH = Layer(torch.tanh)
FLATTEN = Layer(partial(torch.flatten, start_dim=1))


def linear(fan_in: int, fan_out: int) -> Layer:
    """A fully connected layer."""
    return Layer(functional.linear, ((fan_out, fan_in), (fan_out,)))


def convolution(channels: int, filters: int, size: int, stride: int) -> Layer:
    """An unpadded convolution with square filters, and its tanh."""
    return Layer(partial(tanh_convolution, stride=stride), ((filters, channels, size, size), (filters,)))


def mlp(sizes: Sequence[int]) -> list[Layer]:
    """Linear layers of the given widths with tanh between them, as in the paper's locomotion networks (figure 3)."""
    layers = [linear(*pair) for pair in itertools.pairwise(sizes)]
    return [x for layer in layers for x in (TANH, layer)][1:]


def convolutional(obs_shape: Sequence[int], hidden: Sequence[int], outputs: int) -> list[Layer]:
    """The paper's Atari network for images `obs_shape` (channels, height, width): figure 3 and Table 3.

    Two convolutions with 16 filters, 4 x 4, stride 2, then tanh layers of the given widths. Raises ValueError where
    images are too small.
    """
    channels, height, width = obs_shape
    for _ in range(2):
        height, width = (height - 4) // 2 + 1, (width - 4) // 2 + 1
    if height < 1 or width < 1:
        raise ValueError(f"images of {obs_shape[1]} x {obs_shape[2]} are too small for two 4 x 4 convolutions")
    first, second = convolution(channels, 16, 4, 2), convolution(16, 16, 4, 2)
    return [first, second, FLATTEN, *mlp([16 * height * width, *hidden, outputs])]


def layers_for(obs_shape: Sequence[int], hidden: Sequence[int], outputs: int) -> list[Layer]:
    """The network that suits observations: vectors (length,), or images (channels, height, width)."""
    return convolutional(obs_shape, hidden, outputs) if len(obs_shape) == 3 else mlp([*obs_shape, *hidden, outputs])


def linear_policy(obs_dim: int, head: Head) -> Policy:
    """A policy whose parameters are linear in the observation, such as the paper's six-parameter cart-pole."""
    return Policy(mlp([obs_dim, head.num_inputs]), head)


def mlp_policy(obs_dim: int, head: Head, hidden: Sequence[int] = (64, 64)) -> Policy:
    """A policy with tanh hidden layers of the given widths."""
    return Policy(mlp([obs_dim, *hidden, head.num_inputs]), head)
