"""Convolutions with tanh, whose derivatives can be differentiated again at no needless cost.

Reading order: none; leave it for later. `policies` builds the paper's Atari network with it.

A convolution is linear in the images x and in the weight w. So, then, is the form T(x, w, y) = sum(y * convolve(x, w)),
and in y as well. Its gradients in y, in w and in x are the convolution and its two ordinary derivatives, and the
derivatives of each of the three are again the other two: one function, `_partial`, that knows itself as its own
derivative, to any order.

torch's own convolution knows its second derivatives too, but computes all of them whenever it is asked for one. A
Fisher-vector product (`kl`) needs only the one in y, and takes half the time this way.

To add a bias and to take tanh costs as much as the convolution itself where each operation writes new pictures. So the
convolution adds the bias, and tanh is taken in place, in the pictures that it wrote. It is computed as
2 sigmoid(2 x) - 1: torch's sigmoid took an eighth of the time of its tanh on an AMD EPYC, where tanh was half of a
forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional
from torch.nn.grad import conv2d_weight

IMAGES, WEIGHT, OUTPUTS = range(3)


def tanh_convolution(images: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """tanh of an unpadded convolution, [N, filters, ...], of `images` [N, channels, height, width].

    `weight` is [filters, channels, size, size] and `bias` [filters]. The same numbers as functional.conv2d and tanh.
    """
    if not torch.is_grad_enabled():  # acting, most of all: a few pictures at a time, where every call counts
        return _convolve_and_tanh(images, weight, bias, stride)
    geometry = _Geometry(tuple(images.shape[-2:]), tuple(weight.shape[-2:]), stride)
    result: Tensor = _TanhConvolution.apply(images, weight, bias, geometry)  # type: ignore[no-untyped-call]
    return result


def channels_last(pictures: Tensor) -> Tensor:
    """`pictures` [N, channels, height, width] with the channels of a pixel side by side in memory.

    It changes no number, and convolutions take half the time on a processor.
    """
    return pictures.contiguous(memory_format=torch.channels_last)


def _convolve_and_tanh(images: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    return functional.conv2d(images, 2 * weight, 2 * bias, stride).sigmoid_().mul_(2).sub_(1)


@dataclass(frozen=True)
class _Geometry:
    image_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: int

    @property
    def cut_off(self) -> tuple[int, ...]:
        """Rows and columns at the end of the images that no kernel reaches."""
        pairs = zip(self.image_size, self.kernel_size, strict=True)
        return tuple((size - kernel) % self.stride for size, kernel in pairs)


class _TanhConvolution(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor, weight: Tensor, bias: Tensor, geometry: _Geometry) -> Tensor:
        return _convolve_and_tanh(images, weight, bias, geometry.stride)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        images, weight, _, ctx.geometry = inputs
        ctx.save_for_backward(images, weight, output)
        ctx.save_for_forward(images, weight, output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, outputs = ctx.saved_tensors
        y = torch.ops.aten.tanh_backward(upstream, outputs)
        return (
            _partial(IMAGES, weight, y, ctx.geometry) if _is_asked_for(ctx, IMAGES) else None,
            _partial(WEIGHT, images, y, ctx.geometry) if _is_asked_for(ctx, WEIGHT) else None,
            y.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None,
            None,
        )

    @staticmethod
    def jvp(ctx: Any, d_images: Tensor | None, d_weight: Tensor | None, d_bias: Tensor | None, _: None) -> Tensor:
        images, weight, outputs = ctx.saved_tensors
        terms = [] if d_bias is None else [d_bias.view(-1, 1, 1).expand_as(outputs)]
        if d_images is not None:
            terms.append(_partial(OUTPUTS, d_images, weight, ctx.geometry))
        if d_weight is not None:
            terms.append(_partial(OUTPUTS, images, d_weight, ctx.geometry))
        tangent: Tensor = torch.ops.aten.tanh_backward(sum(terms), outputs)
        return tangent


def _partial(argument: int, a: Tensor, b: Tensor, geometry: _Geometry) -> Tensor:
    """Gradient of T in one argument, given the other two in the order images, weight, outputs."""
    result: Tensor = _Partial.apply(a, b, argument, geometry)  # type: ignore[no-untyped-call]
    return result


class _Partial(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor, argument: int, geometry: _Geometry) -> Tensor:
        stride = geometry.stride
        if argument == IMAGES:
            return functional.conv_transpose2d(channels_last(b), a, stride=stride, output_padding=geometry.cut_off)
        if argument == WEIGHT:
            size = (b.shape[1], a.shape[1], *geometry.kernel_size)
            weight: Tensor = conv2d_weight(a, size, b, stride)  # type: ignore[no-untyped-call]
            return weight
        return functional.conv2d(a, b, stride=stride)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        a, b, ctx.argument, ctx.geometry = inputs
        ctx.save_for_backward(a, b)
        ctx.save_for_forward(a, b)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        terms = list(ctx.saved_tensors)
        terms.insert(ctx.argument, upstream)
        others = [i for i in range(3) if i != ctx.argument]

        def gradient_in(i: int) -> Tensor:
            a, b = terms[:i] + terms[i + 1 :]
            return _partial(i, a, b, ctx.geometry)

        return *[gradient_in(i) if _is_asked_for(ctx, k) else None for k, i in enumerate(others)], None, None

    @staticmethod
    def jvp(ctx: Any, da: Tensor | None, db: Tensor | None, *_: None) -> Tensor | None:
        a, b = ctx.saved_tensors
        through_a = None if da is None else _partial(ctx.argument, da, b, ctx.geometry)
        through_b = None if db is None else _partial(ctx.argument, a, db, ctx.geometry)
        if through_a is None or through_b is None:
            return through_b if through_a is None else through_a
        return through_a + through_b


def _is_asked_for(ctx: Any, argument: int) -> bool:
    """Whether this backward pass wants the gradient in an argument: not all that require one are wanted each time."""
    node = ctx.next_functions[argument][0]
    if node is None or not node.next_functions:  # a constant, or a leaf, of which torch cannot tell
        return node is not None
    wanted: bool = torch._C._will_engine_execute_node(node)
    return wanted
