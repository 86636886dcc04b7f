"""The named upstreams, and :func:`register`, which makes ``s3prl`` know them.

Each entry takes what s3prl's runner passes (``ckpt``, ``model_config``, ``refresh``) and the options of
:class:`~robustdistiller.upstream.s3prl.expert.ExpertOptions`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from robustdistiller.common.names import did_you_mean
from robustdistiller.upstream.pretrained.names import ModelName
from robustdistiller.upstream.pretrained.registry import MODELS
from robustdistiller.upstream.pretrained.resolve import resolve
from robustdistiller.upstream.pretrained.whisper.checkpoint import is_whisper
from robustdistiller.upstream.s3prl.expert import UpstreamExpert
from robustdistiller.upstream.s3prl.onnx_expert import OnnxExpert
from robustdistiller.upstream.s3prl.whisper_expert import WhisperExpert

_NEEDS_CHECKPOINT = "robustdistiller_local", "robustdistiller_url", "robustdistiller_onnx"


def open_entry(
    name: str,
    ckpt: str | Path | None = None,
    model_config: str | None = None,
    refresh: bool = False,
    **options: Any,
) -> UpstreamExpert | WhisperExpert | OnnxExpert:
    """The upstream of an entry.

    Args:
        name: of the entry.
        ckpt: the model (``-k``): a path, a URL, ``org/name[@revision]`` on the Hub, or a registered name. By default,
            where the entry is a registered model, that one.
        model_config: YAML file with options (``-g``).
        refresh: download again.
        options: the same options as keyword arguments.

    Raises:
        ValueError: no model is given where one is needed, it is no name, or it is no model.
        FileNotFoundError: it is not there and could not be fetched.

    >>> open_entry("robustdistiller_mini").num_layers
    5
    >>> open_entry("robustdistiller_local")
    Traceback (most recent call last):
    ValueError: robustdistiller_local needs a model: give -k NAME (or ckpt=NAME), a path, a URL or org/name on the Hub
    """
    path = _model(name, ckpt, refresh)
    if name != "robustdistiller_onnx":
        expert = WhisperExpert if is_whisper(path) else UpstreamExpert
        return expert(path, model_config, **options)
    if model_config is not None or options:
        found = ", ".join(options) if model_config is None else model_config
        raise ValueError(
            f"robustdistiller_onnx takes no options, found {found}: `robustdistiller export` chooses the layers"
        )
    return OnnxExpert(path)


def find_checkpoint(upstream: str, ckpt: str | Path | None = None, refresh: bool = False) -> Path | None:
    """The file or folder that an upstream will read, downloaded if need be; an upstream's user sees errors early.

    Of s3prl's own upstreams, which understand ``-k`` in ways of their own, only paths are looked at.

    Args:
        upstream: entry of s3prl's hub, ours included (``-u``).
        ckpt: what its ``-k`` is given.
        refresh: download again.

    Returns:
        None where it is the upstream's own affair.

    Raises:
        ValueError: see :func:`open_entry`.
        FileNotFoundError: it is not there and could not be fetched.

    >>> find_checkpoint("hubert_local", "nowhere.pt")
    Traceback (most recent call last):
    FileNotFoundError: checkpoint nowhere.pt: expected a file or folder, found nothing there (seen from ...)
    """
    if upstream not in ENTRIES and (not ckpt or ModelName.parse(ckpt, strict=False).kind != "path"):
        return None
    return _model(upstream, ckpt, refresh)


def _model(entry: str, ckpt: str | Path | None, refresh: bool) -> Path:
    if not ckpt and entry in _NEEDS_CHECKPOINT:
        raise ValueError(f"{entry} needs a model: give -k NAME (or ckpt=NAME), a path, a URL or org/name on the Hub")
    return resolve(ckpt or ModelName("registered", entry), refresh)


def require_entry(name: str) -> None:
    """Refuse a name that is no upstream of s3prl's hub, ours included.

    Raises:
        ValueError: with the nearest ones.

    >>> require_entry("robustdistiller_mimi")
    Traceback (most recent call last):
    ValueError: s3prl's hub has no upstream 'robustdistiller_mimi'; did you mean 'robustdistiller_mini'...
    """
    register()
    from s3prl import hub

    if not hasattr(hub, name):
        raise ValueError(f"s3prl's hub has no upstream {name!r}{did_you_mean(name, dir(hub), most=3)}")


def entry_of(text: str) -> tuple[str, str | None]:
    """Entry and ``-k`` of what names an upstream or, as no upstream of s3prl's is called, a model.

    >>> entry_of("fbank"), entry_of("microsoft/wavlm-large")
    (('fbank', None), ('robustdistiller_local', 'microsoft/wavlm-large'))
    """
    return (text, None) if text.isidentifier() else ("robustdistiller_local", text)


def _entry(name: str, about: str) -> partial:
    entry = partial(open_entry, name)
    entry.__name__, entry.__doc__ = name, about  # type: ignore[attr-defined]
    return entry


#: Every entry by its name in s3prl.
ENTRIES = {
    name: _entry(name, about)
    for name, about in {
        "robustdistiller_local": "Any model that is given: -k NAME.",
        "robustdistiller_url": "The same; its old name for URLs.",
        **{name: f"{model.about}; -k NAME is another one." for name, model in MODELS.items() if "/" not in name},
        "robustdistiller_onnx": "An ONNX file that `robustdistiller export` wrote (-k NAME), run frozen.",
    }.items()
}


def register() -> None:
    """Make ``s3prl.hub`` offer the entries, as ``run_downstream.py -u NAME`` and ``S3PRLUpstream(NAME)`` expect.

    Installs the bridge to current PyTorch first. May be called again.

    >>> register()
    >>> import s3prl.hub
    >>> s3prl.hub.robustdistiller_wavlm.__name__
    'robustdistiller_wavlm'
    """
    from robustdistiller.upstream.s3prl import bridge

    bridge.install()
    import s3prl.hub

    for name, entry in ENTRIES.items():
        setattr(s3prl.hub, name, entry)
