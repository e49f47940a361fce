"""The `trpo-lessons` command: train, resume, evaluate and watch policies from the shell, and see what a machine can do.

Exit status: 0 done; 1 the doctor found that this machine lacks something that the course needs; 2 something is wrong
with what was asked for, with the disk, or in somebody else's environment, and one line on standard error says what to
do; 3 a run has ended, and none of its updates was accepted; 4 a sweep has ended, and some of its runs have failed; 70 a
fault of this package, with its traceback; 130 stopped by Ctrl-C, SIGTERM or --stop-after. With TRPO_LESSONS_TRACEBACK=1
in the environment a line comes with its traceback.
"""

# Everything slow to import (torch above all) is imported inside the functions, so that --help answers at once.
from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from trpo_lessons.cli.subcommands import commands
from trpo_lessons.cli.telling import STOPPED

OUR_FAULT = 70  # EX_SOFTWARE of <sysexits.h>


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (default: those of this process) and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # Read once, when numpy and scipy are imported. Their products are small here; shared by all cores they wait for
    # each other, and where other runs use these cores, RWR and REPS take up to twice as long.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        status = commands.main(arguments or ["--help"], prog_name="trpo-lessons", standalone_mode=False)
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "trpo-lessons"
        return _fail(f"{error.format_message()} (See {command} --help.)")
    except (click.Abort, KeyboardInterrupt):
        click.echo("trpo-lessons: stopped; a run that had begun goes on with trpo-lessons resume", err=True)
        return STOPPED
    except OSError as error:  # what a run folder could not explain better, such as a full disk behind standard output
        _discard_output_that_is_lost()
        return _fail(f"{error.filename or 'output'}: {error.strerror or error}{_elsewhere(error, arguments)}")
    except Exception as error:
        if os.environ.get("TRPO_LESSONS_TRACEBACK") or not _is_expected(error):
            traceback.print_exc()
        if _is_expected(error):
            return _fail(str(error))
        told = "this is a fault of trpo-lessons; a run that had begun goes on with trpo-lessons resume RUN"
        click.echo(f"trpo-lessons: {told}", err=True)
        return OUR_FAULT
    return int(status or 0)


def _is_expected(error: Exception) -> bool:
    from trpo_lessons.envs import UnknownTask
    from trpo_lessons.envs.atari import WorkerError
    from trpo_lessons.envs.foreign import EnvironmentFault
    from trpo_lessons.training import RunError, SettingError

    return isinstance(error, UnknownTask | WorkerError | EnvironmentFault | RunError | SettingError)


def _fail(message: str) -> int:
    click.echo(f"trpo-lessons: {' '.join(message.split())}", err=True)
    return 2


def _elsewhere(error: OSError, arguments: Sequence[str]) -> str:
    """What to do where a path cannot be written, if the command has an option for it."""
    command = commands.commands.get(arguments[0]) if arguments else None
    chooses = command is not None and any("--out" in option.opts for option in command.params)
    return "; choose another folder with --out" if error.filename is not None and chooses else ""


def _discard_output_that_is_lost() -> None:
    # Python writes what is left in its buffers as it exits, and would fail on it again. An error that has nothing to do
    # with standard output leaves none there, and whoever called `main` goes on printing.
    try:
        if sys.stdout is not None:  # a shell can close it
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
