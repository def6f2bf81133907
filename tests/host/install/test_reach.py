"""Who can read what, decided from modes; and compared with what the kernel says."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_router.host.install import reach
from llm_router.host.install.reach import Who

NOBODY = Who("nobody", 65534, frozenset({65534}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that everybody can reach."""
    for part in (tmp_path, *tmp_path.parents):
        if part.stat().st_uid == os.getuid() and not part.stat().st_mode & 1:
            part.chmod(part.stat().st_mode | 0o111)
    return tmp_path


def test_each_part_of_the_way_counts(folder: Path) -> None:
    (folder / "a").mkdir()
    file = folder / "a" / "model.gguf"
    file.touch(0o644)
    assert reach.closed(file, NOBODY) is None
    (folder / "a").chmod(0o711)
    assert reach.closed(file, NOBODY) is None
    assert reach.closed(folder / "a", NOBODY) == f"{folder / 'a'} is closed to the account nobody", "it must be listed"
    (folder / "a").chmod(0o700)
    assert reach.closed(file, NOBODY) == f"{folder / 'a'} is closed to the account nobody"
    assert reach.first_closed([file, file], NOBODY) == [f"{folder / 'a'} is closed to the account nobody"]


def test_owner_group_and_others_have_each_their_own(folder: Path) -> None:
    file = folder / "f"
    file.touch()
    uid, gid = os.getuid(), os.getgid()
    file.chmod(0o040)
    assert reach.closed(file, Who("a", 4711, frozenset({gid}))) is None
    assert reach.closed(file, Who("a", 4711, frozenset())) is not None
    if uid:
        assert reach.closed(file, Who("a", uid, frozenset({gid}))) is not None, "an owner is not a member of the group"
    assert reach.closed(file, Who("root", 0, frozenset())) is None


def test_what_a_link_leads_to_counts_too(folder: Path) -> None:
    (folder / "closed").mkdir(0o700)
    (folder / "closed" / "f").touch()
    (folder / "link").symlink_to(folder / "closed" / "f")
    assert reach.closed(folder / "link", NOBODY) == f"{folder / 'closed'} is closed to the account nobody"


def test_what_is_not_there_is_not_closed(folder: Path) -> None:
    assert reach.closed(folder / "none" / "f", NOBODY) is None


def test_accounts_that_are_and_that_will_be() -> None:
    assert reach.who("root").uid == 0
    future = reach.who("no-such-account", ("root", "no-such-group"))
    assert (future.uid, future.gids) == (None, frozenset({0}))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can ask the kernel in another account's name")
@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    modes=st.lists(st.integers(0, 0o777), min_size=3, max_size=3),
    owners=st.lists(st.sampled_from([(0, 0), (0, NOBODY.uid), (NOBODY.uid, 0)]), min_size=3, max_size=3),
)
@example(modes=[0o044, 0o755, 0o755], owners=[(NOBODY.uid, NOBODY.uid), (0, 0), (0, 0)])
def test_the_kernel_says_the_same(
    modes: list[int], owners: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    top = tmp_path_factory.mktemp("top")
    for part in (top, *top.parents):
        part.chmod(part.stat().st_mode | 0o111)
    (top / "a" / "b").mkdir(parents=True)
    file = top / "a" / "b" / "f"
    file.touch()
    for path, mode, owner in zip((file, top / "a" / "b", top / "a"), modes, owners, strict=True):
        os.chown(path, *owner)
        path.chmod(mode)
    asking = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "test", "-r", str(file)]
    can = subprocess.run(asking, check=False).returncode == 0
    assert (reach.closed(file, NOBODY) is None) == can
