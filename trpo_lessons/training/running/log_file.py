"""The log of a run as a file: progress.csv, a header and one row an iteration.

Recorded runs of this package have theirs compressed by gzip.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trpo_lessons.envs.finding import one_line
from trpo_lessons.training.running import files
from trpo_lessons.training.running.run_errors import RunError, cannot_write

NAME = "progress.csv"
COMPRESSED = files.compressed_name(NAME)


def path_in(folder: Path) -> Path:
    """Where a run folder has its log, or would have it."""
    return files.path_in(folder, NAME)


def uncompressed(path: Path) -> bytes:
    """The bytes of a log, as they were written. Raises RunError (one line) when they cannot be read."""
    try:
        return gzip.decompress(path.read_bytes()) if path.name == COMPRESSED else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, one_line(error)) from error


def text_of(path: Path) -> str:
    """A log as text, without the byte order mark that spreadsheets begin with.

    Raises RunError (one line) when it is damaged.
    """
    try:
        return uncompressed(path).decode("utf-8-sig")
    except ValueError as error:
        raise _damaged(path, one_line(error)) from error


def rows(folder: Path) -> list[dict[str, str]]:
    """The rows of a folder's log, oldest first; empty when there is none yet.

    The last one can be half written. Raises RunError (one line) when it is damaged, or changed by another program.
    """
    path = path_in(folder)
    if not path.exists():
        return []
    try:
        lines = csv.DictReader(io.StringIO(text_of(path), newline=""))
        columns = list(lines.fieldnames or [])
        if columns and columns[0] != "iteration":
            semicolons = columns[0].startswith("iteration;")
            raise _damaged(path, "its columns are parted by semicolons" if semicolons else "it has other columns")
        return list(lines)
    except csv.Error as error:
        raise _damaged(path, one_line(error)) from error


def rows_of(folder: Path, iterations: int, columns: Iterable[str] | None = None) -> list[dict[str, str]]:
    """The rows of the first `iterations`.

    columns: those that the log must have, in any order; None asks for none.

    Raises RunError (one line) unless all of the rows are there and whole.
    """
    path, found = path_in(folder), rows(folder)[:iterations]
    if len(found) < iterations:
        what = f"has {len(found)} of {iterations} rows" if path.exists() else "is missing"
        raise RunError(f"{path} {what}; restore it from a copy")
    for number, row in enumerate(found, 1):
        if row["iteration"] != str(number) or None in row or None in row.values():
            raise _damaged(path, f"row {number} is not whole")
    if found and columns is not None and (changed := sorted(set(found[0]) ^ set(columns))):
        raise RunError(
            f"{path} has other columns than it was written with ({', '.join(changed)}); restore it from a copy"
        )
    return found


def append(folder: Path, row: Mapping[str, Any]) -> None:
    """Add one iteration to progress.csv. Raises RunError when the disk refuses, or when it has other columns."""
    path = folder / NAME
    try:
        new = not path.exists()
        columns = list(row) if new else _columns(path)
        if sorted(columns) != sorted(row):
            raise RunError(f"{path} has other columns than this version writes; go on in a new run")
        with open(path, "a", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
    except OSError as error:
        raise cannot_write(path, error) from error


def _columns(path: Path) -> list[str]:
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        return next(csv.reader(file), [])


def drop_rows_after(folder: Path, iteration: int) -> None:
    """Keep the first `iteration` rows, those that the checkpoint knows of, in progress.csv.

    What an editor or a spreadsheet made of the ends of lines is undone, so that the next row begins a line.

    Raises RunError (one line) unless all of these are there and whole.
    """
    path = path_in(folder)
    if iteration:
        rows_of(folder, iteration)
    if not path.exists():
        return
    if iteration == 0:
        path.unlink()  # even its header may be half written
        return
    text = uncompressed(path)
    lines = [line for line in text.splitlines() if line.strip()][: iteration + 1]
    if text != (kept := b"\n".join([*lines, b""])) or path.name == COMPRESSED:
        files.replace_file(folder / NAME, kept)


def _damaged(path: Path, why: str) -> RunError:
    return RunError(f"{path} is damaged ({why}); restore it from a copy")
