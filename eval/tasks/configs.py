"""Task configurations: the shipped YAML with its vocabularies made absolute, and a check of what the user must add."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from robustdistiller.common.files import slug, write_text
from robustdistiller.common.written import flatten
from robustdistiller.eval.tasks.base import Task
from robustdistiller.eval.tasks.parts import DataRoot, lookup

_VOCABULARIES = "vocabularies/"


def _folder() -> Path:
    return Path(str(files("robustdistiller.downstream_configs")))


def read_config(config: Mapping[str, Any] | str | Path) -> dict[str, Any]:
    """A head's configuration as it is written down, see `Task.config`."""
    if isinstance(config, Mapping):
        return copy.deepcopy(dict(config))
    path = Path(config)
    if path.suffix not in (".yaml", ".yml"):
        path = _folder() / f"{config}.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the configuration of a task")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, Mapping) or "downstream_expert" not in config:
        raise ValueError(f"{path}: expected s3prl's settings runner, optimizer and downstream_expert")
    return dict(config)


def vocabulary_paths(task: Task) -> dict[str, str]:
    """The task's keys that name files of this package, with their absolute paths here.

    A head trained elsewhere remembers the paths of that machine, see :func:`with_own_vocabularies`.
    """
    return {
        f"config.{key}": str(_folder() / value)
        for key, value in flatten(read_config(task.config)).items()
        if isinstance(value, str) and value.startswith(_VOCABULARIES)
    }


def load_config(task: Task) -> dict[str, Any]:
    """The configuration of ``task``, vocabularies resolved, data roots still None.

    Raises:
        FileNotFoundError, ValueError: the task names a file that is not there or no configuration.
    """
    return with_own_vocabularies(task, read_config(task.config))


def with_own_vocabularies(task: Task, config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a configuration, with this package's vocabularies for files of their names that are not there."""
    config = copy.deepcopy(dict(config))
    for key, here in vocabulary_paths(task).items():
        parents, _, last = key.rpartition(".")
        given = Path(str(lookup(config, key)))
        if given.name == Path(here).name and (not given.exists() or str(given).startswith(_VOCABULARIES)):
            lookup(config, parents)[last] = here
    return config


def write_config(task: Task, folder: str | Path) -> Path:
    """Write :func:`load_config` to a file of ``folder`` for s3prl's ``-c`` and return its path."""
    return write_text(
        Path(folder) / f"{slug(task.code).lower()}.yaml", yaml.safe_dump(load_config(task), sort_keys=False)
    )


def missing_roots(task: Task, config: Mapping[str, Any]) -> list[DataRoot]:
    """Data roots of ``task`` that the final ``config`` leaves empty or that do not exist on disk."""

    def is_there(value: Any) -> bool:
        paths = value if isinstance(value, list | tuple) else [value]
        return bool(paths) and all(path is not None and Path(str(path)).exists() for path in paths)

    return [root for root in task.roots if not is_there(lookup(config, root.key))]


def check_roots(task: Task, config: Mapping[str, Any]) -> None:
    """Refuse to start ``task`` without its data.

    Raises:
        FileNotFoundError: naming each missing root, what belongs there, what was given, and the ``-o`` to type.
    """
    missing = missing_roots(task, config)
    if not missing:
        return
    lines = [f"{task.code} ({task.title}) needs data that is not there:"]
    for root in missing:
        value = lookup(config, root.key)
        state = "not given" if value is None else f"given as {value!r}, which does not exist"
        lines.append(f"  {root.key} is {state}; expected {root.what}")
    option = ",,".join(f"{root.key}=['PATH']" if root.is_list else f"{root.key}='PATH'" for root in missing)
    lines.append(f'Add: -o "{option}"')
    if task.data:
        lines.append(f"To look at a download and make what is not in it: robustdistiller prepare {task.code} ROOT")
    raise FileNotFoundError("\n".join(lines))
