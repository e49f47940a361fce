"""How recordings without run folders are kept: tensors in one file, facts about them in another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from trpo_lessons.training import RunError
from trpo_lessons.training.running.run_folder import json_text


def write_both(tensors: Mapping[str, Tensor], tensors_file: Path, facts: Mapping[str, Any], facts_file: Path) -> None:
    """Write both files in the place of what was there, each of them whole or not at all.

    Raises RunError (one line) when that cannot be done.
    """
    partial = {file: file.with_name(f"{file.name}.partial") for file in (tensors_file, facts_file)}
    try:
        for file in partial:
            file.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(tensors), partial[tensors_file])
        partial[facts_file].write_text(json_text(facts) + "\n")
        for file, written in partial.items():
            written.chmod(0o644)
            os.replace(written, file)
    except OSError as error:
        told = f"cannot write into {tensors_file.parent} ({error.strerror}); choose another folder with --out"
        raise RunError(told) from error
