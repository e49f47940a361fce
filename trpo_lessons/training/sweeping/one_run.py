"""What the process of one run does: it reads a job, carries it out, and writes what became of it.

Nothing but `own_process` starts it. It ends, as by SIGTERM, when whoever started it is gone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path

from trpo_lessons.envs import UnknownTask
from trpo_lessons.envs.atari import WorkerError
from trpo_lessons.training.running.run import OTHER_BITS, resume, train
from trpo_lessons.training.running.run_errors import InUseError, RunError
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.training.settings.config import SettingError, TrainConfig
from trpo_lessons.training.sweeping.own_process import Job, Outcome
from trpo_lessons.training.sweeping.plan import Planned, refuse_another


def main() -> None:
    """Read a job from standard input and carry it out; write the outcome to standard output."""
    answer = os.dup(1)
    os.dup2(2, 1)  # what an environment prints is no answer
    job = Job(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_the_caller, daemon=True).start()
    outcome = _outcome_of(job)
    with suppress(BrokenPipeError):  # nobody is left to be told
        os.write(answer, json.dumps(dataclasses.asdict(outcome)).encode())


def _end_with_the_caller() -> None:
    """End this process as SIGTERM does when the other end of standard input is closed."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _outcome_of(job: Job) -> Outcome:
    try:
        return _train_or_resume(job)
    except InUseError as error:
        return Outcome("busy", str(error))
    except KeyboardInterrupt:
        return Outcome("stopped")
    except (RunError, SettingError, UnknownTask, WorkerError) as error:
        return Outcome("failed", " ".join(str(error).split()))
    except Exception as error:
        traceback.print_exc()
        told = " ".join(f"{type(error).__name__}: {error}".split())
        return Outcome("failed", f"this is a fault of trpo-lessons ({told}); {job.log} has its traceback")


def _train_or_resume(job: Job) -> Outcome:
    config, path = TrainConfig.from_json(dict(job.settings)), Path(job.folder)
    folder, run = RunFolder(path), None
    changes: list[str] = []
    if not folder.has_begun:
        folder.clear_false_start()
        try:
            run = train(config, path)
        except InUseError:
            raise
        except RunError:
            if not folder.has_begun:
                raise  # else another process came first, and has ended since
    if run is None:
        refuse_another(path, Planned(job.settings, config))
        run, changes = resume(path, trust_module=job.trust_module)
    if run.interrupted:
        return Outcome("stopped")
    remarks = [f"{change}; {OTHER_BITS}" for change in changes]
    if not any(int(row["accepted"]) for row in folder.rows()):
        remarks.append("none of its updates was accepted; the policy is the first one")
    return Outcome("complete", remarks=tuple(remarks))


if __name__ == "__main__":
    main()
