"""A pretend accelerator: a device that is nowhere, whose tensors compute on the processor and refuse to meet its own.

A tensor of it is a wrapper on torch's meta device that holds a tensor of the processor. Every operation on wrappers is
done with what they hold, so that it gives the processor's numbers to the bit. What would fail on a real accelerator
fails here: operations between devices, conversions to NumPy, random generators of the wrong device. And what would be
slow there is counted: values that are brought back to the host, for each of which it would wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = "meta"
ATEN = torch.ops.aten
TO_HOST = (ATEN._local_scalar_dense.default,)
COPIES = (ATEN._to_copy.default, ATEN.copy_.default)


class WrongDeviceError(RuntimeError):
    """What a real accelerator would refuse."""


class OnDevice(Tensor):
    """A tensor on the pretend accelerator; `held` is what it holds."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, held.size(), **layout, device=DEVICE)  # type: ignore[attr-defined]

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def tolist(self) -> Any:  # torch refuses what it does for its own devices, which is this
        return self.cpu().tolist()

    def numpy(self, **_: Any) -> Any:
        raise WrongDeviceError("a tensor of the device cannot be converted to numpy")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


class PretendDevice(TorchDispatchMode):
    """Makes tensors on the device, where code asks for them by its name, in the threads that have entered it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


class Counter:
    """How many values were brought back to the host, and in how many waits."""

    values = waits = 0


COUNTER = Counter()


def compute(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One operation of torch: on the device if its tensors are there, or are to be made there."""
    if func is ATEN._efficientzerotensor.default:  # of forward mode; it has no data to hold
        func = ATEN.zeros.default
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [isinstance(tensor, OnDevice) for tensor in tensors]
    if any(tensor.device.type == DEVICE and not isinstance(tensor, OnDevice) for tensor in tensors):
        raise WrongDeviceError(f"{func}: a tensor was made on the device by a thread that does not know of it")
    if any(there) and not all(there) and func not in COPIES:
        raise WrongDeviceError(f"{func}: tensors on two devices")
    asked = kwargs.get("device")
    result_there = any(there) if asked is None else torch.device(asked).type == DEVICE
    if func is ATEN.copy_.default:
        result_there = there[0]
    if kwargs.get("generator") is not None and result_there:
        raise WrongDeviceError(f"{func}: a generator of the processor, for numbers on the device")
    if any(there) and (func in TO_HOST or not result_there):
        COUNTER.waits += 1
        COUNTER.values += sum(tensor.numel() for tensor, is_there in zip(tensors, there, strict=True) if is_there)
    held = kwargs | ({"device": "cpu"} if result_there and asked is not None else {})
    found = func(*tree_map(unwrapped, args), **tree_map(unwrapped, held))
    wrappers = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, OnDevice)}
    return tree_map(lambda leaf: wrapped(leaf, wrappers), found) if result_there else found


def unwrapped(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, OnDevice) else leaf


def wrapped(leaf: Any, wrappers: dict[int, OnDevice]) -> Any:
    """A result; operations in place return the tensor that they were given."""
    return wrappers.get(id(leaf), OnDevice(leaf)) if isinstance(leaf, Tensor) else leaf


@contextmanager
def counting() -> Iterator[Counter]:
    """What is brought back to the host meanwhile."""
    COUNTER.values = COUNTER.waits = 0
    yield COUNTER
