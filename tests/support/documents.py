"""The project's documents as tests see them: pages, their samples, headings and links. It knows Markdown's surface only."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Sample:
    """A piece of code in a page. ``line`` is where it begins."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every document of the project, generated ones included."""
    return [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]


def samples(*languages: str) -> list[Sample]:
    """The samples in these languages, in all pages."""
    return [sample for page in pages() for sample in samples_of(page) if sample.language in languages]


def samples_of(page: Path) -> Iterator[Sample]:
    """The fenced samples of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        yield Sample(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])


def prose(page: Path) -> str:
    """The page without its samples."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """The targets of the page's links, as they are written."""
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """What a link into the page may name, by the rule of the forges: lower case, spaces to hyphens, no signs."""
    headings = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(prose(page)))
    return {heading.replace(" ", "-") for heading in headings}


def named(page: Path) -> set[str]:
    """Everything that stands in backticks in the page's prose."""
    return set(re.findall(r"`([^`\n]+)`", prose(page)))
