"""The command line as systemd wants it: an absolute program, looked at before systemd is asked to run it.

systemd tells of a failure by a number only, and only after the start; what can be seen before is told better here.
It looks at files and runs nothing.
"""

import errno
import os
import shutil
from pathlib import Path

from llm_router.core.words import InstanceId
from llm_router.engines.engine import Launch
from llm_router.host.supervisors import launching
from llm_router.host.supervisors.records import Folder
from llm_router.host.supervisors.supervisor import SupervisorError


def checked_argv(instance: InstanceId, launch: Launch, folder: Folder) -> tuple[str, ...]:
    """The command line with an absolute program. Raises ``SupervisorError`` where a guess of systemd's would be poorer."""
    directory = Path(launch.cwd or Path.cwd())
    number, step = 0, ""
    program = launch.argv[0]
    place = str(directory / program) if "/" in program else shutil.which(program, path=launch.env.get("PATH"))
    if any("\0" in word for word in launch.argv):
        number = errno.EINVAL
    elif not directory.is_dir():
        number, step = errno.ENOENT, "cwd"
    elif place is None or not Path(place).exists():
        number = errno.ENOENT
    elif not os.access(place, os.X_OK) or Path(place).is_dir():
        number = errno.EACCES
    elif not _interpreter_is_there(place):
        number = errno.ENOENT
    if number or place is None:
        why = launching.why_not(launch, launching.FirstWord(step=step, errno=number), folder)
        raise SupervisorError(f"cannot start {instance}: {why}")
    return (place, *launch.argv[1:])


def _interpreter_is_there(program: str) -> bool:
    """Whether the program that a script's first line names exists; a binary needs none that we could see."""
    with open(program, "rb") as file:  # noqa: PTH123 - two bytes decide
        first = file.readline(256)
    if not first.startswith(b"#!"):
        return True
    words = first[2:].split()
    return not words or Path(os.fsdecode(words[0])).exists()
