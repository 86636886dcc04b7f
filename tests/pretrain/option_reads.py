"""Which options of a configuration the training code reads while it runs."""

from __future__ import annotations

import dataclasses
import sys
import typing
from pathlib import Path
from types import FrameType

from robustdistiller import pretrain
from robustdistiller.common.typed import choices_of, dataclass_in, fields_of
from robustdistiller.pretrain import DistillConfig

_ROOM = Path(pretrain.__file__).parent


def sections(cls: type = DistillConfig, prefix: str = "") -> dict[str, type]:
    """Every dataclass of a configuration, by the dotted key of what it holds ("" is the whole)."""
    found = {prefix: cls}
    for name, kind in fields_of(cls).items():
        inside = next((typing.get_args(one)[1] for one in choices_of(kind) if typing.get_origin(one) is dict), kind)
        if inner := dataclass_in(inside):
            found |= sections(inner, f"{prefix}.{name}".strip("."))
    return found


class OptionReads:
    """While it is entered, notes each option that code of `pretrain/` outside of `config/` asks a section for.

    Reads by the configuration itself do not count: saving, copying, comparing, or checking it.
    """

    def __init__(self, *left_out: str):
        self.sections = {key: cls for key, cls in sections().items() if not key.startswith(left_out)}
        self.read: set[tuple[type, str]] = set()

    @property
    def unread(self) -> set[str]:
        """Dotted keys of the options that nothing has asked for."""
        return {
            f"{key}.{name}".strip(".")
            for key, cls in self.sections.items()
            for name in fields_of(cls)
            if (cls, name) not in self.read
        }

    def __enter__(self) -> OptionReads:
        for cls in self.sections.values():
            cls.__getattribute__ = self._noting(cls)
        return self

    def __exit__(self, *_: object) -> None:
        for cls in self.sections.values():
            del cls.__getattribute__

    def _noting(self, cls: type):
        names = {field.name for field in dataclasses.fields(cls)}

        def get(section: object, name: str) -> object:
            if name in names and _is_use(sys._getframe(1)):
                self.read.add((cls, name))
            return object.__getattribute__(section, name)

        return get


def _is_use(frame: FrameType) -> bool:
    path = Path(frame.f_code.co_filename)
    own = {frame.f_code.co_name, frame.f_back.f_code.co_name}
    return path.is_relative_to(_ROOM) and path.parent.name != "config" and "__post_init__" not in own
