"""The single things that an installation does, each as a value that knows whether it is done, how, and how to undo it.

A deed is written down before it is done, so undoing one that was only half done, or not at all, is right too. This
file knows files, accounts and programs; which deeds make an installation is decided in plan.py.
"""

import grp
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import httpx2
import msgspec

from llm_router.host.install import machine
from llm_router.host.install.machine import InstallError

#: Installing packages may take this long (seconds), on a slow line.
_PACKAGES_LIMIT_S: Final = 1800.0
#: What systemctl answers for a unit that it does not know, which then need not be stopped.
_NOT_LOADED: Final = 5
#: What an operator changed since is put aside under this ending, which nobody reads.
ASIDE: Final = ".changed-by-you"


class Folder(msgspec.Struct, frozen=True, tag=True):
    """A folder with its mode and ``owner`` (``USER:GROUP``, empty: whoever runs this).

    ``whole``: what is in it later goes with it. ``was``: the mode and owner of one that was there before.
    """

    path: str
    mode: int = 0o755
    owner: str = ""
    whole: bool = False
    was: tuple[int, str] | None = None

    @property
    def key(self) -> tuple[str, str]:
        return ("folder", self.path)

    def says(self) -> str:
        owner = f", owned by {self.owner}" if self.owner else ""
        return f"make the folder {self.path} ({self.mode:o}{owner})"

    def unsays(self) -> str:
        return (
            f"remove the folder {self.path}{', with all in it' if self.whole else ''}"
            if self.was is None
            else f"give {self.path} its former mode and owner"
        )

    def done(self) -> bool:
        return Path(self.path).is_dir() and machine.stands(self.path, self.mode, self.owner)

    def found(self) -> Self:
        if not Path(self.path).exists():
            return self
        return msgspec.structs.replace(self, was=machine.mode_and_owner(self.path), whole=False)

    def do(self) -> None:
        machine.no_link(self.path)
        try:
            Path(self.path).mkdir(mode=0o700, parents=False, exist_ok=True)
        except OSError as error:
            raise InstallError(f"cannot make the folder {self.path}: {error.strerror or error}") from None
        machine.give(self.path, self.mode, self.owner)

    def undo(self) -> str | None:
        path = Path(self.path)
        if not path.is_dir() or path.is_symlink():
            return None
        if self.was is not None:
            machine.give(self.path, *self.was)
            return None
        if self.whole:
            shutil.rmtree(path)
            return None
        if any(path.iterdir()):
            return f"{path} stays: there is something in it that the installation did not make"
        path.rmdir()
        return None


class File(msgspec.Struct, frozen=True, tag=True):
    """A file with its text. ``config``: an operator's own once it is there, never replaced by another text.

    ``after`` is run when it was written or taken away. ``before`` is the text that stood there.
    """

    path: str
    text: str
    mode: int = 0o644
    owner: str = ""
    config: bool = False
    after: tuple[str, ...] = ()
    before: str | None = None
    was: tuple[int, str] | None = None

    @property
    def key(self) -> tuple[str, str]:
        return ("file", self.path)

    def says(self) -> str:
        return f"write {self.path} ({self.mode:o}{f', owned by {self.owner}' if self.owner else ''})"

    def unsays(self) -> str:
        return f"remove {self.path}" if self.was is None else f"put back {self.path} as it was"

    def done(self) -> bool:
        if not Path(self.path).is_file():
            return False
        return (self.config or machine.text_of(self.path) == self.text) and machine.stands(
            self.path, self.mode, self.owner
        )

    def found(self) -> Self:
        if not Path(self.path).is_file():
            return self
        before = None if self.config else machine.text_of(self.path)
        return msgspec.structs.replace(self, before=before, was=machine.mode_and_owner(self.path))

    def do(self) -> None:
        if not (self.config and self.was):
            machine.write(self.path, self.text, self.mode, self.owner)
        machine.give(self.path, self.mode, self.owner)
        machine.run(self.after)

    def undo(self) -> str | None:
        path, told = Path(self.path), None
        if not path.exists():
            return None
        if self.before is None and self.was is None:
            if not self.config and machine.text_of(self.path) != self.text:
                path.rename(aside := path.with_name(path.name + ASIDE))
                told = f"{path} was changed since: it is now {aside}"
            else:
                path.unlink()
        elif self.was is not None:
            if self.before is not None and machine.text_of(self.path) == self.text:
                machine.write(self.path, self.before, *self.was)
            machine.give(self.path, *self.was)
        machine.run(self.after)
        return told


class Account(msgspec.Struct, frozen=True, tag=True):
    """A plain account that nobody can log into, in those of ``groups`` that this host has."""

    name: str
    home: str
    groups: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return ("account", self.name)

    def says(self) -> str:
        groups = f", in the groups {', '.join(self._there())}" if self._there() else ""
        return f"make the account {self.name} (no login, home {self.home}{groups})"

    def unsays(self) -> str:
        return f"remove the account {self.name}"

    def done(self) -> bool:
        return machine.account_exists(self.name)

    def found(self) -> Self:
        return self

    def do(self) -> None:
        groups = ("--groups", ",".join(self._there())) if self._there() else ()
        words = ("--system", "--user-group", "--home-dir", self.home, "--no-create-home")
        machine.run(("useradd", *words, "--shell", "/usr/sbin/nologin", "--comment", "llm-router", *groups, self.name))

    def undo(self) -> str | None:
        if machine.account_exists(self.name):
            machine.run(("userdel", self.name))
        return None

    def _there(self) -> list[str]:
        known = {group.gr_name for group in grp.getgrall()}
        return [group for group in self.groups if group in known]


class Packages(msgspec.Struct, frozen=True, tag=True):
    """A virtual environment of its own with ``wanted`` in it, in the versions of ``constraints``."""

    path: str
    python: str
    wanted: str
    constraints: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return ("packages", self.path)

    def says(self) -> str:
        return f"make the virtual environment {self.path} ({self.python}) and install {self.wanted} into it"

    def unsays(self) -> str:
        return f"remove the virtual environment {self.path}"

    def done(self) -> bool:
        # The last thing that is done: an environment without it was never finished.
        return Path(self.path, "installed").is_file()

    def found(self) -> Self:
        return self

    def do(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        machine.run((self.python, "-m", "venv", self.path), "install the package python3-venv, or use --venv present")
        versions = Path(self.path, "constraints.txt")
        versions.write_text("".join(f"{line}\n" for line in self.constraints), encoding="utf-8")
        pip = (f"{self.path}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        machine.run((*pip, "--constraint", str(versions), self.wanted), "look at the network", _PACKAGES_LIMIT_S)
        Path(self.path, "installed").touch()

    def undo(self) -> str | None:
        shutil.rmtree(self.path, ignore_errors=True)
        return None


class Enabled(msgspec.Struct, frozen=True, tag=True):
    """A unit that is started with the machine, or with the session's manager."""

    systemctl: tuple[str, ...]
    unit: str

    @property
    def key(self) -> tuple[str, str]:
        return ("enabled", self.unit)

    def says(self) -> str:
        return f"have systemd start {self.unit} at each boot"

    def unsays(self) -> str:
        return f"have systemd no longer start {self.unit} at boot"

    def done(self) -> bool:
        return machine.ask((*self.systemctl, "is-enabled", "--quiet", self.unit))[0] == 0

    def found(self) -> Self:
        return self

    def do(self) -> None:
        machine.run((*self.systemctl, "enable", "--quiet", self.unit))

    def undo(self) -> str | None:
        if self.done():
            machine.run((*self.systemctl, "disable", "--quiet", self.unit))
        return None


class Running(msgspec.Struct, frozen=True, tag=True):
    """A unit that runs, newly started if anything else of the plan was done. ``slice`` holds its engines."""

    systemctl: tuple[str, ...]
    unit: str
    slice: str

    @property
    def key(self) -> tuple[str, str]:
        return ("running", self.unit)

    def says(self) -> str:
        return f"start {self.unit}"

    def unsays(self) -> str:
        return f"stop {self.unit} and the engines in {self.slice}"

    def done(self) -> bool:
        return machine.ask((*self.systemctl, "is-active", "--quiet", self.unit))[0] == 0

    def found(self) -> Self:
        return self

    def do(self) -> None:
        machine.run((*self.systemctl, "restart", self.unit))

    def undo(self) -> str | None:
        # Engines in units of their own would outlive the router; nobody would be left to stop them.
        for one in (self.unit, self.slice):
            code, said = machine.ask((*self.systemctl, "stop", one))
            if code not in (0, _NOT_LOADED):
                raise InstallError(f"cannot stop {one}: {said}")
        with suppress(InstallError):  # "not loaded" is what is wanted
            machine.run((*self.systemctl, "reset-failed", self.unit))
        return None


class Answering(msgspec.Struct, frozen=True, tag=True):
    """A router that answers at ``url`` within ``limit_s`` seconds. ``log`` is the command that shows what it said."""

    url: str
    systemctl: tuple[str, ...]
    unit: str
    log: tuple[str, ...]
    limit_s: float = 30.0

    @property
    def key(self) -> tuple[str, str]:
        return ("answering", self.url)

    def says(self) -> str:
        return f"wait until the router answers at {self.url}"

    def unsays(self) -> str:
        return "wait no longer"

    def done(self) -> bool:
        return True

    def found(self) -> Self:
        return self

    def do(self) -> None:
        end = time.monotonic() + self.limit_s
        with httpx2.Client(timeout=2.0, trust_env=False) as client:
            while time.monotonic() < end:
                with suppress(httpx2.HTTPError):
                    if client.get(f"{self.url}/health").status_code == httpx2.codes.OK and self._lives():
                        return
                if self._fell():
                    break
                time.sleep(0.1)
        _, said = machine.ask(self.log)
        raise InstallError(f"cannot use the service: {self.unit} does not answer at {self.url}. It said:\n{said}")

    def undo(self) -> str | None:
        return None

    def _fell(self) -> bool:
        """It ended, and perhaps was started again by systemd: the first start after an installation must be good."""
        _, said = machine.ask((*self.systemctl, "show", "--property=NRestarts,ActiveState,SubState", self.unit))
        return "ActiveState=failed" in said or "SubState=auto-restart" in said or "NRestarts=0" not in said

    def _lives(self) -> bool:
        return machine.ask((*self.systemctl, "is-active", "--quiet", self.unit))[0] == 0


Deed = Folder | File | Account | Packages | Enabled | Running | Answering
