"""Docstrings as Markdown: names in place of Sphinx roles, and examples that stand at the end without a heading."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":\w+:`~?\.?([\w.]+)`")


class PlainDocstrings(griffe.Extension):
    """Applied to every object that mkdocstrings reads."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of ``obj``."""
        if obj.docstring is None:
            return
        text = _ROLE.sub(lambda role: f"`{role[1].rpartition('.')[2]}`", obj.docstring.value)
        before, found, example = text.partition(">>> ")
        if found and not before.endswith("Examples:\n"):
            example = "\n".join(f"    {line.strip()}" for line in f">>> {example}".splitlines())
            text = f"{before.rstrip().removesuffix('Example:').rstrip()}\n\nExamples:\n{example}\n"
        obj.docstring.value = text
