"""What a command says when it cannot do what it was asked, and the exit code that goes with it.

This file knows the codes and nothing of the commands. The table in ``docs/reference/cli.md`` is made from it.
"""

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of the command line."""

    done = 0
    failed = 1
    usage = 2
    unreachable = 3
    unknown = 4
    forbidden = 5
    configuration = 6
    interrupted = 130


MEANINGS = {
    Exit.done: "done",
    Exit.failed: "it was tried and failed; the cause is on standard error",
    Exit.usage: "the command was typed wrongly",
    Exit.unreachable: "no router answers at the address",
    Exit.unknown: "there is no such model",
    Exit.forbidden: "the key is missing, or may not do this",
    Exit.configuration: "the configuration is missing or has mistakes",
    Exit.interrupted: "interrupted with Ctrl-C",
}


class CommandError(Exception):
    """A command that cannot go on. The text begins with "cannot" and names thing, cause and remedy."""

    def __init__(self, text: str, code: Exit = Exit.failed, details: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        #: Further lines for people, such as the end of an engine's log.
        self.details = details
