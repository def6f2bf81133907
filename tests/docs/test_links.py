"""Links lead somewhere, and every page can be found."""

from pathlib import Path

import pytest

from support.documents import DOCS, ROOT, anchors, links, pages

OUTSIDE = ("http://", "https://")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    for link in links(page):
        if link.startswith(OUTSIDE):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}, which is not there"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.name} links to {link}: no such heading"


def test_every_page_is_reached_from_the_index() -> None:
    seen: set[Path] = set()
    waiting = [DOCS / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        found = (link.partition("#")[0] for link in links(page) if not link.startswith(OUTSIDE))
        waiting += [(page.parent / path).resolve() for path in found if path.endswith(".md")]
    lost = {str(page.relative_to(ROOT)) for page in DOCS.rglob("*.md")} - {str(page.relative_to(ROOT)) for page in seen}
    assert not lost, "pages that nobody finds: link them from docs/README.md or a page that is linked there"


def test_the_readme_leads_to_the_documents() -> None:
    assert {"docs/README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"} <= set(links(ROOT / "README.md"))


def test_anchors_are_made_as_forges_make_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# What's `left`, and why\n\n```\n# no heading\n```\n## `llm-router config check`\n")
    assert anchors(page) == {"whats-left-and-why", "llm-router-config-check"}
