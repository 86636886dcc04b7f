"""The package itself: what importing it costs, what it offers, its version."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import robustdistiller
from robustdistiller.upstream.pretrained.registry import MODELS

ROOT = Path(__file__).resolve().parents[1]


def run(code: str, *paths: Path) -> str:
    """What a fresh process prints, started elsewhere."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_it_imports_next_to_nothing() -> None:
    code = "import sys; before = set(sys.modules); import robustdistiller; print(*(set(sys.modules) - before))"
    imported = run(code).split()
    packages = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert packages == {"robustdistiller", "lazy_loader"}
    assert [name for name in imported if name.startswith("robustdistiller.")] == []
    assert len(imported) < 60


def test_what_it_offers_is_there_and_has_an_example() -> None:
    assert dir(robustdistiller) == ["compare", "distill", "evaluate", "leaderboard", "load", "sweep"]
    for name in dir(robustdistiller):
        assert ">>>" in getattr(robustdistiller, name).__doc__
    code = "import sys, robustdistiller as r; print(r.load('robustdistiller_mini').config.num_layers, *sys.modules)"
    layers, *imported = run(code).split()
    assert layers == "5"
    assert not {"torch._dynamo", "sympy", "s3prl", "transformers"} & set(imported), "each takes a second or two"


def test_what_an_offer_misses_is_said_with_the_command_that_brings_it() -> None:
    code = (
        "import sys; sys.modules['lightning_fabric'] = None; import robustdistiller\n"
        "try:\n    robustdistiller.distill\n"
        "except ImportError as error:\n    print(error)\n"
        "try:\n    robustdistiller.destill\n"
        "except AttributeError as error:\n    print(error)"
    )
    missing, unknown = run(code).splitlines()
    assert missing.startswith("lightning_fabric") and missing.endswith("[train]'") and "pip install" in missing
    assert "destill" in unknown


def test_the_version_has_one_definition() -> None:
    assert robustdistiller.__version__ == importlib.metadata.version("robustdistiller")
    assert robustdistiller.__version__ not in (ROOT / "setup.py").read_text(encoding="utf-8")
    shown = run("import sys; sys.argv = ['r', '--version']; from robustdistiller.cli.main import main; main()")
    assert shown == f"robustdistiller {robustdistiller.__version__}"


def test_a_checkout_that_is_not_installed_serves_torch_hub() -> None:
    """With what it says that it needs, and nothing else of this package's requirements."""
    code = """
import importlib.metadata, sys
sys.path.insert(0, sys.argv[1])
sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in getattr(f, '__module__', '').lower()]
import hubconf
heavy = {'scipy', 'soundfile', 'soxr', 'pydantic', 'typer', 'rich', 's3prl', 'lightning_fabric'}
needed = heavy - set(hubconf.dependencies)
sys.modules.update(dict.fromkeys(needed))
import torch
print(*(name for name, value in vars(hubconf).items() if callable(value) and name[0] != '_'))  # as torch.hub.list
for entry in (['load', 'robustdistiller_mini'], ['robustdistiller_mini']):
    print(torch.hub.load(sys.argv[1], *entry, source='local').config.num_layers)
print(hubconf.dphubert.__doc__)  # as torch.hub.help
"""
    names, *layers, about = run(code, ROOT).splitlines()
    assert layers == ["5", "5"] and "DPHuBERT" in about
    assert set(names.split()) == {"load", *(name for name in MODELS if "/" not in name)}
