"""A host as operators have it: three units with engines in them, start scripts, and TabbyAPI's own files.

Works only inside the sandbox of tests/systemd. The engines are the fakes, as real processes of real units.
"""

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from support.router import free_port

FAKES: Final = Path(__file__).parents[1] / "fakes"
TABBY_CONFIG: Final = """\
# My settings, do not lose them.
network:
  host: 127.0.0.1
  port: {port}     # the one in the firewall
model:
  # Where everything is
  model_dir: {models}

  model_name: exl3/Monstral   # the big one
sampling:
  override_preset: safe
"""


def systemctl(*words: str) -> str:
    """What systemctl says; fails as it fails."""
    done = subprocess.run(["systemctl", *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"systemctl {' '.join(words)}: {done.stderr}"
    return done.stdout.strip()


def shown(unit: str, name: str) -> str:
    """A property of a unit."""
    return systemctl("show", "--value", "-p", name, unit)


@dataclass
class Host:
    """The units, below a folder of the test's. ``speed`` and ``tokens_per_s`` count for units written from then on."""

    folder: Path
    gguf: Path
    speed: float = 100.0
    tokens_per_s: float = 1000.0
    sglang_port: int = field(default_factory=free_port)
    tabby_port: int = field(default_factory=free_port)
    llama_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        for name in ("awq-a", "awq-b"):
            (self.folder / name).mkdir(parents=True)
            self.script(f"start_{name}.sh", self.sglang(name))
        self.unit("sglang.service", self.sglang("awq-a"))
        self.tabby.mkdir()
        for name in ("Monstral", "Behemoth"):
            place = self.folder / "models" / "exl3" / name
            place.mkdir(parents=True)
            (place / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "exl3"}}))
        self.config_yml.write_text(TABBY_CONFIG.format(port=self.tabby_port, models=self.folder / "models"))
        (self.tabby / "api_tokens.yml").write_text("api_key: first-key\nadmin_key: the-admin\n")
        self.unit("tabbyapi.service", f"{sys.executable} {FAKES / 'tabbyapi.py'}", cwd=self.tabby)
        llama = f"{sys.executable} {FAKES / 'llamacpp.py'} -m {self.gguf} --alias gguf-c --port {self.llama_port}"
        self.unit("llamacpp.service", llama, extra="Restart=always\nRestartSec=100ms")

    @property
    def tabby(self) -> Path:
        return self.folder / "tabbyAPI"

    @property
    def config_yml(self) -> Path:
        return self.tabby / "config.yml"

    def sglang(self, name: str) -> str:
        words = ["serve", "--model-path", str(self.folder / name), "--served-model-name", name]
        return shlex.join([sys.executable, str(FAKES / "sglang.py"), *words, "--port", str(self.sglang_port)])

    def script(self, name: str, command: str) -> Path:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\nexec {command}\n")
        path.chmod(0o755)
        return path

    def unit(self, name: str, command: str, *, cwd: Path | None = None, extra: str = "") -> None:
        """Write a unit as an operator would, and tell systemd."""
        # Python's own path: the fakes need the project's packages.
        tests = Path(__file__).parents[1]
        text = (
            f"[Unit]\nDescription=fake {name}\n[Service]\nExecStart={command}\nWorkingDirectory={cwd or self.folder}\n"
            f"Environment=FAKE_SPEED={self.speed} FAKE_LOAD_S=0.05 FAKE_TOKEN_S=0.001 PYTHONPATH={tests}\n"
            f"Environment=FAKE_TOKENS_PER_S={self.tokens_per_s / self.speed}\n{extra}\n"
        )
        Path("/etc/systemd/system", name).write_text(text)
        systemctl("daemon-reload")

    def configuration(self, **server: object) -> dict[str, Any]:
        """What an operator writes: their units, scripts and folders."""
        return {
            "server": {"port": free_port(), "load_timeout": 30, **server},
            "scheduler": {"linger": 0.1, "quantum_min": 0.1, "backoff": 0.1},
            "backends": {
                "sglang": {"service": "sglang.service", "port": self.sglang_port},
                "tabbyapi": {"service": "tabbyapi.service", "port": self.tabby_port},
                "llamacpp": {"service": "llamacpp.service", "port": self.llama_port},
            },
            "models": {
                "awq-a": {"backend": "sglang", "script": str(self.folder / "start_awq-a.sh")},
                "awq-b": {"backend": "sglang", "script": str(self.folder / "start_awq-b.sh")},
                "monstral": {"backend": "tabbyapi", "path": "exl3/Monstral"},
                "behemoth": {"backend": "tabbyapi", "path": "exl3/Behemoth"},
                "gguf-c": {"backend": "llamacpp"},
            },
        }

    def running(self) -> set[str]:
        """The units that run now."""
        return {
            name for name in ("sglang", "tabbyapi", "llamacpp") if shown(f"{name}.service", "ActiveState") == "active"
        }

    def stop_all(self) -> None:
        """Stop the units and forget which script they had last, as after a boot."""
        units = ("sglang.service", "tabbyapi.service", "llamacpp.service")
        systemctl("stop", *units)
        for unit in units:
            shutil.rmtree(Path("/run/systemd/system", f"{unit}.d"), ignore_errors=True)
        systemctl("daemon-reload")
