"""A real systemd for tests, on a machine whose first process is something else.

    python systemd_sandbox.py [--way system|user|template] COMMAND...

Boots the installed ``systemd --system`` as process 1 of namespaces of its own (processes, mounts, host name, IPC,
control groups), with a message bus and a journal and nothing else, and runs COMMAND there. The way
"user" runs it as a plain account beside that account's user manager, "template" as a plain account that polkit lets
start instances of the project's installed template. The exit status is COMMAND's; 125 means that no systemd could be
booted, and the last line of stderr says why.

The file system is the machine's, but /etc, /var, /dev and /root are copies on write, /run is empty at first, and the
settings of the kernel are read-only: what happens inside leaves nothing outside. The network is the machine's, so
that engines are reached on loopback. All processes end with this one, even when that is killed.

Needs root with CAP_SYS_ADMIN, systemd, dbus, util-linux, and a kernel with overlayfs and cgroup v2.
"""

import argparse
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

#: Set inside, so that a test knows that it may do as it likes with units.
INSIDE: Final = "LLM_ROUTER_SYSTEMD_SANDBOX"
NO_SANDBOX: Final = 125
#: The plain account inside, and its home, which is the state folder that the template is made for.
ACCOUNT: Final = "llm-router-test"
UID: Final = 4711
HOME: Final = "/var/lib/llm-router-test"
BOOT_LIMIT_S: Final = 30.0

# linux/sched.h, linux/prctl.h
_NEW_MOUNTS, _NEW_CGROUPS, _NEW_NAME, _NEW_IPC, _NEW_PIDS = 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x20000000
_PR_SET_PDEATHSIG = 1

_UNITS: Final = Path("/usr/lib/systemd/system")
#: What the distribution starts early acts on the machine itself (devices, kernel settings, mounts): hidden.
_EARLY: Final = ("sysinit", "local-fs", "basic", "sockets", "timers", "paths", "slices", "multi-user")
_HIDDEN: Final = (
    *(_UNITS / f"{name}.target.wants" for name in _EARLY),
    Path("/usr/lib/systemd/system-generators"),
    Path("/etc/systemd/system-generators"),
    Path("/etc/systemd/system"),
)
_MASKED: Final = ("systemd-remount-fs.service", "systemd-journald-audit.socket", "systemd-update-utmp.service")
_FILES: Final = {
    "/etc/systemd/system/sandbox.target": (
        "[Unit]\nRequires=basic.target dbus.service systemd-journald.service\n"
        "After=basic.target dbus.service systemd-journald.service\nAllowIsolate=yes\n"
    ),
    # The kernel's log and audit belong to the machine.
    "/run/systemd/journald.conf.d/sandbox.conf": (
        "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nRateLimitIntervalSec=0\n"
    ),
    "/etc/fstab": "",
}


class NoSandboxError(Exception):
    """It cannot be booted here; the text says why."""


def why_not() -> str | None:
    """What is missing here for a sandbox, ``None`` if nothing is known to be."""
    if os.geteuid() != 0:
        return "booting a systemd needs root"
    for program in ("/usr/lib/systemd/systemd", "mount", "nsenter", "systemd-run", "busctl", "dbus-daemon"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    known = Path("/proc/filesystems").read_text().split()
    return next((f"the kernel has no {need}" for need in ("cgroup2", "overlay") if need not in known), None)


@contextmanager
def booted() -> Iterator["Sandbox"]:
    """A systemd that answers. Raises ``NoSandboxError``."""
    reason = why_not()
    if reason:
        raise NoSandboxError(reason)
    for stale in Path(tempfile.gettempdir()).glob("systemd-sandbox-*-*"):
        if not Path("/proc", stale.name.split("-")[2]).exists():
            with _ignoring(OSError):  # what is not empty is not ours
                stale.rmdir()
    with tempfile.TemporaryDirectory(prefix=f"systemd-sandbox-{os.getpid()}-") as folder:
        sandbox = Sandbox(Path(folder))
        try:
            sandbox.boot()
            yield sandbox
        finally:
            sandbox.end()


class Sandbox:
    """One booted systemd. ``folder`` holds what must be outside of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._boot_id = str(uuid.uuid4())
        self._log = folder / "boot.log"
        self._group: Path | None = None
        self._holder: subprocess.Popen[bytes] | None = None
        self._init = 0

    def boot(self) -> None:
        """Return when systemd answers on the bus. Raises ``NoSandboxError``."""
        # Our own mounts are in a namespace of our own: however we end, the kernel takes them away.
        _unshare(_NEW_MOUNTS)
        _run("mount", "--make-rprivate", "/")
        _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(self._folder))
        self._log.touch()
        (self._folder / "boot_id").write_text(f"{self._boot_id}\n")
        self._make_group()
        assert self._group is not None
        with self._log.open("ab") as log:
            self._holder = subprocess.Popen(
                [sys.executable, "-I", __file__, "--hold", str(self._folder), str(self._group)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - nobody has threads here
            )
        assert self._holder.stdout is not None
        first = self._holder.stdout.readline()
        if not first:
            raise NoSandboxError(f"its first process ended at once: {self._said()}")
        self._init = int(first)
        # systemd finds only its own in its group; who holds the namespaces has no number there.
        (self._group.parent / "cgroup.procs").write_text(str(self._holder.pid))
        self._wait_for_the_bus()

    def run(self, words: list[str], way: str = "system") -> int:
        """Run ``words`` inside, with the caller's streams and working directory; gives their exit code."""
        variables = {INSIDE: way, "PATH": os.environ.get("PATH", os.defpath), "PYTHONDONTWRITEBYTECODE": "1"}
        account: tuple[str, ...] = ()
        if way != "system":
            self._prepare(way)
            account = (f"--uid={ACCOUNT}",)
            variables |= {"HOME": HOME, "XDG_RUNTIME_DIR": f"/run/user/{UID}"}
        # As a scope, whose process is ours: one that systemd starts would end for us with the message bus.
        command = [
            *self._enter(),
            *("systemd-run", "--quiet", "--scope", "--collect", "--unit=test", *account, "--"),
            *("env", *(f"{name}={value}" for name, value in variables.items())),
            *("sh", "-c", 'cd "$0" && exec "$@"', str(Path.cwd()), *words),
        ]
        return subprocess.run(command, check=False).returncode

    def _prepare(self, way: str) -> None:
        """An account of its own and, as the way needs it, its user manager or the template with its rule."""
        self._inside("useradd", "--uid", str(UID), "--home-dir", HOME, "--create-home", ACCOUNT)
        if way == "user":
            self._inside("systemctl", "start", f"user@{UID}.service")
            return
        from llm_router.host.supervisors import packaging

        state = Path(HOME)
        for place, text in (
            (packaging.TEMPLATE_PLACE, packaging.template(ACCOUNT, state)),
            (packaging.RULE_PLACE, packaging.rule(ACCOUNT)),
        ):
            self._inside("mkdir", "-p", str(place.parent))
            self._inside("tee", str(place), text=text)
        self._inside("systemctl", "daemon-reload")

    def _inside(self, *words: str, text: str = "") -> None:
        done = subprocess.run([*self._enter(), *words], check=False, input=text, capture_output=True, text=True)
        if done.returncode:
            raise NoSandboxError(f"`{' '.join(words)}` failed inside: {done.stderr.strip()}")

    def end(self) -> None:
        """The death of process 1 is that of everything inside."""
        if self._init:
            with _ignoring(ProcessLookupError):
                os.kill(self._init, signal.SIGKILL)
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait()
        if self._group is not None:
            _remove(self._group)
        for place in ("/tmp", "/var/tmp"):
            for left in Path(place).glob(f"systemd-private-{self._boot_id.replace('-', '')}*"):
                shutil.rmtree(left, ignore_errors=True)
        subprocess.run(["umount", "--recursive", "--lazy", str(self._folder)], check=False, capture_output=True)

    def _make_group(self) -> None:
        """A control group below ours becomes the root of systemd's tree."""
        mounted = self._folder / "cgroup"
        mounted.mkdir()
        _run("mount", "-t", "cgroup2", "cgroup2", str(mounted))
        own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
        group = mounted / own.strip("/") / f"systemd-sandbox-{os.getpid()}"
        for stale in group.parent.glob("systemd-sandbox-*"):
            # The kernel ended what was in it when its owner was killed, but only its owner would have removed it.
            if not Path("/proc", stale.name.rpartition("-")[2]).exists():
                _remove(stale)
        try:
            group.mkdir()
        except OSError as error:
            raise NoSandboxError(f"cannot make a control group: {error.strerror}") from None
        self._group = group

    def _wait_for_the_bus(self) -> None:
        assert self._holder is not None
        end = time.monotonic() + BOOT_LIMIT_S
        asking = [*self._enter(), "busctl", "--quiet", "status", "org.freedesktop.systemd1"]
        while subprocess.run(asking, check=False, capture_output=True).returncode:
            if self._holder.poll() is not None:
                raise NoSandboxError(f"systemd ended at once: {self._said()}")
            if time.monotonic() > end:
                raise NoSandboxError(f"systemd did not answer for {BOOT_LIMIT_S:.0f} s: {self._said()}")
            time.sleep(0.02)

    def _enter(self) -> list[str]:
        return ["nsenter", "--target", str(self._init), "--mount", "--pid", "--uts", "--ipc", "--cgroup"]

    def _said(self) -> str:
        return self._log.read_text(errors="replace").replace("\0", "").strip()[-2000:] or "(it said nothing)"


# -- the process that holds the namespaces, and process 1


def hold(folder: Path, group: Path) -> NoReturn:
    """Make the namespaces and stay with them; says the number of process 1, as seen from outside."""
    (group / "cgroup.procs").write_text("0")
    _unshare(_NEW_MOUNTS | _NEW_CGROUPS | _NEW_NAME | _NEW_IPC | _NEW_PIDS)
    pid = os.fork()
    if pid == 0:
        _die_with_parent()
        become_systemd(folder)
    print(pid, flush=True)
    os.waitpid(pid, 0)
    sys.exit(1)


def become_systemd(folder: Path) -> NoReturn:
    """As process 1: change what must not be the machine's, then be systemd."""
    _run("mount", "--make-rprivate", "/")
    _run("mount", "-t", "proc", "proc", "/proc")
    _run("mount", "--bind", "/proc/sys", "/proc/sys")
    _run("mount", "-o", "remount,bind,ro", "/proc/sys")
    _run("mount", "--bind", str(folder / "boot_id"), "/proc/sys/kernel/random/boot_id")
    if os.path.ismount("/sys/fs/cgroup"):
        _run("umount", "--recursive", "/sys/fs/cgroup")
    _run("mount", "-o", "remount,bind,ro", "/sys")
    _run("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    for place in ("/etc", "/var", "/dev", "/root"):
        _copy_on_write(place, folder)
    # Python itself may live there, and plain accounts must be able to run it.
    Path("/root").chmod(0o711)
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    Path("/run/lock").mkdir()
    for hidden in filter(Path.is_dir, _HIDDEN):
        _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(hidden))
    for name, text in _FILES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    for unit in _MASKED:
        Path("/etc/systemd/system", unit).symlink_to("/dev/null")
    # Its first messages go to the kernel's log, which is the machine's.
    _run("mount", "--bind", str(folder / "boot.log"), "/dev/kmsg")
    os.execve(
        "/usr/lib/systemd/systemd",
        ["systemd", "--system", "--unit=sandbox.target", "--show-status=no", "--log-target=journal-or-kmsg"],
        {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "container": "llm-router-test"},
    )


def _copy_on_write(place: str, folder: Path) -> None:
    """Writes to ``place`` stay in ``folder``. What is mounted below it (terminals, for one) stays mounted."""
    base = folder / "copies" / place.strip("/")
    below = {point for line in Path("/proc/self/mountinfo").read_text().splitlines() if (point := line.split()[4])}
    kept = sorted(point for point in below if point.startswith(f"{place}/"))
    for name in ("upper", "work", "kept"):
        (base / name).mkdir(parents=True)
    for number, point in enumerate(kept):
        spot = base / "kept" / str(number)
        spot.mkdir() if Path(point).is_dir() else spot.touch()
        _run("mount", "--bind", point, str(spot))
    layers = f"lowerdir={place},upperdir={base}/upper,workdir={base}/work"
    _run("mount", "-t", "overlay", "overlay", "-o", layers, place)
    for number, point in enumerate(kept):
        if Path(point).exists():
            _run("mount", "--bind", str(base / "kept" / str(number)), point)


# -- small things


@contextmanager
def _ignoring(kind: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kind:
        return


def _unshare(flags: int) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(flags):
        raise NoSandboxError(f"no namespaces of our own: {os.strerror(ctypes.get_errno())} (is CAP_SYS_ADMIN there?)")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _run(*words: str) -> None:
    done = subprocess.run(words, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise NoSandboxError(f"`{' '.join(words)}` failed: {(done.stderr + done.stdout).strip()}")


def _remove(group: Path, limit_s: float = 10.0) -> None:
    """Remove a control group with all below it, once the last of its processes is gone."""
    end = time.monotonic() + limit_s
    while group.exists():
        try:
            (group / "cgroup.kill").write_text("1")
            for inner, _, _ in os.walk(group, topdown=False):
                Path(inner).rmdir()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", default="system", choices=["system", "user", "template"])
    parser.add_argument("--hold", nargs=2, metavar=("FOLDER", "GROUP"), help=argparse.SUPPRESS)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    try:
        if given.hold:
            hold(Path(given.hold[0]), Path(given.hold[1]))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        with booted() as sandbox:
            return sandbox.run(given.command, given.way)
    except NoSandboxError as error:
        print(f"cannot boot a systemd here: {error}", file=sys.stderr)
        return NO_SANDBOX


if __name__ == "__main__":
    sys.exit(main())
