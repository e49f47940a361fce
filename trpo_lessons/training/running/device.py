"""Where updates are computed, and what of it decides whether two runs are equal to the bit."""

from __future__ import annotations

from typing import Any

import torch


def prepare(device: str) -> None:
    """Make `device`, "cpu" or "cuda", compute the same numbers every time. Raises ValueError when it is not there."""
    if device == "cpu":
        return
    if not torch.cuda.is_available():
        raise ValueError("device cuda: there is no usable GPU on this machine; use --device cpu or auto")
    # Convolutions in float32, as on a CPU. By default a GPU rounds what goes into them to 10 bits (TF32); the networks
    # are too small to be much faster for it. And of several ways to convolve, always the same one.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def facts(device: str) -> dict[str, Any]:
    """The device with the card and the versions of its libraries; a processor is described elsewhere."""
    if device == "cpu" or not torch.cuda.is_available():
        return {"device": device}
    return {
        "device": device,
        "card": torch.cuda.get_device_name(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }
