#!/usr/bin/env python3
"""Draw the states of an instance from the table in the core.

    python scripts/state_diagram.py            write docs/reference/states.md
    python scripts/state_diagram.py --check    only say whether it is what the table says

It knows Mermaid and the page; which move is allowed it reads from ``llm_router.core.instance``.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from llm_router.core.instance import COMING, FREEING, LOADING, MOVES, State

PAGE: Final = Path(__file__).parent.parent / "docs" / "reference" / "states.md"

HEAD: Final = """\
<!-- Made by python scripts/state_diagram.py; do not edit by hand. -->

# The states of an instance

Drawn from the table of moves in `core/instance.py`. A move that is not in it raises an error and changes nothing.
The states are explained in [words and states](words.md#states-of-an-instance).

"""


def page() -> str:
    """The whole page: the diagram, the table, and the groups that the rules speak of."""
    return HEAD + "\n".join((*_diagram(), "", *_table(), "", *_groups())) + "\n"


def _diagram() -> Iterator[str]:
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield f"    [*] --> {State.planned.value}"
    for state in State:
        for after in _after(state):
            yield f"    {state.value} --> {after.value}"
    yield f"    {State.gone.value} --> [*]"
    yield "```"


def _table() -> Iterator[str]:
    yield "| from | to |"
    yield "|---|---|"
    for state in State:
        yield f"| `{state.value}` | {_words(_after(state)) or 'nothing: its id is never used again'} |"


def _groups() -> Iterator[str]:
    yield f"- Coming, with room promised: {_words(_sorted(COMING))}."
    yield f"- Loading, so that nothing else starts or stops on the same devices: {_words(_sorted(LOADING))}."
    yield f"- Giving memory back, which counts as taken until that is done: {_words(_sorted(FREEING))}."
    yield f"- An engine that is taken over from an earlier router begins at `{State.starting.value}`, and is proved anew."


def _after(state: State) -> tuple[State, ...]:
    return _sorted(MOVES[state])


def _sorted(states: frozenset[State]) -> tuple[State, ...]:
    """In the order of a life, which is the order of the enumeration."""
    return tuple(state for state in State if state in states)


def _words(states: Sequence[State]) -> str:
    return ", ".join(f"`{state.value}`" for state in states)


def main(arguments: Sequence[str] | None = None) -> int:
    """Give 0, or 1 when ``--check`` finds another page than the table says."""
    parser = argparse.ArgumentParser(description="Draw the states of an instance from the table in the core.")
    parser.add_argument("--check", action="store_true", help="only compare")
    if not parser.parse_args(arguments).check:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.stderr.write(f"{PAGE} is not what the table says: python scripts/state_diagram.py writes it\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
