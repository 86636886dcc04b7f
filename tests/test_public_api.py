"""The public names and their signatures are those of `public_api.txt`; nothing changes unnoticed.

After a change that is wanted, write the file anew, and read its difference: `python tests/test_public_api.py`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

FILE = Path(__file__).with_name("public_api.txt")
PACKAGES = [
    "robustdistiller",
    *(f"robustdistiller.{room}" for room in ("acoustics", "mini", "pretrain", "upstream")),
    *(f"robustdistiller.eval.{room}" for room in ("cost", "report", "sweep", "tasks")),
]


class _Plain:
    """Is shown as its text, without quotes."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _signature(function: object) -> str:
    """As it is written, whether or not annotations are evaluated; functions as defaults have no address."""
    signature, empty = inspect.signature(function), inspect.Signature.empty

    def plain(annotation: object) -> object:
        written = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        return empty if annotation is empty else _Plain(written)

    parameters = []
    for parameter in signature.parameters.values():
        if parameter.default is not empty and inspect.isfunction(parameter.default):
            parameter = parameter.replace(default=_Plain("..."))
        parameters.append(parameter.replace(annotation=plain(parameter.annotation)))
    return str(signature.replace(parameters=parameters, return_annotation=plain(signature.return_annotation)))


def _described(name: str, public: object) -> Iterator[str]:
    if not inspect.isclass(public):
        yield name + (_signature(public) if callable(public) else f": {type(public).__name__}")
        return
    if issubclass(public, Exception):
        yield f"{name}({public.__mro__[1].__name__})"
        return
    yield f"{name}{_signature(public)}"
    for method, value in vars(public).items():
        if method.startswith("_"):
            continue
        function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        if inspect.isfunction(function):
            yield f"    .{method}{_signature(function)}"
        elif isinstance(value, property):
            yield f"    .{method}"


def public_api() -> str:
    """Every public name, a line each, and the public methods of classes below it."""
    lines = []
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in sorted(module.__all__):
            lines += _described(f"{package}.{name}", getattr(module, name))
    return "\n".join(lines) + "\n"


def test_the_public_api_is_the_reviewed_one() -> None:
    reviewed = FILE.read_text(encoding="utf-8")
    changes = "\n".join(difflib.unified_diff(reviewed.splitlines(), public_api().splitlines(), "reviewed", "now", n=0))
    assert not changes, f"public names or signatures have changed; if that is wanted, run python {__file__}\n{changes}"


if __name__ == "__main__":
    FILE.write_text(public_api(), encoding="utf-8")
