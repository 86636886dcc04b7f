"""The examples in the docstrings run, and every public name of a room has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

INSTALLED = ("common", "upstream", "acoustics", "pretrain", "eval", "mini")
RESEARCH = ("bench", "embedded_noise", "embedded_words", "mini_models", "recipe_study")
ROOMS = [*(f"robustdistiller.{room}" for room in INSTALLED), *(f"research.{room}" for room in RESEARCH)]


def _modules() -> list[str]:
    found = ["robustdistiller"]
    for room in ROOMS:
        package = importlib.import_module(room)
        found.append(package.__name__)
        found += [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
    return [name for name in found if not name.rsplit(".", 1)[-1].startswith("__")]


@pytest.mark.parametrize("name", _modules())
def test_examples_run(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_has_an_example(room: str) -> None:
    package = importlib.import_module(room)
    missing = []
    for name in getattr(package, "__all__", []):
        public = getattr(package, name)
        if not (inspect.isclass(public) or inspect.isfunction(public)):
            continue
        if issubclass(public, Exception) if inspect.isclass(public) else False:
            continue
        if ">>>" not in (inspect.getdoc(public) or ""):
            missing.append(name)
    assert not missing, f"{room}: no runnable example in the docstring of {missing}"
