"""Processes that play games, because the emulator holds the interpreter lock: in threads it is no faster than in one.

Arrays lie in memory that all of them share; an order is one byte over a socket, and so is its answer. An order that was
given while another is still being carried out, after a keyboard interrupt for example, waits for that one's answer
first, so nothing is ever taken for the answer to something else.

A worker ends when the other end of its socket is closed, which the system does however this process ends.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpo_lessons.envs.atari.console import EMULATOR_BYTES, Console
from trpo_lessons.envs.atari.settings import FRAME_SKIP, SCREEN_HEIGHT, SCREEN_WIDTH, STACK, AtariSettings
from trpo_lessons.envs.base import Rows

LOAD, RESET, STEP, SAVE, RESTORE, PICTURE = b"L", b"R", b"S", b"V", b"B", b"P"
DONE, FAILED = b".", b"!"
MESSAGE_BYTES = 1000
SECONDS_TO_END = 5.0  # after which a worker that does not end by itself is ended


class WorkerError(RuntimeError):
    """A worker process failed or is gone; the message is one line that says why."""


@dataclass(frozen=True)
class Field:
    """One of the shared arrays: what each game has in it, and of which type."""

    shape: tuple[int, ...]
    dtype: type


def fields(settings: AtariSettings) -> dict[str, Field]:
    """The shared arrays, each with leading axis E; `chosen` says which games an order is for."""
    screen = (SCREEN_HEIGHT, SCREEN_WIDTH)
    return {
        "frames": Field((STACK, settings.height, settings.width), np.uint8),
        "screen": Field(screen, np.uint8),
        "emulator": Field((EMULATOR_BYTES,), np.uint8),
        "pictures": Field((*screen, 3), np.uint8),  # takes no memory until it is first written
        "lives": Field((), np.int64),
        "rewards": Field((), np.float64),
        "game_over": Field((), np.bool_),
        "actions": Field((FRAME_SKIP,), np.int64),
        "no_ops": Field((), np.int64),
        "chosen": Field((), np.bool_),
        "message": Field((MESSAGE_BYTES,), np.uint8),
    }


class SharedArrays:
    """Arrays [E, ...] in a nameless file, so that nothing is left behind however the processes end."""

    def __init__(self, num_envs: int, fields: Mapping[str, Field], file: int | None = None) -> None:
        """`file` is the descriptor of the memory that another process made; None makes it."""
        sizes = {name: num_envs * prod(f.shape) * np.dtype(f.dtype).itemsize for name, f in fields.items()}
        offsets = np.cumsum([0] + [-(-size // 64) * 64 for size in sizes.values()]).tolist()
        self.file = _nameless_file(offsets[-1]) if file is None else file
        self._memory = mmap.mmap(self.file, offsets[-1])
        self.arrays: dict[str, NDArray[Any]] = {
            name: np.ndarray((num_envs, *field.shape), field.dtype, self._memory, offset)
            for (name, field), offset in zip(fields.items(), offsets, strict=False)
        }


def _nameless_file(size: int) -> int:
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("trpo_lessons")
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    os.ftruncate(file, size)
    return file


class Workers:
    """Processes that each play some of `num_envs` games, as their owner orders."""

    def __init__(self, game: str, rom: Path, settings: AtariSettings, num_envs: int, num_workers: int) -> None:
        self._game = game
        shared = SharedArrays(num_envs, fields(settings))
        self.arrays = shared.arrays
        parts = [rows.tolist() for rows in np.array_split(np.arange(num_envs), num_workers)]
        try:
            self._workers = [_start(rom, settings, num_envs, rows, shared.file) for rows in parts]
        finally:
            os.close(shared.file)
        self._owing: list[_Worker] = []  # workers that have not answered yet

    @property
    def process_ids(self) -> list[int]:
        """Of the workers, as the system knows them."""
        return [worker.process.pid for worker in self._workers]

    def order(self, order: bytes, rows: Rows | None = None) -> None:
        """Have an order carried out for these games, or for all, and wait until it is done. Raises WorkerError."""
        self.settle()
        self.arrays["chosen"][:] = rows is None
        if rows is not None:
            self.arrays["chosen"][np.asarray(rows, dtype=np.intp)] = True
        for worker in self._workers:
            if self.arrays["chosen"][worker.rows].any():
                self._owing.append(worker)
                worker.send(order)
        self.settle()

    def settle(self) -> None:
        """Wait until nobody writes into the arrays, if an order was interrupted. Raises WorkerError if it failed."""
        problems = []
        while self._owing:
            answer = self._owing[0].answer()
            worker = self._owing.pop(0)
            if answer == FAILED:
                problems.append(bytes(self.arrays["message"][worker.rows[0]]).rstrip(b"\0").decode(errors="replace"))
            elif answer != DONE:
                problems.append(worker.how_it_ended())
        if problems:
            raise WorkerError(f"{self._game} cannot go on: {problems[0]}")

    def close(self) -> None:
        """End the processes, if they have not ended."""
        for worker in self._workers:
            worker.socket.close()
        for worker in self._workers:
            worker.end()


@dataclass
class _Worker:
    rows: list[int]
    process: subprocess.Popen[bytes]
    socket: socket.socket

    def send(self, order: bytes) -> None:
        try:
            self.socket.send(order)
        except OSError:
            return  # it is gone, which is noticed when it does not answer

    def answer(self) -> bytes:
        try:
            return self.socket.recv(1)
        except ConnectionError:
            return b""

    def how_it_ended(self) -> str:
        self.end()
        return f"its worker process {self.process.pid} ended with status {self.process.returncode}"

    def end(self) -> None:
        try:
            self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _start(rom: Path, settings: AtariSettings, num_envs: int, rows: list[int], memory: int) -> _Worker:
    ours, theirs = socket.socketpair()
    with theirs:
        files = (theirs.fileno(), memory)
        task = {"rom": str(rom), "settings": asdict(settings), "num_envs": num_envs, "rows": rows}
        # A new interpreter that imports this module from where it was imported here. Neither a fork, which is unsafe
        # next to the threads of torch and MuJoCo, nor multiprocessing, which would run the user's script once more.
        program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import play; play(sys.argv)"
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, files), json.dumps(task)],
            stdin=subprocess.DEVNULL,
            pass_fds=files,
            process_group=0,  # so that Ctrl-C in a terminal is for the owner alone
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
    return _Worker(rows, process, ours)


# What runs in a worker process.


def play(arguments: Sequence[str]) -> None:
    """The whole life of a worker process: carry out orders until the other end of the socket is closed."""
    orders, memory, task = socket.socket(fileno=int(arguments[1])), int(arguments[2]), json.loads(arguments[3])
    settings = AtariSettings(**task["settings"])
    arrays = SharedArrays(task["num_envs"], fields(settings), memory).arrays
    player = Player(Path(task["rom"]), settings, arrays, task["rows"])
    try:
        while order := orders.recv(1):
            orders.send(player.carry_out(order))
    except ConnectionError:
        return


class Player:
    """Carries out orders for some of the games."""

    def __init__(
        self, rom: Path, settings: AtariSettings, arrays: Mapping[str, NDArray[Any]], rows: Sequence[int]
    ) -> None:
        self._arrays = arrays
        self._rows = rows
        self._consoles = {
            row: Console(rom, settings, arrays["frames"][row], arrays["screen"][row], arrays["emulator"][row])
            for row in rows
        }
        self._orders: dict[bytes, Callable[[int, Console], None]] = {
            LOAD: lambda _row, console: console.load(),
            RESET: self._reset,
            STEP: self._step,
            SAVE: lambda _row, console: console.save(),
            RESTORE: lambda _row, console: console.restore(),
            PICTURE: self._show,
        }

    def carry_out(self, order: bytes) -> bytes:
        """The order, for the chosen games; the answer. What went wrong is left where the owner finds it."""
        try:
            for row in self._rows:
                if self._arrays["chosen"][row]:
                    self._orders[order](row, self._consoles[row])
        except Exception as problem:
            text = " ".join(f"{type(problem).__name__}: {problem}".split()).encode()[:MESSAGE_BYTES]
            self._arrays["message"][self._rows[0]] = np.frombuffer(text.ljust(MESSAGE_BYTES, b"\0"), dtype=np.uint8)
            return FAILED
        return DONE

    def _reset(self, row: int, console: Console) -> None:
        console.reset(int(self._arrays["no_ops"][row]))
        self._arrays["lives"][row] = console.lives

    def _step(self, row: int, console: Console) -> None:
        self._arrays["rewards"][row], self._arrays["game_over"][row] = console.step(
            self._arrays["actions"][row].tolist()
        )
        self._arrays["lives"][row] = console.lives

    def _show(self, row: int, console: Console) -> None:
        self._arrays["pictures"][row] = console.picture()
