"""What an instance of the template unit runs: it reads a job file, becomes the engine, and is gone.

Standard library only, started as ``python -I -S run_job.py FILE``. The job is JSON: ``argv`` (an absolute program
first), ``env``, ``cwd``, ``log``. When the engine cannot be run, the log says why, and the exit code is systemd's
own for that step (systemd.exec(5)).
"""

import json
import os
import sys
from typing import NoReturn

CHDIR, EXEC, STDOUT = 200, 203, 209


def main(place: str) -> NoReturn:
    with open(place, "rb") as file:  # noqa: PTH123 - without pathlib it starts twice as fast
        job = json.load(file)
    step = STDOUT
    try:
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        step = CHDIR
        os.chdir(job["cwd"])
        step = EXEC
        os.execve(job["argv"][0], job["argv"], job["env"])  # noqa: S606 - to become that program is the purpose
    except OSError as error:
        os.write(2, f"cannot run {job['argv'][0]}: {error}\n".encode())
        sys.exit(step)


if __name__ == "__main__":
    main(sys.argv[1])
