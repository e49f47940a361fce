"""Comparing what functions return: numbers, arrays, tensors, and tuples, lists, dicts and dataclasses of them."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import torch


def copy_of(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """A deep copy, so that no call sees what an earlier one did to its arguments."""
    return tuple(
        argument.clone_state() if isinstance(argument, torch.Generator) else copy.deepcopy(argument)
        for argument in arguments
    )


def snapshot(value: Any) -> Any:
    """The arrays, tensors and numbers in `value` as they stand now; objects of other types are left out."""
    members = parts(value)
    if members is not None:
        return [snapshot(member) for member in members]
    array = as_array(value)
    return None if array is None else array.copy()


def has_nan(value: Any) -> bool:
    """Whether there is NaN anywhere in it."""
    members = parts(value)
    if members is not None:
        return any(map(has_nan, members))
    array = as_array(value)
    return array is not None and array.dtype.kind in "fc" and bool(np.isnan(array).any())


def parts(value: Any) -> list[Any] | None:
    """The members of a container, in order; None for anything else."""
    if isinstance(value, (tuple, list)):
        return list(value)
    if isinstance(value, dict):
        return [value[key] for key in sorted(value, key=str)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return None


def is_number(value: Any) -> bool:
    """A Python number or an array or tensor without axes: exercises treat them alike."""
    if isinstance(value, (bool, int, float, complex, np.generic)):
        return True
    return isinstance(value, (np.ndarray, torch.Tensor)) and value.ndim == 0


def as_array(value: Any) -> np.ndarray[Any, Any] | None:
    """A number, array or tensor as a NumPy array; None for anything else."""
    if isinstance(value, torch.Tensor):
        array: np.ndarray[Any, Any] = value.detach().cpu().numpy()
        return array
    return np.asarray(value) if is_number(value) or isinstance(value, np.ndarray) else None


def same(one: Any, other: Any) -> bool:
    """Bit for bit the same, members included; objects of unknown type count as the same."""
    members, others = parts(one), parts(other)
    if members is not None and others is not None:
        return len(members) == len(others) and all(map(same, members, others))
    a, b = as_array(one), as_array(other)
    if a is None or b is None:
        return True
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def close(one: Any, other: Any, tolerance: float) -> bool:
    """Equal within `tolerance`, relative to the size of the numbers in `other`; False if they are built differently.

    In an array of large numbers, small ones may differ by `tolerance`; where all are small, by as much less. What is
    lost in the rounding of numbers near 1 is no difference.
    """
    members, others = parts(one), parts(other)
    if members is not None or others is not None:
        if members is None or others is None or len(members) != len(others):
            return False
        return all(close(a, b, tolerance) for a, b in zip(members, others, strict=True))
    a, b = as_array(one), as_array(other)
    if a is None or b is None:
        return a is b and type(one) is type(other) and bool(one == other)
    if a.shape != b.shape:
        return False
    if a.dtype.kind in "USO" or b.dtype.kind in "USO":
        return bool(np.all(a == b))
    return bool(np.allclose(a, b, rtol=tolerance, atol=_smallest_difference(b, tolerance), equal_nan=True))


def _smallest_difference(array: np.ndarray[Any, Any], tolerance: float) -> float:
    if array.dtype.kind not in "fc":
        return tolerance
    size = np.abs(array[np.isfinite(array)]).max(initial=0.0)
    return float(max(tolerance * min(size, 1.0), 16 * np.finfo(array.dtype).eps))


def difference_in_form(answer: Any, expected: Any, where: str = "Your function returned") -> str | None:
    """What is wrong with `answer` whatever its values: type, length, shape, dtype, NaN. None if nothing is."""
    members, others = parts(answer), parts(expected)
    if others is not None:
        if members is None or type(answer) is not type(expected):
            return f"{where} {_kind(answer)}, but {_kind(expected)} is asked for."
        if len(members) != len(others):
            return f"{where} {len(members)} values, but {len(others)} are asked for."
        if _one_object(members) and not _one_object(others):
            return f"{where} one and the same array {len(members)} times. Collect a copy of it each time."
        pairs = zip(members, others, strict=True)
        named = ((f"{where}, as value {i},", a, b) for i, (a, b) in enumerate(pairs, start=1))
        return next(filter(None, (difference_in_form(a, b, name) for name, a, b in named)), None)
    a, b = as_array(answer), as_array(expected)
    if b is None:
        wrong_kind = not isinstance(answer, type(expected))
    else:
        mixed = isinstance(answer, torch.Tensor) != isinstance(expected, torch.Tensor)
        wrong_kind = a is None or (mixed and not is_number(expected))
    if wrong_kind:
        return f"{where} {_kind(answer)}, but {_kind(expected)} is asked for."
    if a is None or b is None:
        return None
    return _difference_in_numbers(a, b, where, not is_number(expected))


def _one_object(members: list[Any]) -> bool:
    """Whether all members are one array or tensor."""
    changeable = len(members) > 1 and isinstance(members[0], np.ndarray | torch.Tensor)
    return changeable and all(member is members[0] for member in members)


def asks_for_gradients(value: Any) -> bool:
    """Whether any tensor in it does."""
    members = parts(value)
    return (
        any(map(asks_for_gradients, members)) if members is not None else bool(getattr(value, "requires_grad", False))
    )


def _difference_in_numbers(
    a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], where: str, exact_dtype: bool
) -> str | None:
    if a.shape != b.shape:
        return f"{where} {_shape(a)}, but {_shape(b)} is asked for."
    if a.dtype.kind == "c" and b.dtype.kind != "c":
        return f"{where} complex numbers, but real ones are asked for."
    # A whole number where a real one is asked for is fine; a truncated array is not, and neither is half the precision.
    if exact_dtype and a.dtype.kind in "iu" and b.dtype.kind in "iu":
        return None  # an integer of any length is an integer
    if exact_dtype and a.dtype.kind in "iu" and b.dtype.kind == "f" and a.size:
        hint = "An array keeps the type it was made with, and cuts off what is put into it."
        return f"{where} whole numbers ({a.dtype}), but {b.dtype} is asked for. {hint}"
    if exact_dtype and a.dtype != b.dtype and a.size:
        return lost_precision(a, b, where) or f"{where} numbers of type {a.dtype}, but {b.dtype} is asked for."
    if a.dtype.kind == "f" and np.isnan(a).any() and not np.isnan(b).any():
        return f"{where} NaN, which is not a number. Look for 0/0, log of a negative number, or inf - inf."
    if a.dtype.kind == "f" and np.isinf(a).any() and not np.isinf(b).any():
        return f"{where} an infinite value. Look for a division by zero, log(0), or exp of something large."
    return None


def lost_precision(answer: Any, expected: Any, where: str = "Your function returned") -> str | None:
    """What to say of numbers with fewer digits than `expected` has; None if there are as many."""
    members, others = parts(answer), parts(expected)
    if members is not None and others is not None:
        pairs = enumerate(zip(members, others, strict=False), start=1)
        return next(filter(None, (lost_precision(a, b, f"{where}, as value {i},") for i, (a, b) in pairs)), None)
    a, b = as_array(answer), as_array(expected)
    if a is None or b is None or not a.dtype.kind == b.dtype.kind == "f" or a.itemsize >= b.itemsize:
        return None
    keep = "Keep the precision of the arguments, for example with zeros_like."
    return f"{where} numbers of type {a.dtype}, but {b.dtype} is asked for. {keep}"


def _shape(array: np.ndarray[Any, Any]) -> str:
    return "a single number" if array.ndim == 0 else f"an array of shape {array.shape}"


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return "a torch tensor" if value.ndim else "a number"
    if isinstance(value, np.ndarray):
        return "a NumPy array" if value.ndim else "a number"
    if is_number(value):
        return "a number"
    article = "an" if type(value).__name__[0].lower() in "aeiou" else "a"
    return f"{article} {type(value).__name__}"


def proportional_or_shifted(one: list[float], other: list[float]) -> bool:
    """Whether two lists of numbers differ only by one constant factor, or only by one constant added.

    They must be infinite or NaN in the same places, which are then left out.
    """
    a, b = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    keep = np.isfinite(a)
    if not np.array_equal(keep, np.isfinite(b)):
        return False
    a, b = a[keep], b[keep]
    if a.size < 3 or math.isclose(float(np.ptp(a)), 0.0) or math.isclose(float(np.ptp(b)), 0.0):
        return False
    factor = float(a @ b / (a @ a))
    scale = float(np.abs(b).max())
    return bool(np.abs(b - factor * a).max() < 1e-9 * scale or np.ptp(b - a) < 1e-9 * scale)
