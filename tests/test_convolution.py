"""Convolutions with tanh against torch's own, as far as the third derivative, in every mode of differentiation."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from trpo_lessons import convolution
from trpo_lessons.convolution import tanh_convolution

SHAPES = st.tuples(*[st.integers(1, 3)] * 4, st.integers(0, 3), st.integers(0, 3))


def arguments(shapes: tuple[int, ...], seed: int = 0) -> tuple[tuple[Tensor, Tensor, Tensor], int]:
    """Images, weight, bias and a stride; the images need not be a whole number of strides."""
    count, channels, filters, stride, taller, wider = shapes
    generator = torch.Generator().manual_seed(seed)
    sizes = (count, channels, 2 + taller, 2 + wider), (filters, channels, 2, 2), (filters,)
    images, weight, bias = (torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes)
    return (images, weight, bias), stride


def torchs_own(images: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    return functional.conv2d(images, weight, bias, stride).tanh()


def derivatives(convolution: object, tensors: tuple[Tensor, ...], order: int) -> list[Tensor]:
    """All values, gradients, gradients of a function of the gradients, and so on."""
    assert callable(convolution)
    at = [tensor.clone().requires_grad_() for tensor in tensors]
    values = [convolution(*at)]
    found = list(values)
    for _ in range(order):
        scalar = sum((torch.sin(value) * torch.cos(value + 1).detach()).sum() for value in values)
        values = list(torch.autograd.grad(scalar, at, create_graph=True))
        found += values
    return found


@given(SHAPES)
def test_values_and_three_derivatives_are_those_of_torch(shapes: tuple[int, ...]) -> None:
    tensors, stride = arguments(shapes)
    ours = derivatives(partial(tanh_convolution, stride=stride), tensors, order=3)
    torchs = derivatives(partial(torchs_own, stride=stride), tensors, order=3)
    for mine, its in zip(ours, torchs, strict=True):
        torch.testing.assert_close(mine, its)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("with_gradient", [False, True])
def test_tanh_is_right_to_a_few_units_in_the_last_place_of_1(dtype: torch.dtype, with_gradient: bool) -> None:
    x = torch.cat([torch.linspace(-12, 12, 2001), torch.tensor([-1e30, -200, -1e-30, 0, 1e-5, 200, 1e30])]).to(dtype)
    one, none = torch.ones(1, 1, 1, 1, dtype=dtype), torch.zeros(1, dtype=dtype)
    with torch.set_grad_enabled(with_gradient):
        found = tanh_convolution(x.view(-1, 1, 1, 1), one, none, 1).flatten()
    assert (found - x.double().tanh()).abs().max() < 3 * torch.finfo(dtype).eps
    assert found[x == 0] == 0
    assert tanh_convolution(torch.full((1, 1, 1, 1), torch.nan, dtype=dtype), one, none, 1).isnan()


@given(SHAPES, st.sampled_from(["iwb", "iw", "ib", "wb", "i", "w", "b"]))
def test_forward_mode_agrees(shapes: tuple[int, ...], moving: str) -> None:
    tensors, stride = arguments(shapes)
    tangents, _ = arguments(shapes, seed=1)
    still = [torch.zeros_like(t) if name not in moving else t for name, t in zip("iwb", tangents, strict=True)]
    _, expected = torch.func.jvp(partial(torchs_own, stride=stride), tensors, tuple(still))
    with forward_ad.dual_level():
        duals = [
            forward_ad.make_dual(t, tangent) if name in moving else t  # type: ignore[no-untyped-call]
            for name, t, tangent in zip("iwb", tensors, tangents, strict=True)
        ]
        found = forward_ad.unpack_dual(tanh_convolution(*duals, stride))  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found.tangent, expected)


@pytest.mark.parametrize("place", [1, 2])  # torch cannot yet ask for channels_last within vmap over images
def test_function_transforms_agree(place: int) -> None:
    tensors, stride = arguments((2, 2, 3, 2, 2, 3))

    def hessian(of: object) -> Tensor:
        assert callable(of)

        def scalar(x: Tensor) -> Tensor:
            result: Tensor = of(*tensors[:place], x, *tensors[place + 1 :], stride).square().sum()
            return result

        blocks: Tensor = torch.func.hessian(scalar)(tensors[place])
        return blocks

    torch.testing.assert_close(hessian(tanh_convolution), hessian(torchs_own))


def test_without_gradients_the_numbers_are_the_same() -> None:
    (images, weight, bias), stride = arguments((2, 2, 3, 2, 3, 3))
    before = [images.clone(), weight.clone(), bias.clone()]
    with torch.no_grad():
        found = tanh_convolution(images, weight, bias, stride)
    assert torch.equal(found, tanh_convolution(images, weight.requires_grad_(), bias, stride))
    torch.testing.assert_close(found, torchs_own(images, weight, bias, stride).detach())
    assert all(torch.equal(*pair) for pair in zip(before, (images, weight, bias), strict=True))


@pytest.mark.parametrize("images_require_a_gradient", [False, True])
def test_differentiating_a_gradient_computes_only_what_is_asked_for(
    images_require_a_gradient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """J^T u, differentiated in u alone: a convolution with the direction, and no gradient in images or weight."""
    computed: list[int] = []
    original = convolution._partial

    def counted(argument: int, *rest: object) -> Tensor:
        computed.append(argument)
        return original(argument, *rest)  # type: ignore[arg-type]

    (images, weight, bias), stride = arguments((2, 2, 3, 2, 3, 3))
    images, weight = 1 * images.requires_grad_(images_require_a_gradient), 1 * weight.requires_grad_()  # no leaves
    monkeypatch.setattr(convolution, "_partial", counted)
    outputs = tanh_convolution(images, weight, bias, stride)
    u = torch.zeros_like(outputs, requires_grad=True)
    wanted = [images, weight] if images_require_a_gradient else [weight]
    pulled_back = torch.autograd.grad(outputs, wanted, u, create_graph=True)
    computed.clear()
    torch.autograd.grad(pulled_back, u, [torch.ones_like(each) for each in wanted])
    assert computed == [convolution.OUTPUTS] * len(wanted)
