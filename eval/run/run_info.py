"""What identifies a run: digests of weights and code, versions, git state, device."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from types import CodeType
from typing import Any

import torch
from torch import nn

from robustdistiller.common.files import file_digest
from robustdistiller.eval.results.record import NO_CHECKPOINT
from robustdistiller.eval.run.head_checkpoint import tensors_digest
from robustdistiller.upstream import checkpoint_digest
from robustdistiller.upstream.s3prl.bridge import s3prl_version

_VERSIONED = ("builtins", "torch", "s3prl", "robustdistiller")  # records and caches name their versions


def identify_weights(upstream: nn.Module, checkpoint: str | Path | None) -> tuple[str, str]:
    """Digest of an upstream's weights and what it was taken of.

    Returns:
        ``(sha256, "file")`` for a checkpoint on this machine; ``(sha256, "tensors")`` of names, shapes and values for
        upstreams that fetch their own; ``("none", "none")`` for upstreams without parameters and buffers.
    """
    if checkpoint and (Path(checkpoint).is_file() or (Path(checkpoint) / "config.json").is_file()):
        return checkpoint_digest(checkpoint), "file"
    state = upstream.state_dict()
    return (tensors_digest(state), "tensors") if state else (NO_CHECKPOINT, "none")


def parameters_of(upstream: nn.Module) -> int:
    """How many parameters an upstream has. A file that another runtime runs has none here, and says how many."""
    return getattr(upstream, "num_parameters", 0) or sum(one.numel() for one in upstream.parameters())


def upstream_code(upstream: nn.Module) -> str:
    """Digest of the source files that define an upstream's modules, see `source_files` and `code_digest`.

    Of what is typed into a notebook or a prompt there is no file: what it was compiled to is counted.
    """
    files, functions = code_digest(source_files(upstream)), _functions(upstream)
    typed = sorted(_compiled(one) for one in functions if not Path(one.co_filename).is_file())
    return hashlib.sha256("".join([files, *typed]).encode()).hexdigest() if typed else files


def source_files(upstream: nn.Module) -> list[str]:
    """The source files that define an upstream's modules, those of torch, s3prl and this project left out."""
    files = {function.co_filename for function in _functions(upstream)}
    return sorted(file for file in files if Path(file).is_file())


def _functions(upstream: nn.Module) -> list[CodeType]:
    classes = {base for module in upstream.modules() for base in type(module).__mro__}
    others = [one for one in classes if one.__module__.partition(".")[0] not in _VERSIONED]
    return [value.__code__ for one in others for value in vars(one).values() if hasattr(value, "__code__")]


def _compiled(code: CodeType) -> str:
    """Digest of a function, whatever its file is called and wherever it stands."""
    parts = [code.co_name, code.co_code.hex(), *code.co_names, *code.co_varnames]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            parts.append(_compiled(constant))
        else:  # the order of a set differs from process to process
            parts.append(repr(sorted(constant, key=repr) if isinstance(constant, frozenset) else constant))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def code_digest(files: Iterable[str]) -> str:
    """SHA-256 of the contents of source files, in hexadecimal; empty where there are none."""
    digests = sorted({file_digest(file) for file in files if Path(file).is_file()})
    return hashlib.sha256("".join(digests).encode()).hexdigest() if digests else ""


def read_options(path: str | None) -> str:
    """Contents of an upstream's options file, or the text itself where it is no file; empty without one."""
    return Path(path).read_text(encoding="utf-8") if path and Path(path).is_file() else str(path or "")


def versions() -> dict[str, str]:
    """Versions of what computes a score: Python, this project, torch, torchaudio and s3prl."""
    found = {"python": platform.python_version()}
    for package in ("robustdistiller", "torch", "torchaudio"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return {**found, "s3prl": s3prl_version() or "not installed"}


def git_state() -> dict[str, Any] | None:
    """Commit and cleanliness of the checkout this package runs from; None when it is not a git checkout."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        commit, status = (
            subprocess.run(
                ["git", "-C", str(folder), *command], capture_output=True, text=True, check=True, timeout=20
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(status)}


def tf32_enabled() -> bool:
    """Whether float32 products on a GPU may use TF32, which changes scores slightly."""
    on_gpu = torch.cuda.is_available()
    return on_gpu and (torch.get_float32_matmul_precision() != "highest" or torch.backends.cudnn.allow_tf32)


def describe_machine(device: str) -> dict[str, Any]:
    """Processor, cores, threads, device, versions, commit and date."""
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": gpu or device,
        "versions": versions(),
        "git": git_state(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
