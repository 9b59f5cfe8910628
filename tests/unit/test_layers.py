"""The rules of the tree that import-linter cannot see."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src" / "headrace"
MODULES = sorted(path for path in ROOT.rglob("*.py") if "versions" not in path.parts)

ZERO_COPY = {"sendfile", "splice", "copy_file_range"}
NAMELESS = {"utils", "util", "common", "helpers", "misc", "manager"}
HTTP_AWARE = (
    "errors.py", "api/", "client/", "server/worker.py", "stores/bucket.py", "stores/http.py",
    "stores/origin.py", "stores/swift",
)  # fmt: skip
# Numbers that are hardly ever anything but a status; 200, 400, 500 and 501 are too often sizes.
STATUSES = {201, 202, 204, 206, 304, 401, 403, 404, 405, 409, 410, 413, 415, 416, 431, 499, 503}


def inside(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(), inside(path)))


def imports(path: Path) -> set[str]:
    """The dotted names a module imports."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{inside(path)} imports relatively"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def attributes(path: Path, module: str) -> set[str]:
    """What a module takes from ``module``, as ``module.name`` or by ``from module import name``."""
    found = {
        node.attr
        for node in nodes(path)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == module
    }
    prefix = f"{module}."
    return found | {name.removeprefix(prefix) for name in imports(path) if name.startswith(prefix)}


@pytest.mark.parametrize("path", MODULES, ids=inside)
def test_zero_copy_calls_are_made_in_one_module(path: Path) -> None:
    if inside(path) != "transfer/linux.py":
        assert not attributes(path, "os") & ZERO_COPY


def test_the_one_module_makes_them_all() -> None:
    assert attributes(ROOT / "transfer/linux.py", "os") >= ZERO_COPY


@pytest.mark.parametrize("path", MODULES, ids=inside)
def test_only_the_command_line_exits(path: Path) -> None:
    names = {node.id for node in nodes(path) if isinstance(node, ast.Name)}
    if inside(path) != "cli/main.py":
        assert "exit" not in attributes(path, "sys")
        assert not names & {"exit", "quit"}
    if inside(path) != "server/embedded.py":  # gunicorn's processes end by it, workers too
        assert "SystemExit" not in names


@pytest.mark.parametrize("path", MODULES, ids=inside)
def test_a_module_is_named_after_a_noun(path: Path) -> None:
    assert not NAMELESS & {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}


@pytest.mark.parametrize("path", MODULES, ids=inside)
def test_status_codes_stay_at_the_border(path: Path) -> None:
    if inside(path).startswith(HTTP_AWARE):
        return
    found = {
        node.value
        for node in nodes(path)
        if isinstance(node, ast.Constant) and type(node.value) is int
    }
    assert not found & STATUSES
    assert "http.HTTPStatus" not in imports(path)


@pytest.mark.parametrize("path", sorted((ROOT / "transfer").glob("*.py")), ids=inside)
def test_the_data_plane_needs_the_standard_library_alone(path: Path) -> None:
    ours = ("headrace.errors.", "headrace.transfer.")
    foreign = {
        name
        for name in imports(path)
        if name.partition(".")[0] not in sys.stdlib_module_names and not f"{name}.".startswith(ours)
    }
    assert not foreign
