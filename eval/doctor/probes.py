"""Checks that import something; :func:`run` calls one of them by name, in a process of its own."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from robustdistiller.common.installation import PACKAGE, diagnose, install_command
from robustdistiller.eval.doctor.examination import probe
from robustdistiller.eval.doctor.report import Check

_S3PRL = ("s3prl", "espnet-s3prl")
_SHOWN = ("torch", "torchaudio", *_S3PRL, "lightning-fabric", "lhotse", "transformers", "huggingface_hub")
# Not every installation is for these; 'dev' and the fork of s3prl repeat others.
_OPTIONAL = {"metrics": "SE and SS", "export": "ONNX files", "slurm": "sweeps on a cluster", "rooms": "new rooms"}
# Nobody misses these who has not installed s3prl.
_OF_SUPERB = ("torchaudio", "s3prl", "audio")


def run(name: str, *arguments: str) -> dict[str, Any]:
    """What one probe finds; whatever it raises is what it found."""
    superb = name in _OF_SUPERB
    if superb and not any(map(_version, _S3PRL)):
        absent = "not looked at: s3prl is not installed" if name != "s3prl" else "not installed"
        found = [Check(name, False, absent, install_command("superb"), required=False)]
    else:
        try:
            found = _PROBES[name](*arguments)
        except Exception as error:  # noqa: BLE001 - the report says whatever went wrong
            unknown = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            problem, fix = diagnose(error) or (unknown, install_command("superb" if superb else ""))
            found = [Check(name, False, problem, fix)]
    answer: dict[str, Any] = {"checks": [asdict(check) for check in found]}
    if name == "s3prl" and found[0].ok:
        from robustdistiller.upstream.s3prl import bridge

        answer["shims"] = [asdict(shim) for shim in bridge.install()]
    return answer


def packages() -> list[Check]:
    """What this package declares is installed, in versions it declares."""
    return check_packages(importlib.metadata.requires(PACKAGE) or [] if _version(PACKAGE) else [PACKAGE])


def check_packages(requirements: Iterable[str]) -> list[Check]:
    """One line for the core and one for each extra, of requirements as in package metadata."""
    from packaging.requirements import Requirement

    problems: dict[str, list[str]] = {"": []}
    for requirement in map(Requirement, requirements):
        marker = requirement.marker
        extras = ("", "superb", "train", *_OPTIONAL)
        extra = next((one for one in extras if marker is None or marker.evaluate({"extra": one})), None)
        if extra is not None:
            found = _problem(requirement, with_fork=extra == "superb")
            problems.setdefault(extra, []).extend([found] if found else [])
    shown = ", ".join(f"{name} {_version(name)}" for name in _SHOWN if _version(name))
    checks = []
    for extra, wrong in problems.items():
        name = f"packages for {extra}" + (f" ({_OPTIONAL[extra]})" if extra in _OPTIONAL else "")
        found = "; ".join(wrong) or ("" if extra else shown) or "all there"
        fix = install_command(extra)
        checks.append(Check(name if extra else "packages", not wrong, found, fix, required=not extra))
    return checks


def _problem(requirement: Any, with_fork: bool) -> str:
    version = _version(requirement.name)
    if version is None:
        fork = with_fork and requirement.name == "s3prl" and any(map(_version, _S3PRL))
        return "" if fork else f"{requirement.name} missing"
    fits = requirement.specifier.contains(version, prereleases=True)
    return "" if fits else f"{requirement.name} {version}, expected {requirement.specifier}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def torch() -> list[Check]:
    """PyTorch computes, and shares memory with NumPy; its GPUs."""
    import numpy as np
    import torch

    product = torch.from_numpy(np.eye(3, dtype=np.float32)) @ torch.ones(3, 3)
    works = bool((product.numpy() == 1).all())
    built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    named = ", ".join(f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for gpu in gpus)
    return [
        Check("torch", works, f"{torch.__version__}, {built_for}", install_command()),
        Check("GPU", True, named or f"none, {os.cpu_count()} CPU cores", required=False),
    ]


def torchaudio() -> list[Check]:
    """torchaudio imports beside this PyTorch, at least without its C++ library."""
    from packaging.requirements import Requirement

    from robustdistiller.upstream.s3prl.bridge import torchaudio_library

    shim = torchaudio_library.bridge_torchaudio()
    fitting = Requirement(torchaudio_library.fitting_torchaudio()).specifier
    advice = ""
    if shim.applied and not fitting.contains(_version("torchaudio") or "", prereleases=True):
        # s3prl runs all the same; who wants torchaudio's C++ operators installs the one that fits.
        advice = f"; that works, and {torchaudio_library.mending_command()} brings one that fits"
    return [Check("torchaudio", True, shim.reason + advice)]


def s3prl() -> list[Check]:
    """s3prl's upstream list and its entry script import through the bridge."""
    from robustdistiller.upstream import register
    from robustdistiller.upstream.s3prl import bridge

    version = bridge.s3prl_version() or "unknown version"
    start = time.perf_counter()
    # Some of its upstreams print what optional packages they miss.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        register()
        hub = importlib.import_module("s3prl.hub")
        importlib.import_module("s3prl.run_downstream")
    seconds = time.perf_counter() - start
    count = len([name for name in dir(hub) if not name.startswith("_")])
    return [Check("s3prl", True, f"{version}, imported in {seconds:.1f} s, {count} upstreams")]


def audio() -> list[Check]:
    """A file written here is read back as s3prl reads it, and through Speech Commands' effects."""
    from robustdistiller.upstream.s3prl import bridge

    bridge.install()
    import numpy as np
    import soundfile
    import torchaudio
    from torchaudio.sox_effects import apply_effects_file

    written = np.round(8000 * np.sin(np.arange(1600) / 10)) / 32768
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tone.wav"
        soundfile.write(path, written, 16000, subtype="PCM_16")
        plain, rate_hz = torchaudio.load(str(path))
        quiet, _ = apply_effects_file(str(path), [["channels", "1"], ["rate", "16000"], ["gain", "-3.0"]])
    return [check_audio(written, plain.numpy()[0], quiet.numpy()[0], rate_hz)]


def check_audio(written: Any, plain: Any, quiet: Any, rate_hz: int) -> Check:
    """What was read back of ``written``, as it is and 3 dB quieter."""
    error = max(abs(plain - written).max(), abs(quiet - plain * 10**-0.15).max())
    ok = rate_hz == 16000 and error < 1e-6
    found = f"wav read back at {rate_hz} Hz with an error of {error:.0e}"
    return Check("audio", bool(ok), found, install_command("superb"))


def tasks() -> list[Check]:
    """What every task's packages and tools are good for; each package is imported in a process of its own."""
    from concurrent.futures import ThreadPoolExecutor

    from robustdistiller.eval.tasks import TASKS
    from robustdistiller.eval.tasks.needs import look_at

    modules = {module: name for task in TASKS.values() for module, name in task.packages.items()}
    with ThreadPoolExecutor(2) as pool:
        answers = pool.map(lambda module: probe("module", module)["checks"][0], modules)
        broken = {modules[module]: answer["found"] for module, answer in zip(modules, answers) if not answer["ok"]}
    checks = []
    for task in TASKS.values():
        needs = look_at(task)
        failing = [name for name in task.packages.values() if name in broken and name not in needs.missing]
        found = task.title + (f"; missing: {', '.join(needs.missing)}" if needs.missing else "")
        found += "".join(f"; {name} does not import: {broken[name]}" for name in failing)
        commands = [*needs.commands, *(f"pip install --force-reinstall --no-deps {name}" for name in failing)]
        checks.append(Check(task.code, not needs.missing and not failing, found, " && ".join(commands), required=False))
    return checks


def module(name: str) -> list[Check]:
    """The module of that name imports."""
    importlib.import_module(name)
    return [Check(name, True, "")]


_PROBES = {each.__name__: each for each in (packages, torch, torchaudio, s3prl, audio, tasks, module)}
