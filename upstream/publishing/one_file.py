"""A module of this package, and all of ours that it imports, as the text of one file that needs none of them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

from robustdistiller import __version__

_PACKAGE = "robustdistiller"


def one_file(module: str, about: str) -> str:
    """The source of a module behind that of every module of ours that it imports, dependencies first.

    Nothing is rewritten: our own imports are left out, those of others stand on top, once.

    Args:
        module: full name of the module.
        about: the first sentence of the file.

    Raises:
        ValueError: the sources do not fit one file: two of them use a name for different things, or one imports a
            module of ours otherwise than with ``from MODULE import NAME`` at its top level.

    Example:
        >>> text = one_file("robustdistiller.common.names", "Names.")
        >>> namespace = {}
        >>> exec(text, namespace)
        >>> namespace["nearest"]("SEDE", ["seed"])
        ['seed']
    """
    imports: dict[str, str] = {}
    owners: dict[str, str] = {}
    parts: list[str] = []
    for name, source in _sources(module, {}).items():
        tree = ast.parse(source)
        left_out = [node for node in tree.body if _only_imports(node)]
        kept: list[Any] = [node for node in tree.body if node not in left_out]
        for bound, statement in _imports_of_others(left_out):
            _claim(imports, bound, statement, name)
        for defined in _defined(kept):
            _claim(owners, defined, name, name)
        late: Any = next((inner for node in kept for inner in ast.walk(node) if _is_ours(inner)), None)
        if late:
            raise ValueError(f"{name}, line {late.lineno}: imports of this package should stand at the top level")
        parts.append(_without(source, left_out, ast.get_docstring(tree)))
    if both := imports.keys() & owners.keys():
        raise ValueError(f"{', '.join(sorted(both))}: imported by one module and defined by another")
    written = f"Written by {_PACKAGE} {__version__} from its own sources, under the Apache License 2.0."
    top = sorted(imports.values(), key=lambda statement: (statement.startswith("from"), statement))
    head = [f'"""{about}\n\n{written}\n"""', "", "from __future__ import annotations", "", *top]
    return "\n\n\n".join(["\n".join(head), *parts]) + "\n"


def _sources(module: str, found: dict[str, str]) -> dict[str, str]:
    """Name to source of the modules of ours that a module needs, each behind those that it imports; itself last."""
    spec = find_spec(module)
    loader: Any = spec and spec.loader
    source = loader.get_source(module) if loader else None
    if source is None:
        raise ValueError(f"the source of {module} is not installed; expected an ordinary installation of {_PACKAGE}")
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and node.module and _is_ours(node) and node.module not in found:
            _sources(node.module, found)
    found[module] = source
    return found


def _only_imports(node: ast.stmt) -> bool:
    """Whether it imports something; what only type checkers import is not needed by anybody else."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" and not node.orelse
    return isinstance(node, ast.Import | ast.ImportFrom)


def _is_ours(node: Any) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name.partition(".")[0] == _PACKAGE for alias in node.names)
    return isinstance(node, ast.ImportFrom) and (node.level > 0 or (node.module or "").partition(".")[0] == _PACKAGE)


def _imports_of_others(nodes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Each name that the statements import, and a statement that imports it alone."""
    for node in nodes:
        if isinstance(node, ast.If) or getattr(node, "module", "") == "__future__":
            continue
        for alias in node.names:
            bound = alias.asname or alias.name
            if _is_ours(node):
                if isinstance(node, ast.Import) or alias.asname:
                    raise ValueError(f"`{ast.unparse(node)}`: expected `from MODULE import NAME`, without another name")
            else:
                yield bound, ast.unparse(type(node)(**{**vars(node), "names": [alias]}))


def _defined(nodes: Iterable[ast.stmt]) -> Iterator[str]:
    """Names that statements at the top level give to something."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        if isinstance(node, ast.If):
            yield from _defined([*node.body, *node.orelse])
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name)) if target else ()


def _claim(taken: dict[str, str], name: str, by: str, module: str) -> None:
    if taken.setdefault(name, by) != by:
        raise ValueError(f"{name} is one thing in {module} ({by}), another before it ({taken[name]}); rename one")


def _without(source: str, nodes: Iterable[ast.stmt], docstring: str | None) -> str:
    """The source without some statements, and with its docstring as a comment."""
    lines = source.splitlines()
    first = ast.parse(source).body[0]
    gone = {number for node in [*nodes, *([first] if docstring else [])] for number in _lines(node)}
    comment = [f"# {line}".rstrip() for line in (docstring or "").splitlines()]
    code = "\n".join(line for number, line in enumerate(lines, start=1) if number not in gone)
    return "\n".join([*comment, "", code.strip("\n")]).strip("\n")


def _lines(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)
