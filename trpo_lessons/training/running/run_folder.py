"""What a training run leaves on disk, and how to read it back.

    config.json             every setting, seed, versions, machine, threads
    progress.csv            one row an iteration
    checkpoint.safetensors  everything that the next iteration depends on (never pickle)
    events.out.tfevents.*   the same rows for TensorBoard

Recorded runs of this package have log and checkpoint compressed, as progress.csv.gz and checkpoint.safetensors.gz.

Files are written under another name and renamed, so that a run killed at any moment leaves whole files. A row is
written before its checkpoint: a row without a checkpoint, whole or half written, is dropped on resume, and its
iteration runs again to the same bits.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import math
import os
import platform
import reprlib
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from trpo_lessons import __version__
from trpo_lessons.envs import UnknownTask
from trpo_lessons.envs.finding import PREFIX, module_to_run, one_line
from trpo_lessons.training.running import checkpoint_file, files, log_file
from trpo_lessons.training.running import device as devices
from trpo_lessons.training.running.checkpoint_file import FORMAT
from trpo_lessons.training.running.run_errors import InUseError, RunError, cannot_write
from trpo_lessons.training.settings.config import SettingError, TrainConfig
from trpo_lessons.zoo_names import ZOO

_RECORDED = ZOO.resolve()
_EVENTS = "events.out.tfevents.*"
_BEGINNING = ".config.json.partial"
_PACKAGES = ("torch", "numpy", "scipy", "cma", "gymnasium", "mujoco", "ale-py")


def json_text(facts: Any) -> str:
    """Facts as JSON, indented. Numbers that are not finite, which JSON does not have, become null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(facts), indent=2, allow_nan=False)


def environment_facts(threads: int, device: str) -> dict[str, Any]:
    """Machine, versions, threads and device: what has to be equal for two runs to be equal to the bit."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "system": platform.system(),
        "python": platform.python_version(),
        "threads": threads,
        **devices.facts(device),
        "trpo-lessons": __version__,
        **{name: version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


class RunFolder:
    """Reads and writes one run folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser()

    @classmethod
    @contextmanager
    def taken(cls, path: Path, config: TrainConfig, *, numbered: bool = False) -> Iterator[RunFolder]:
        """A new run folder, `locked` meanwhile: whoever comes second is refused, at the same instant too.

        numbered: where `path` exists, take the first of path-2, path-3, ... that does not.

        Raises RunError when `path` is not empty, cannot be written, or lies in this package.
        """
        _refuse_package(path)
        try:
            folder = cls(_made(path) if numbered else path)
            folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot create {path} ({error.strerror}); choose another folder with --out") from error
        with folder.locked():
            folder._begin(config)
            yield folder

    def copied(self, path: Path) -> RunFolder:
        """A copy of this run in a new folder, to go on in; pictures and scores are left behind.

        Raises RunError when this is no usable run, or when `path` is not empty, cannot be written, or lies in this
        package.
        """
        _refuse_package(path)
        _, facts = self.load_checkpoint()
        self.rows_of(self.progress()[0], facts.get("columns"))
        # In this order: where another process trains here, the log may be ahead of the checkpoint, and never behind.
        with appearing(path.expanduser()) as copy:
            (copy / checkpoint_file.NAME).write_bytes(checkpoint_file.uncompressed(self._checkpoint))
            (copy / log_file.NAME).write_bytes(log_file.uncompressed(log_file.path_in(self.path)))
            for name in ("config.json", *(each.name for each in self.path.glob(_EVENTS))):
                shutil.copyfile(self.path / name, copy / name)
        return RunFolder(path)

    def _begin(self, config: TrainConfig) -> None:
        """Write config.json into a folder in which there is nothing. Raises RunError when there is something."""
        if self.has_begun:
            raise RunError(f"{self.path} already holds a run; resume it, or choose another folder with --out")
        # Where the file system has no locks, only one can create this file; what is there by then was there before.
        temporary = self.path / _BEGINNING
        try:
            temporary.touch(exist_ok=False)
        except FileExistsError:
            told = f"{temporary} is there: another process begins a run in this folder, or was killed when it began one"
            raise RunError(f"{told}; remove that file, or choose another folder with --out") from None
        except OSError as error:
            raise cannot_write(temporary, error) from error
        if any(other != temporary for other in self.path.iterdir()):
            temporary.unlink()
            raise RunError(f"{self.path} is not empty; choose another folder with --out")
        self.write_config(config, environment_facts(config.threads, config.device))

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Keep other processes from training in this folder. Raises InUseError when one does so already.

        Tells whether they really are kept from it: some file systems have no locks.
        """
        try:
            handle = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise RunError(f"{self.path} is not a run folder ({error.strerror})") from error
        try:
            # The system lets go of the lock when the process ends, however it ends.
            yield _lock(handle, f"another process is training in {self.path}; wait for it, or stop it first")
        finally:
            os.close(handle)

    def write_config(self, config: TrainConfig, environment: Mapping[str, Any]) -> None:
        """Write config.json: the settings, and the environment that the run was started in."""
        text = {"format": FORMAT, "settings": config.to_json(), "environment": environment}
        files.replace_file(self.path / "config.json", (json.dumps(text, indent=2) + "\n").encode())

    def config(self, trust_module: str | None = None) -> tuple[TrainConfig, dict[str, Any]]:
        """The run's settings and the environment it was started in.

        trust_module: a module that may be run for it. A folder can come from anybody, and its task can name a module:
            that runs only if it is this one, or if this process has imported it already.

        Raises RunError (one line) when there is no usable run, or when it needs a module that is not trusted.
        """
        path = self.path / "config.json"
        try:
            text = _object(json.loads(path.read_text(encoding="utf-8-sig")), "the whole")
            if text["format"] != FORMAT:
                written = reprlib.repr(text["format"]).strip("'")
                raise RunError(f"{path} was written by another version ({written}); this one reads {FORMAT}")
            settings, environment = (_object(text[name], name) for name in ("settings", "environment"))
            if not isinstance(environment.get("changes", []), list):
                raise TypeError("the changes of its environment are no list")
            self._refuse_unknown_module(str(settings["task"]), trust_module)
            return TrainConfig.from_json(settings), environment
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(f"{self.path} is not a run folder (no config.json); name one that train has made") from None
        except (SettingError, UnknownTask) as error:
            # A Gymnasium environment is known where it is registered, whatever the version.
            theirs = isinstance(error, UnknownTask) and text["settings"]["task"].startswith(PREFIX)
            raise RunError(
                f"{path}: {one_line(error)}" + ("" if theirs else " (was it written by another version?)")
            ) from error
        except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:  # ValueError: no JSON, or no text
            raise RunError(f"{path} is damaged ({one_line(error)}); restore it or start a new run") from error

    def _refuse_unknown_module(self, task: str, trusted: str | None) -> None:
        module = module_to_run(task)
        if module and module != trusted:
            raise RunError(
                f"{self.path} would run the Python module {module!r}, which its config.json names; if you trust that "
                f'module, add {trust_option(task)} (trust_module="{module}" in Python)'
            )

    @property
    def is_recorded(self) -> bool:
        """Whether it is part of this package, which nothing but `bench.record` writes."""
        return is_recorded(self.path)

    @property
    def has_begun(self) -> bool:
        """Whether there is a run to go on with."""
        return (self.path / "config.json").exists()

    def clear_false_start(self) -> None:
        """Remove what `taken` leaves when it is killed before config.json is whole. Raises InUseError.

        Where the file system has no locks it may be another process's beginning, and is left.
        """
        if self.path.exists():
            with self.locked() as sure:
                if sure and not self.has_begun:
                    (self.path / _BEGINNING).unlink(missing_ok=True)

    def progress(self) -> tuple[int, int]:
        """How many iterations and simulator steps have a checkpoint; read at once, without its tensors.

        Raises RunError (one line) when the checkpoint is damaged or lost.
        """
        path = self._checkpoint
        if not self.has_checkpoint:
            return 0, 0
        try:
            facts = checkpoint_file.facts_of(path)
            return int(facts["iteration"]), int(facts["total_steps"])
        except checkpoint_file.DAMAGE as error:
            raise RunError(f"{path} is damaged ({one_line(error)}); restore it from a copy or start anew") from error

    @property
    def _checkpoint(self) -> Path:
        return checkpoint_file.path_in(self.path)

    @property
    def has_checkpoint(self) -> bool:
        """Whether an iteration has ever been completed. Raises RunError when the checkpoint of one is lost."""
        if self._checkpoint.exists():
            return True
        # A row is written before its checkpoint, so that the first one may stand alone. A second one cannot.
        if (count := len(self.rows())) > 1 and not self._checkpoint.exists():
            raise RunError(f"{self._checkpoint} is missing, and the log has {count} rows; restore it from a copy")
        return False

    def compressed_checkpoint(self) -> bytes:
        """The file of the last checkpoint, compressed: the same bytes from the same checkpoint."""
        return files.compressed(checkpoint_file.uncompressed(self._checkpoint))

    def save_checkpoint(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Replace the checkpoint. Raises RunError when the disk refuses; the previous checkpoint then still stands."""
        files.replace_file(self.path / checkpoint_file.NAME, checkpoint_file.as_bytes(tensors, facts))

    def load_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and facts of the last checkpoint. Raises RunError when it is missing, damaged or foreign."""
        path = self._checkpoint
        if not self.has_checkpoint:
            raise RunError(f"{self.path} has no checkpoint yet: its first iteration has not ended; resume it")
        try:
            return checkpoint_file.contents(path)
        except checkpoint_file.ForeignError as error:
            raise RunError(f"{path} is not a checkpoint of this package (format: {error})") from error
        except checkpoint_file.DAMAGE as error:
            raise RunError(f"{path} is damaged ({error}); restore it from a copy or start a new run") from error

    def append_row(self, row: Mapping[str, Any]) -> None:
        """Add one iteration to the log; see `log_file.append`."""
        log_file.append(self.path, row)

    def rows(self) -> list[dict[str, str]]:
        """The rows of the log, oldest first; see `log_file.rows`."""
        return log_file.rows(self.path)

    def rows_of(self, iterations: int, columns: Iterable[str] | None = None) -> list[dict[str, str]]:
        """The rows of the first `iterations`, all of them whole; see `log_file.rows_of`."""
        return log_file.rows_of(self.path, iterations, columns)

    def drop_rows_after(self, iteration: int) -> None:
        """Keep the first `iteration` rows, those that the checkpoint knows of; see `log_file.drop_rows_after`."""
        log_file.drop_rows_after(self.path, iteration)


def refuse_taken(path: Path) -> None:
    """Raises RunError when something lies at `path`, other than an empty folder."""
    if any(path.iterdir()) if path.is_dir() else path.exists():
        raise RunError(f"{path} is there already: remove it first, or choose another folder with --out")


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A folder to be filled, which comes to be at `path` whole, in the end, or not at all.

    Raises RunError when `path` is there and not empty, now or by then, or cannot be written.
    """
    refuse_taken(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        being_made = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise RunError(f"cannot create {path} ({error.strerror}); choose another folder with --out") from error
    try:
        being_made.chmod(0o755)
        yield being_made
        os.rename(being_made, path)  # refused where something has come to be meanwhile
    except OSError as error:
        refuse_taken(path)
        raise RunError(f"cannot make {path} ({error.filename or path}: {error.strerror})") from error
    finally:
        shutil.rmtree(being_made, ignore_errors=True)


def is_recorded(path: Path) -> bool:
    """Whether a folder lies among the recorded runs of this package."""
    return _RECORDED in (resolved := path.expanduser().resolve()).parents or resolved == _RECORDED


def _refuse_package(path: Path) -> None:
    if is_recorded(path):
        raise RunError(f"{path} is part of this package; choose another folder with --out")


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{what} must be an object of JSON, not {type(value).__name__}")
    return value


def trust_option(task: str) -> str:
    """The option of the command that a run of this task needs in a new process; empty for most."""
    module = task.removeprefix(PREFIX).rpartition(":")[0] if task.startswith(PREFIX) else ""
    return f"--trust-module {shlex.quote(module)}" if module else ""


def _made(path: Path) -> Path:
    """A new folder: `path`, or the first of path-2, path-3, ... that does not exist. Making it takes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            candidate.mkdir()
        except FileExistsError:
            continue
        return candidate
    raise AssertionError("numbers do not end")


def _lock(handle: int, otherwise: str) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUseError(otherwise) from None
    except OSError:
        return False  # some network file systems have no locks; then it is the user who has to take care
    return True
