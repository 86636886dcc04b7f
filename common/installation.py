"""What an installation lacks, said in one sentence with the command that mends it. Standard library only."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import re
from urllib.parse import unquote, urlparse

PACKAGE = "robustdistiller"

# Packages whose import name is not their name on a package index.
_DISTRIBUTIONS = {"dtw": "dtw-python", "sklearn": "scikit-learn", "yaml": "pyyaml"}
# These hold other extras, so that they do not tell what a package is for.
_NOT_SUGGESTED = ("dev", "superb-espnet")
_DISK_TROUBLE = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
}


class InstallationError(ImportError):
    """A package is missing or beyond use.

    Args:
        problem: what is missing or wrong.
        command: what to type.

    Example:
        >>> str(InstallationError("torch is missing", "pip install torch"))
        'torch is missing: pip install torch'
    """

    def __init__(self, problem: str, command: str) -> None:
        super().__init__(f"{problem}: {command}")
        self.problem, self.command = problem, command


def extra_of(module: str) -> str | None:
    """The extra of this package that brings ``module``; an empty string for the core, None for neither.

    Args:
        module: import name, dotted or not.

    Example:
        >>> extra_of("lightning_fabric.plugins"), extra_of("torch"), extra_of("no_such_module")
        ('train', '', None)
    """
    wanted = distribution_of(module)
    extras = []
    for requirement in importlib.metadata.requires(PACKAGE) or ():
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", requirement)
        if _plain(re.match(r"[\w.-]+", requirement)[0]) == wanted and not (extra and extra[1] in _NOT_SUGGESTED):
            extras.append(extra[1] if extra else "")
    return min(extras, key=bool, default=None)


def distribution_of(module: str) -> str:
    """The name under which a package index knows the package that holds ``module``.

    Example:
        >>> distribution_of("sklearn.cluster"), distribution_of("huggingface_hub")
        ('scikit-learn', 'huggingface-hub')
    """
    root = module.partition(".")[0]
    return _plain(_DISTRIBUTIONS.get(root, root))


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def install_command(extra: str = "") -> str:
    """The command that installs this package with one of its extras, from where it was installed before.

    Example:
        >>> install_command("train").startswith("pip install "), install_command("train").endswith("[train]'")
        (True, True)
    """
    extras = f"[{extra}]" if extra else ""
    for distribution in importlib.metadata.distributions(name=PACKAGE):  # a checkout has one more, without its origin
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        if origin.get("url", "").startswith("file:"):
            editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
            return f"pip install {editable}'{unquote(urlparse(origin['url']).path)}{extras}'"
    return f"pip install '{PACKAGE}{extras}'"


def how_to_install(module: str) -> str:
    """The command that brings ``module``.

    Example:
        >>> how_to_install("no_such_module")
        'pip install no-such-module'
    """
    extra = extra_of(module)
    return f"pip install {distribution_of(module)}" if extra is None else install_command(extra)


def diagnose(error: BaseException) -> tuple[str, str] | None:
    """The problem and the command that mends it, for an error of the installation or of the disk; None for any other.

    Example:
        >>> diagnose(ModuleNotFoundError("No module named 'no_such'", name="no_such"))
        ('no_such is not installed', 'pip install no-such')
        >>> diagnose(ModuleNotFoundError("No module named 'robustdistiller.uptream'", name="robustdistiller.uptream"))
        >>> diagnose(OSError(errno.ENOSPC, "No space left on device", "/full/file"))
        ('/full/file: no space left on the device', '')
    """
    if isinstance(error, InstallationError):
        return error.problem, error.command
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != PACKAGE:
        return f"{error.name} is not installed", how_to_install(error.name)
    if isinstance(error, OSError) and error.errno in _DISK_TROUBLE:
        return ": ".join(filter(None, (error.filename and str(error.filename), _DISK_TROUBLE[error.errno]))), ""
    return None
