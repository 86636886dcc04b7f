"""Options as plain dictionaries, from whatever objects a checkpoint keeps them in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustdistiller.upstream.checkpoints.builders import Inert, kind_of

_DEEPEST, _LARGEST = 30, 1_000_000


def plain(value: Any) -> Any:
    """Plain containers and values for ``value``, in which classes were not built.

    Knows ``argparse.Namespace``, dataclasses and other objects that are their attributes; omegaconf's ``DictConfig``,
    ``ListConfig`` and value nodes; enumerations. What else there is stays as it is.

    Raises:
        ValueError: it contains itself, or, written out, would be too deep or too large.

    >>> namespace = Inert("argparse.Namespace")
    >>> namespace.state = {"arch": "hubert", "mode": Inert("fairseq.dataclass.constants.Mode", ("default",))}
    >>> plain({"args": namespace})
    {'args': {'arch': 'hubert', 'mode': 'default'}}
    """
    return _Translation().translate(value, 0)[0]


class _Translation:
    """Translates each object once, and counts what the result would take if nothing in it were shared."""

    def __init__(self) -> None:
        self.done: dict[int, tuple[Any, int]] = {}

    def translate(self, value: Any, depth: int) -> tuple[Any, int]:
        if not isinstance(value, (Mapping, list, tuple, Inert)):
            return value, 1
        if id(value) not in self.done:
            if depth > _DEEPEST:
                raise ValueError("its options are nested too deeply")
            found, size = self._translate(value, depth + 1)
            if size > _LARGEST:
                raise ValueError("its options are too large")
            self.done[id(value)] = found, size
        return self.done[id(value)]

    def _translate(self, value: Any, depth: int) -> tuple[Any, int]:
        if isinstance(value, Mapping):
            items = [(key, *self.translate(item, depth)) for key, item in value.items()]
            return {key: item for key, item, _ in items}, 1 + sum(size for *_, size in items)
        if isinstance(value, (list, tuple)):
            pairs = [self.translate(item, depth) for item in value]
            return type(value)(item for item, _ in pairs), 1 + sum(size for _, size in pairs)
        state = value.state
        if isinstance(state, Mapping):
            holder = next((name for name in ("_content", "_val") if name in state), None)  # omegaconf's
            return self.translate(state if holder is None else state[holder], depth)
        if value.name == "builtins.getattr" and len(value.args) == 2:
            return value.args[1], 1
        return self.translate(value.args[0], depth) if len(value.args) == 1 and state is None else (value, 1)


def options_of(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The options under ``key``.

    Raises:
        ValueError: there is no dictionary of options.
    """
    options = plain(content.get(key))
    if not isinstance(options, dict):
        found = f"an object of the class {options.name}" if isinstance(options, Inert) else type(options).__name__
        raise ValueError(f"the checkpoint's {key!r} should be a dictionary of options, found {found}")
    return options


def weights_of(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The state dict under ``key``.

    Raises:
        ValueError: there is none, or one of its names is not text.
    """
    weights = content.get(key)
    if not isinstance(weights, Mapping) or not weights:
        raise ValueError(f"the checkpoint's {key!r} should hold the weights, found {kind_of(weights)}")
    if bad := next((name for name in weights if not isinstance(name, str)), None):
        raise ValueError(f"the weights should be named by text, found a name of type {kind_of(bad)}")
    return dict(weights)
