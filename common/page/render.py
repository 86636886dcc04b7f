"""From a template and values to one file of HTML that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import jinja2

_HERE = "robustdistiller.common.page"


def render_page(package: str, template: str, styles: Sequence[str] = (), **values: Any) -> str:
    """A page in the common look.

    The browser is forbidden to load anything but what the template's block ``allowed`` says.

    Args:
        package: import name of the package with the template and its style sheets.
        template: file that extends ``base.html``; what it shows is escaped.
        styles: style sheets of this page, after the common one.
        values: what the template shows; ``title`` is needed.

    Raises:
        jinja2.UndefinedError: the template shows a value that is not given.
    """
    own = files(package)
    sources = {"base.html": _text(files(_HERE), "base.html"), template: _text(own, template)}
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(sources), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    style = "\n".join([_text(files(_HERE), "base.css"), *(_text(own, name) for name in styles)])
    return environment.get_template(template).render(style=style, **values)


def data_uri(content: bytes, media_type: str) -> str:
    """Content as an address that holds it.

    >>> data_uri(b"<svg/>", "image/svg+xml")
    'data:image/svg+xml;base64,PHN2Zy8+'
    """
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _text(folder: Any, name: str) -> str:
    return folder.joinpath(name).read_text(encoding="utf-8")
