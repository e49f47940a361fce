"""A checkpoint as a file: tensors, facts that fit into JSON, and a checksum of both. Never pickle.

It is a file of safetensors. Recorded runs of this package have theirs compressed by gzip.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trpo_lessons.training.running import files

NAME = "checkpoint.safetensors"
COMPRESSED = files.compressed_name(NAME)
FORMAT = "trpo-lessons run, format 1"
LONGEST_HEADER = 100_000_000  # bytes, as safetensors has it: what claims more is no header
DAMAGE = (SafetensorError, OSError, EOFError, zlib.error, KeyError, ValueError, TypeError, RecursionError)
"""What reading a file may raise that is damaged."""


class ForeignError(Exception):
    """A file of safetensors that is no checkpoint of this package; the message is its format."""


def path_in(folder: Path) -> Path:
    """Where a run folder has its checkpoint, or would have it."""
    return files.path_in(folder, NAME)


def as_bytes(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """A checkpoint, not compressed."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(facts)
    return save(contiguous, {"format": FORMAT, "facts": text, "checksum": _checksum(contiguous, text)})


def uncompressed(path: Path) -> bytes:
    """The bytes of a checkpoint, as `as_bytes` made them."""
    with _opened(path) as file:
        return file.read()


def facts_of(path: Path) -> dict[str, Any]:
    """The facts alone, read at once. Raises one of `DAMAGE`, also where the file is cut short."""
    with _opened(path) as file:
        return dict(json.loads(_metadata(file)["facts"]))


def contents(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts. Raises ForeignError, or one of `DAMAGE`."""
    data = uncompressed(path)
    loaded, metadata = load(data), _metadata(io.BytesIO(data))
    if metadata.get("format") != FORMAT:
        raise ForeignError(metadata.get("format"))
    # Copies, which torch aligns: matrix products of numbers that lie askew in memory round differently.
    tensors = {name: loaded[name].clone() for name in sorted(loaded)}
    if metadata["checksum"] != _checksum(tensors, metadata["facts"]):
        raise ValueError("its checksum is wrong")
    return tensors, json.loads(metadata["facts"])


def _opened(path: Path) -> io.BufferedIOBase:
    # Once for all that is read of it: it may be replaced meanwhile.
    return gzip.open(path) if path.name == COMPRESSED else open(path, "rb")


def _metadata(checkpoint: io.BufferedIOBase) -> dict[str, str]:
    """What stands beside the tensors: a file of safetensors begins with the length of its header, which is JSON.

    Raises ValueError when this is no header, or when the tensors do not end where the file does.
    """
    length = int.from_bytes(checkpoint.read(8), "little")
    if length > LONGEST_HEADER:
        raise ValueError(f"its header claims to have {length} bytes")
    header = json.loads(checkpoint.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no object of JSON")
    metadata = dict(header.pop("__metadata__", None) or {})
    ends = [tensor["data_offsets"][1] for tensor in header.values()]
    if checkpoint.seek(0, io.SEEK_END) != 8 + length + max(ends, default=0):
        raise ValueError("it has another length than its header says")
    return metadata


def _checksum(tensors: Mapping[str, Tensor], facts: str) -> str:
    # safetensors notices a file that is cut short, but not a changed byte.
    checksum = zlib.crc32(facts.encode())
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].numpy().data, zlib.crc32(name.encode(), checksum))
    return f"{checksum:08x}"
