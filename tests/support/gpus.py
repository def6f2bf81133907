"""A machine with GPUs for a router in a process of its own: the stand-in for NVML, and the folder that it reads."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from support import stand_ins
from support.router import Json

GIB = 2**30
PLACE = Path(__file__).parents[1] / "fakes" / "gpus"


@dataclass(frozen=True)
class Machine:
    """GPUs of 24 GiB, ``GPU-a`` and so on in PCI order; the library counts them the other way round."""

    folder: Path
    cards: tuple[str, ...] = ("GPU-a", "GPU-b")

    def __post_init__(self) -> None:
        self.folder.mkdir()
        cards = [
            {"uuid": card, "bus": f"00000000:{place:02}:00.0", "name": "Card", "total": 24 * GIB}
            for place, card in enumerate(self.cards)
        ]
        (self.folder / "cards.json").write_text(json.dumps(cards[::-1]))

    @property
    def env(self) -> Mapping[str, str]:
        """What the router needs in its environment to see it."""
        path = os.pathsep.join(filter(None, (str(PLACE), os.environ.get("PYTHONPATH"))))
        return {"PYTHONPATH": path, "FAKE_GPUS": str(self.folder)}

    def backend(
        self, engine: str, *traps: str, takes: int = 16 * GIB, speed: float = stand_ins.SPEED, **env: object
    ) -> Json:
        """A stand-in that takes so many bytes of each of its GPUs."""
        return stand_ins.backend(engine, *traps, speed=speed, FAKE_GPUS=self.folder, FAKE_GPU_BYTES=takes, **env)

    def keep_memory(self, keep: bool) -> None:
        """Whether what dead processes held stays in use."""
        slow = self.folder / "slow"
        slow.touch() if keep else slow.unlink()
