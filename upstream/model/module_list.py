"""PyTorch's list of modules, for type checkers with what it holds: ``ModuleList[nn.Linear]``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from torch import nn

if TYPE_CHECKING:
    Held = TypeVar("Held", bound=nn.Module)

    class ModuleList(nn.ModuleList, Generic[Held]):
        """A list of modules of one class."""

        def __init__(self, modules: Iterable[Held] | None = None) -> None: ...

        @overload
        def __getitem__(self, idx: slice) -> ModuleList[Held]: ...

        @overload
        def __getitem__(self, idx: int) -> Held: ...

        def __getitem__(self, idx: int | slice) -> nn.Module: ...

        def __iter__(self) -> Iterator[Held]: ...
else:
    ModuleList = nn.ModuleList
