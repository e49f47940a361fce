"""How the files of a run folder are written and kept: whole or not at all, and compressed where they are recorded."""

from __future__ import annotations

import gzip
from pathlib import Path

from trpo_lessons.training.running.run_errors import cannot_write


def compressed_name(name: str) -> str:
    """What a file is called where it is compressed by gzip, as those of recorded runs are."""
    return f"{name}.gz"


def path_in(folder: Path, name: str) -> Path:
    """Where a run folder has a file, plain or compressed, or would have it."""
    # A recorded run that somebody has copied and resumed has both: the compressed one is the older.
    plain, compressed = folder / name, folder / compressed_name(name)
    return compressed if compressed.exists() and not plain.exists() else plain


def compressed(data: bytes) -> bytes:
    """The same bytes from the same data, whenever it is done."""
    return gzip.compress(data, mtime=0)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises RunError when the disk refuses; what was there before still stands."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error
