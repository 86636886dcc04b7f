"""What all commands share: how errors end, exit statuses, logging, and help texts with examples.

A command is a function with a typer signature in a file of its name, under the decorator::

    @command()
    def merge(a: str, b: str) -> None:
        ...

Its docstring is what ``--help`` says below what :data:`main.COMMANDS` says of it; paragraphs that begin with a
backspace keep their lines.

It returns its exit status (None for 0), raises ``ValueError`` or ``OSError`` with one sentence for what its user has to
change, and :class:`~robustdistiller.common.errors.RunFailed` for what ran and failed.
"""

from __future__ import annotations

import functools
import inspect
import logging
import warnings
from collections.abc import Callable
from typing import Any

import typer

from robustdistiller.common.errors import run_command

#: What typer raises for a command line that it cannot parse: a class of its own, or of click's, by its version.
UsageError: type[Exception] = typer.BadParameter.__base__

_VERBOSE = typer.Option(
    False, "--verbose", "-v", help="Say more on the way, and where an error was raised.", show_default=False
)


def command(*, log_level: int = logging.WARNING, keeps: str = "") -> Callable[[Callable[..., int | None]], Any]:
    """Make a function a sub-command of ``robustdistiller``.

    Args:
        log_level: of this package's messages, without ``--verbose``.
        keeps: as for :func:`~robustdistiller.common.errors.run_command`.
    """

    def decorate(function: Callable[..., int | None]) -> Callable[..., None]:
        program = f"robustdistiller {function.__name__.replace('_', '-')}"

        @functools.wraps(function)
        def run(*, verbose: bool, **arguments: Any) -> None:
            logging.basicConfig(format="%(message)s")
            ours = logging.getLogger("robustdistiller")
            level = ours.level
            ours.setLevel(logging.DEBUG if verbose else log_level)
            try:
                with warnings.catch_warnings():
                    if not verbose:  # what libraries say to one another's authors
                        warnings.filterwarnings("ignore", category=FutureWarning)
                    status = run_command(program, lambda: function(**arguments), keeps)
            finally:  # a command may be called by a program that goes on
                ours.setLevel(level)
            raise typer.Exit(status)

        signature = inspect.signature(function, eval_str=True)
        option = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=_VERBOSE, annotation=bool)
        run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])
        run.__annotations__ = {**function.__annotations__, "verbose": bool}
        run.__doc__ = folded(inspect.cleandoc(function.__doc__))
        return run

    return decorate


def usage_sentence(error: Exception) -> str:
    """One sentence on what cannot be parsed: what is wrong, what the argument or option is, and where to read on."""
    said = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    what = getattr(getattr(error, "param", None), "help", None)
    about = f" ({what.rstrip('.')})" if what else ""
    path = " ".join(["robustdistiller", *error.ctx.command_path.split()[1:]])
    return f"{path}: {said[:1].lower()}{said[1:]}{about}; `{path} --help` says more"


def folded(text: str) -> str:
    r"""A help text of any width: each paragraph on one line, for the terminal to wrap.

    Paragraphs that begin with a backspace stay as they are. Brackets are no markup.

    >>> folded("One\ntwo.\n\n\b\n  a list\n  of [two]")
    'One two.\n\n\x08\n  a list\n  of \\[two]'
    """
    paragraphs = text.strip("\n").replace("[", r"\[").split("\n\n")
    return "\n\n".join(part if part.startswith("\b") else " ".join(part.split()) for part in paragraphs)
