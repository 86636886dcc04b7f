"""From a model's name to the file or folder on this machine."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustdistiller.common.files import write_bytes
from robustdistiller.common.installation import diagnose
from robustdistiller.upstream.pretrained.download import cached_path, fetch
from robustdistiller.upstream.pretrained.hub import hub_folder
from robustdistiller.upstream.pretrained.names import ModelName, existing_path
from robustdistiller.upstream.pretrained.registry import MODELS, RegisteredModel, copy_variable

if TYPE_CHECKING:
    from robustdistiller.upstream.model.encoder import SpeechEncoder
    from robustdistiller.upstream.pretrained.whisper.encoder import WhisperEncoder


def resolve(name: str | Path | ModelName, refresh: bool = False) -> Path:
    """The checkpoint of a model, downloaded on first use: a file, or a folder as Hugging Face's.

    Registered names are looked for in this order: the file that the environment variable ``<NAME>_CKPT`` names (such
    as ``ROBUSTDISTILLER_WAVLM_CKPT``), the cache, the web.

    Args:
        name: a path, a URL, ``org/name[@revision]`` on the Hugging Face Hub, or a registered name.
        refresh: download again.

    Raises:
        ValueError: it is no name.
        FileNotFoundError: it is not there and could not be fetched.

    Example:
        >>> resolve("robustdistiller_mini").name
        'teacher.ckpt'
        >>> resolve("/nowhere/student.ckpt")
        Traceback (most recent call last):
        FileNotFoundError: checkpoint /nowhere/student.ckpt: expected a file or folder, found nothing there
    """
    found = name if isinstance(name, ModelName) else ModelName.parse(name)
    if found.kind == "hub":
        return hub_folder(found.value, found.revision, refresh)
    if found.kind == "url":
        return _fetched(found.value, refresh, None, f"{found.value} could not be fetched", "give the path of that file")
    if found.kind == "registered":
        return _registered(found.value, refresh)
    return _existing(found.value)


def find_local(name: str | Path | ModelName) -> Path | None:
    """What :func:`resolve` would give, if it is on this machine already; nothing is downloaded or refused.

    Example:
        >>> find_local("robustdistiller_mini") == mini_teacher(), find_local("no such thing")
        (True, None)
    """
    found = name if isinstance(name, ModelName) else ModelName.parse(name, strict=False)
    if found.kind == "hub":
        try:
            return hub_folder(found.value, found.revision, local_files_only=True)
        except FileNotFoundError:
            return None
    if found.kind != "registered":
        return existing_path(cached_path(found.value) if found.kind == "url" else found.value)
    model = MODELS[found.value]
    if not model.url:
        return _shipped(model)
    return existing_path(os.environ.get(copy_variable(found.value)) or cached_path(model.url))


def load(name: str | Path, **config_overrides: Any) -> SpeechEncoder | WhisperEncoder:
    """A model by its name: the encoder, in eval mode.

    Args:
        name: a path, a URL, ``org/name[@revision]`` on the Hugging Face Hub, or a registered name
            (``robustdistiller models`` lists them).
        config_overrides: options of :class:`~robustdistiller.upstream.EncoderConfig` to replace; of Whisper
            ``pad_to_30_s``.

    Raises:
        ValueError: it is no name, or cannot be read as an encoder.
        FileNotFoundError: it is not there and could not be fetched.

    Example:
        >>> import torch
        >>> encoder = load("robustdistiller_mini")
        >>> encoder(torch.randn(1, 16000)).hidden_states[-1].shape
        torch.Size([1, 49, 256])
    """
    from robustdistiller.upstream.pretrained.models import read_model

    return read_model(resolve(name)).build(**config_overrides)


def mini_teacher() -> Path:
    """The checkpoint of the mini teacher that ships with this package.

    Raises:
        FileNotFoundError: this installation lacks it.

    Example:
        >>> mini_teacher().name
        'teacher.ckpt'
    """
    return _shipped(MODELS["robustdistiller_mini"])


def _registered(name: str, refresh: bool) -> Path:
    model, variable = MODELS[name], copy_variable(name)
    if not model.url:
        return _shipped(model)
    if os.environ.get(variable):
        return _existing(os.environ[variable])
    problem = f"{name} needs {model.url}, which could not be fetched"
    return _fetched(model.url, refresh, model.sha256, problem, f"name your copy with {variable}=FILE")


def _shipped(model: RegisteredModel) -> Path:
    """The file of a model that ships with this package."""
    resource = files("robustdistiller.mini") / "teacher" / str(model.file)
    if isinstance(resource, Path):
        return _existing(resource)
    data = resource.read_bytes()  # installed as an archive: weights are mapped from a file, so there has to be one
    path = Path.home() / ".cache" / "robustdistiller" / resource.name
    return path if path.is_file() and path.read_bytes() == data else write_bytes(path, data)


def _fetched(url: str, refresh: bool, sha256: str | None, problem: str, otherwise: str) -> Path:
    try:
        return fetch(url, refresh, sha256)
    except OSError as error:
        if diagnose(error):  # the disk's fault
            raise
        place = cached_path(url)
        raise FileNotFoundError(
            f"{problem} ({error}): download it elsewhere and put it at {place}, or {otherwise}"
        ) from error


def _existing(path: str | Path) -> Path:
    found = existing_path(path)
    if found is None:
        seen = "" if Path(path).is_absolute() else f" (seen from {Path.cwd()})"
        raise FileNotFoundError(f"checkpoint {path}: expected a file or folder, found nothing there{seen}")
    return found
