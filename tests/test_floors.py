"""The house stands on its floors: who may import whom, and what the pure floors must not touch."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "llm_router"

#: Each folder (or single file) with the floors it may import from, itself aside.
FLOORS: dict[str, frozenset[str]] = {
    "core": frozenset(),
    "formats": frozenset({"core"}),
    "engines": frozenset({"core", "formats", "wire"}),
    "wire": frozenset({"core"}),
    "config": frozenset({"core", "engines", "formats", "wire"}),
    "sim": frozenset({"core"}),
    "demo": frozenset({"core", "formats", "config"}),
    "host": frozenset({"core", "engines", "wire", "formats", "config"}),
    "doors": frozenset({"core", "engines", "wire", "formats", "config", "sim", "host", "demo", "app"}),
    "app": frozenset({"core", "engines", "wire", "formats", "config", "host", "doors", "demo"}),
}
PURE = frozenset({"core", "formats", "engines", "wire", "config", "sim"})
#: What a pure floor must not import: clocks, chance, sockets, processes, loggers, databases, event loops.
IMPURE = frozenset(
    [
        "asyncio",
        "time",
        "random",
        "secrets",
        "socket",
        "select",
        "subprocess",
        "threading",
        "multiprocessing",
        "logging",
        "sqlite3",
        "ssl",
        "os",
        "shutil",
        "signal",
        "tempfile",
        "uuid",
        "httptools",
        "uvloop",
        "uvicorn",
        "starlette",
        "httpx2",
        "psutil",
    ]
)
#: ``random`` is allowed where a seed is part of the input.
ALLOWED = {("sim", "random")}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def floor_of(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imports(tree: ast.AST) -> set[str]:
    """Every imported module by its full dotted name, typing imports and imports inside functions included."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the floor"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_imports_from_its_own_floor_or_one_below(path: Path) -> None:
    floor = floor_of(path)
    if floor in {"__init__", "__main__"}:
        return
    assert floor in FLOORS, f"{path} stands on no floor: give it one here"
    for name in imports(ast.parse(path.read_text())):
        package, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if package == "llm_router" and target and target in FLOORS:
            assert target == floor or target in FLOORS[floor], f"{floor} must not import {name}"


@pytest.mark.parametrize(
    "path", [p for p in modules() if floor_of(p) in PURE], ids=lambda path: str(path.relative_to(SOURCE))
)
def test_a_pure_floor_has_no_clock_chance_or_world(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), f"{path} is pure: no async"
    roots = {name.partition(".")[0] for name in imports(tree)}
    bad = {root for root in roots & IMPURE if (floor_of(path), root) not in ALLOWED}
    assert not bad, f"{path} is pure: it must not import {sorted(bad)}"


def test_there_are_no_import_circles() -> None:
    names = {
        ".".join(("llm_router", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in modules()
    }
    edges = {
        name: {other for other in imports(ast.parse(path.read_text())) if other in names and other != name}
        for name, path in names.items()
    }
    done: set[str] = set()

    def visit(name: str, road: tuple[str, ...]) -> None:
        assert name not in road, f"import circle: {' -> '.join((*road[road.index(name) :], name))}"
        if name in done:
            return
        for other in sorted(edges[name]):
            visit(other, (*road, name))
        done.add(name)

    for name in sorted(edges):
        visit(name, ())


def test_the_check_itself_can_fail() -> None:
    tree = ast.parse("def f():\n    from llm_router.host import conductor\n    import time")
    assert imports(tree) >= {"llm_router.host", "llm_router.host.conductor", "time"}
