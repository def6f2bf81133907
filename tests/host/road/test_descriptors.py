"""The limit of open files, in processes of their own: it cannot be raised again once it was lowered for good."""

import subprocess
import sys

import pytest

from llm_router.host.road import descriptors

PROGRAM = """
import resource, sys
from llm_router.host.road import descriptors
soft, hard = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(descriptors.allow_many(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("soft", "hard", "then"), [(64, 200, 200), (200, 200, 200)])
def test_the_soft_limit_becomes_the_hard_one(soft: int, hard: int, then: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(soft), str(hard)], capture_output=True, text=True, check=True, timeout=30
    )
    assert [int(word) for word in done.stdout.split()] == [then, then, hard]


@pytest.mark.parametrize(("limit", "most", "then"), [(65_536, 4096, 4096), (1024, 4096, 448), (70, 4096, 16)])
def test_clients_leave_the_router_its_own_descriptors(limit: int, most: int, then: int) -> None:
    assert descriptors.connections(limit, most) == then
