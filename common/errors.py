"""What the user of a command reads when something goes wrong: one sentence on stderr, and the exit status."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable

from robustdistiller.common.installation import diagnose

SUCCEEDED, FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_PLACE = {  # what the system's own words do not say
    errno.EEXIST: "a file is there, expected a folder; choose another name",
    errno.ENOTDIR: "a file is there or above it, expected a folder; choose another name",
    errno.EISDIR: "is a folder, expected the name of a file",
}
_NO_HOME = "Could not determine home directory."  # of pathlib

logger = logging.getLogger(__name__)


class RunFailed(RuntimeError):
    """What was asked for was in order, it ran, and it failed: commands say why and end with status 1."""


def run_command(program: str, call: Callable[[], int | None], keeps: str = "") -> int:
    """Run a command; errors that its user can mend become one sentence on stderr.

    ``ValueError`` and ``OSError`` are taken for such errors, and packages that are missing. Everything else is a fault
    of this package and raises.

    Args:
        program: what the sentence begins with.
        call: the command; returns its exit status, or None for 0.
        keeps: of a command that goes on when it is typed again: what an interruption leaves, e.g. ``what is finished``.

    Returns:
        The exit status: that of ``call``; 1 where something ran and failed or the disk is full; 2 where the user has to
        change something; 130 where the user interrupted it.

    Example:
        >>> run_command("robustdistiller", lambda: 3)
        3
    """
    try:
        return int(call() or SUCCEEDED)
    except BrokenPipeError:  # the reader of our output has gone; click ends quietly
        raise
    except KeyboardInterrupt as stop:
        stays = f"stopped; {keeps} is kept: the same command goes on from here" if keeps else "interrupted"
        _say(f"{program}: {str(stop) or stays}", "yellow")
        return getattr(stop, "exit_code", INTERRUPTED)
    except (RunFailed, ValueError, OSError, ImportError) as error:
        found = diagnose(error)
        if found is None and isinstance(error, ImportError):
            raise
        logger.debug("raised here:", exc_info=True)
        _say(f"{program}: {': '.join(filter(None, found)) if found else _sentence(error)}", "red")
        failed = isinstance(error, RunFailed) or getattr(error, "errno", None) in _FULL
        return FAILED if failed else USER_ERROR
    except RuntimeError as error:
        if str(error) != _NO_HOME:
            raise
        _say(f"{program}: a path begins with ~, but there is no such user's home folder: write it out", "red")
        return USER_ERROR


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno and error.filename is not None:
        return f"{error.filename}: {_NO_PLACE.get(error.errno) or (error.strerror or 'cannot be used').lower()}"
    message = str(error).strip() or type(error).__name__
    if "Traceback" in message:  # what a loader's process raised arrives with its traceback
        message = message.splitlines()[-1].partition("Error: ")[2] or message.splitlines()[-1]
    return message


def _say(text: str, colour: str) -> None:
    import typer

    typer.secho(text, fg=colour, err=True)
