"""What the sources may import: torchaudio is s3prl's need alone, and nothing is for one operating system only."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("robustdistiller", "common", "acoustics", "upstream", "pretrain", "eval", "mini", "cli")
SOURCES = sorted(path for room in (*ROOMS, "research") for path in (ROOT / room).rglob("*.py"))
#: Modules that only some systems have.
UNIX_ONLY = {"fcntl", "resource", "pwd", "grp", "termios", "pty"}


def imported(path: Path) -> list[tuple[str, bool]]:
    """Top-level packages that a file imports, and whether at module level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        else:
            continue
        found += [(name.partition(".")[0], node in tree.body) for name in names]
    return found


@pytest.fixture(scope="module")
def imports() -> dict[Path, list[tuple[str, bool]]]:
    """What every source file imports."""
    return {path.relative_to(ROOT): imported(path) for path in SOURCES}


def test_only_the_bridge_knows_torchaudio(imports) -> None:
    users = {str(path) for path, found in imports.items() for name, _ in found if name == "torchaudio"}
    assert users == {"upstream/s3prl/bridge/sox_effects.py", "eval/doctor/probes.py"}, "use load_torchaudio()"


def test_what_is_installed_does_not_know_research(imports) -> None:
    assert [path for path, found in imports.items() if path.parts[0] in ROOMS and "research" in dict(found)] == []


def test_no_module_needs_one_operating_system_to_be_imported(imports) -> None:
    assert [(path, name) for path, found in imports.items() for name, top in found if top and name in UNIX_ONLY] == []


def test_the_doctor_needs_the_standard_library_only(imports) -> None:
    """When it starts; with all modules of this package that it imports."""
    seen, ahead = set(), {"eval/doctor/__main__.py"}
    while ahead:
        path = ahead.pop()
        seen.add(path)
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        names = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
        ours = {name.removeprefix("robustdistiller.") for name in names if name.startswith("robustdistiller.")}
        ahead |= {f"{name.replace('.', '/')}.py" for name in ours} - seen
        assert {name for name, top in imports[Path(path)] if top} <= {*sys.stdlib_module_names, "robustdistiller"}
    assert "common/process.py" in seen


def test_folders_import_what_the_architecture_page_lets_them() -> None:
    """`from robustdistiller import ...`, such as the version, is free to all."""
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    table = page.split("| folder | content | may import |", 1)[1].split("\n\n", 1)[0]
    allowed = {}
    for row in table.splitlines()[2:]:
        folder, _, names = (cell.strip() for cell in row.strip("|").split("|"))
        allowed[folder.strip("`/")] = set(names.split(", "))
    assert allowed.keys() >= {*ROOMS, "research"}
    wrong = []
    for path in SOURCES:
        room = path.relative_to(ROOT).parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            others = {name.split(".")[1] for name in names if name.startswith("robustdistiller.")} - {room}
            if "all" not in allowed[room] and others - allowed[room]:
                wrong.append((str(path.relative_to(ROOT)), others))
    assert wrong == []
