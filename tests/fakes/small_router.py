"""The smallest router: starts one instance under a child supervisor, says its handle as JSON, waits to be killed.

``small_router.py STATE POLICY GRACE_S PROGRAM...``
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Literal, cast

from llm_router.core.words import InstanceId
from llm_router.engines.engine import Launch
from llm_router.host.supervisors.child import ChildSupervisor


async def main(state: str, policy: str, grace_s: str, *argv: str) -> None:
    supervisor = ChildSupervisor(Path(state), cast("Literal['die', 'keep']", policy), grace_s=float(grace_s))
    handle = await supervisor.start(InstanceId("small#1"), Launch(argv), {"model": "small"})
    said = {"instance": handle.instance, "token": handle.token, "pid": handle.pid, "log": str(handle.log)}
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    await supervisor.watch(handle)


asyncio.run(main(*sys.argv[1:]))
