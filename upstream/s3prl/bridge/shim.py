"""What a shim reports, and the ways a shim gets into s3prl: a module in the place of another, or a patch."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shim:
    """One bridge: ``applied`` is False where the real thing works and nothing was touched.

    Example:
        >>> Shim("torchaudio.info", False, "torchaudio still has it").applied
        False
    """

    name: str
    applied: bool
    reason: str


def working_import(name: str) -> tuple[bool, str]:
    """Whether module ``name`` imports here, and why not.

    Example:
        >>> working_import("json")
        (True, 'json is installed')
        >>> working_import("no_such_module")
        (False, 'no_such_module is not installed')
    """
    package = name.partition(".")[0]
    if package not in sys.modules and importlib.util.find_spec(package) is None:
        return False, f"{name} is not installed"
    try:
        importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - a broken install can raise anything, and is then replaced
        return False, f"{name} is installed but does not import: {type(error).__name__}: {error}"
    return True, f"{name} is installed"


_STAND_INS: dict[str, dict[str, types.ModuleType]] = {}


def stand_in(name: str, importers: Sequence[str], **attributes: object) -> None:
    """Give s3prl a module in the place of one that others lack, broke or load slowly.

    It is in ``sys.modules`` while one of the ``importers`` is imported and at no other time: nobody else finds it.

    Args:
        name: of the module, for ``from name import ...``.
        importers: s3prl's modules with such a line at their top.
        attributes: what the module holds.

    Example:
        >>> stand_in("missing_package.part", ["s3prl.example"], answer=42)
        >>> with stand_ins_present("s3prl.example"):
        ...     from missing_package.part import answer
        >>> answer, "missing_package.part" in sys.modules
        (42, False)
    """
    watch_imports()
    for importer in importers:
        _STAND_INS.setdefault(importer, {})[name] = _module(name, attributes)


@contextmanager
def stand_ins_present(importer: str) -> Iterator[None]:
    """Within the block imports find what :func:`stand_in` has for ``importer``."""
    found = _STAND_INS.get(importer, {})
    before = {name: sys.modules[name] for name in found if name in sys.modules}
    sys.modules.update(found)
    try:
        yield
    finally:
        for name in found:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def _module(name: str, attributes: dict[str, object]) -> types.ModuleType:
    module = types.ModuleType(name, doc=f"Stand-in for {name}, see {__package__}.")
    # Other packages probe with find_spec, which refuses a module without a spec.
    module.__spec__ = importlib.machinery.ModuleSpec(name, loader=None, is_package=True)
    module.__path__ = []
    vars(module).update(attributes)
    return module


def register_module(name: str, **attributes: object) -> types.ModuleType:
    """Put a module (and its parents) where ``import name`` finds it, for parts of packages that s3prl calls later on.

    Example:
        >>> module = register_module("stand_in_package.part", answer=42)
        >>> from stand_in_package.part import answer
        >>> answer
        42
    """
    parent_name, _, child = name.rpartition(".")
    module = sys.modules[name] = _module(name, attributes)
    if parent_name:
        # An import of "a.b" looks up "a.b" in sys.modules before "a": a real parent may still be unimported.
        parent = sys.modules.get(parent_name)
        if parent is None and importlib.util.find_spec(parent_name.partition(".")[0]) is None:
            parent = register_module(parent_name)
        if parent is not None:
            setattr(parent, child, module)
    return module


class _PatchingLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, patch: Callable[[types.ModuleType], None] | None) -> None:
        self._loader = loader
        self._patch = patch

    def __getattr__(self, name: str) -> object:  # get_source, is_package ... of the real loader
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        with stand_ins_present(module.__name__):
            self._loader.exec_module(module)
        if self._patch is not None:
            self._patch(module)
            logger.debug("patched %s", module.__name__)


class _PatchFinder(importlib.abc.MetaPathFinder):
    """Finds modules through the other finders: stand-ins are there meanwhile, patches come afterwards."""

    def __init__(self) -> None:
        self.patches: dict[str, Callable[[types.ModuleType], None]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        patch = self.patches.get(fullname)
        if patch is None and fullname not in _STAND_INS:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _PatchingLoader(spec.loader, patch)
                return spec
        return None


_FINDER = _PatchFinder()


def watch_imports() -> None:
    """Let stand-ins and patches take part in imports from now on."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


def patch_after_import(name: str, patch: Callable[[types.ModuleType], None]) -> None:
    """Run ``patch(module)`` when module ``name`` is imported, or at once if it already is.

    A module is patched when its task is used: the others are not imported for it. Registering a name twice replaces
    the patch.

    Example:
        >>> patch_after_import("this", lambda module: None)  # imports nothing
    """
    watch_imports()
    already_patched = name in _FINDER.patches
    _FINDER.patches[name] = patch
    if name in sys.modules and not already_patched:
        patch(sys.modules[name])
