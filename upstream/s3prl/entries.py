"""The named upstreams, and :func:`register`, which makes ``s3prl`` know them.

Each entry takes what s3prl's runner passes (``ckpt``, ``model_config``, ``refresh``) and the options of
:class:`~robustdistiller.upstream.s3prl.expert.ExpertOptions`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robustdistiller.upstream.pretrained.released import fetch, mini_teacher, resolve_released
from robustdistiller.upstream.s3prl.expert import UpstreamExpert
from robustdistiller.upstream.s3prl.onnx_expert import OnnxExpert


def robustdistiller_local(
    ckpt: str | Path | None = None, model_config: str | None = None, refresh: bool = False, **options: Any
) -> UpstreamExpert:
    """The upstream in a local checkpoint (``-k FILE``), of any readable format; Hugging Face's may be a folder.

    Raises:
        ValueError: no checkpoint is given.

    >>> robustdistiller_local()
    Traceback (most recent call last):
    ValueError: robustdistiller_local needs a checkpoint: give -k FILE (or ckpt=FILE)
    """
    if not ckpt:
        raise ValueError("robustdistiller_local needs a checkpoint: give -k FILE (or ckpt=FILE)")
    return UpstreamExpert(ckpt, model_config, **options)


def robustdistiller_url(
    ckpt: str | None = None, model_config: str | None = None, refresh: bool = False, **options: Any
) -> UpstreamExpert:
    """The upstream in a checkpoint on the web (``-k URL``), kept in s3prl's cache folder.

    Raises:
        ValueError: no URL is given.
        FileNotFoundError: it could not be fetched.
    """
    if not ckpt or "://" not in str(ckpt):
        raise ValueError(f"robustdistiller_url needs a URL: give -k URL (or ckpt=URL), found {ckpt!r}")
    try:
        path = fetch(ckpt, refresh)
    except OSError as error:
        raise FileNotFoundError(
            f"{ckpt} could not be fetched ({error}): download it elsewhere and use robustdistiller_local with -k FILE"
        ) from error
    return UpstreamExpert(path, model_config, **options)


def robustdistiller_onnx(
    ckpt: str | Path | None = None, model_config: str | None = None, refresh: bool = False
) -> OnnxExpert:
    """The upstream in an ONNX file that ``robustdistiller export`` wrote (``-k FILE``), run by onnxruntime, frozen.

    Raises:
        ValueError: no file is given, or options are: the file has what was chosen when it was exported.

    >>> robustdistiller_onnx()
    Traceback (most recent call last):
    ValueError: robustdistiller_onnx needs an ONNX file: give -k FILE (or ckpt=FILE)
    """
    if not ckpt:
        raise ValueError("robustdistiller_onnx needs an ONNX file: give -k FILE (or ckpt=FILE)")
    if model_config is not None:
        raise ValueError(
            f"robustdistiller_onnx takes no options, found {model_config}: `robustdistiller export` chooses the layers"
        )
    return OnnxExpert(ckpt)


def _released(
    name: str,
    ckpt: str | Path | None = None,
    model_config: str | None = None,
    refresh: bool = False,
    **options: Any,
) -> UpstreamExpert:
    return UpstreamExpert(resolve_released(name, ckpt, refresh), model_config, **options)


def robustdistiller_hubert(**arguments: Any) -> UpstreamExpert:
    """RobustDistiller's released student of HuBERT Base; ``-k FILE`` or ``ROBUSTDISTILLER_HUBERT_CKPT`` is a copy."""
    return _released("robustdistiller_hubert", **arguments)


def robustdistiller_wavlm(**arguments: Any) -> UpstreamExpert:
    """RobustDistiller's released student of WavLM Base+; ``-k FILE`` or ``ROBUSTDISTILLER_WAVLM_CKPT`` is a copy."""
    return _released("robustdistiller_wavlm", **arguments)


def robustdistiller_robust_hubert(**arguments: Any) -> UpstreamExpert:
    """RobustDistiller's released student of Robust HuBERT; ``-k FILE`` or ``ROBUSTDISTILLER_ROBUST_HUBERT_CKPT``."""
    return _released("robustdistiller_robust_hubert", **arguments)


def robustdistiller_dpwavlm(**arguments: Any) -> UpstreamExpert:
    """RobustDistiller's released student of WavLM Base+ in DPWavLM's shape; ``ROBUSTDISTILLER_DPWAVLM_CKPT``."""
    return _released("robustdistiller_dpwavlm", **arguments)


def dphubert(**arguments: Any) -> UpstreamExpert:
    """DPHuBERT, pruned and distilled from HuBERT Base; ``-k FILE`` or ``DPHUBERT_CKPT`` is a copy."""
    return _released("dphubert", **arguments)


def dpwavlm(**arguments: Any) -> UpstreamExpert:
    """DPWavLM, pruned and distilled from WavLM Base+; ``-k FILE`` or ``DPWAVLM_CKPT`` is a copy."""
    return _released("dpwavlm", **arguments)


def robustdistiller_mini(
    ckpt: str | Path | None = None, model_config: str | None = None, refresh: bool = False, **options: Any
) -> UpstreamExpert:
    """The mini teacher that ships with this package, or (``-k FILE``) one of its students."""
    return UpstreamExpert(ckpt or mini_teacher(), model_config, **options)


#: Every entry by its name in s3prl.
ENTRIES = {
    entry.__name__: entry
    for entry in (
        robustdistiller_local,
        robustdistiller_url,
        robustdistiller_hubert,
        robustdistiller_wavlm,
        robustdistiller_robust_hubert,
        robustdistiller_dpwavlm,
        dphubert,
        dpwavlm,
        robustdistiller_mini,
        robustdistiller_onnx,
    )
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
