"""Lets unchanged s3prl 0.4.18, or ESPnet's fork of it, run on current PyTorch, torchaudio, huggingface_hub and Python.

``install()`` must come before the first ``import s3prl.hub`` (some names are bound while s3prl is imported)::

    from robustdistiller.upstream.s3prl import bridge
    bridge.install()
    import s3prl.hub

Every shim first looks whether the real thing works and then leaves it alone. No file of s3prl is changed. The order is
that of :data:`SHIMS`: what s3prl imports at its top first (checkpoints, huggingface_hub, audio), then the packages that
single tasks import, then patches inside s3prl's modules, which take effect when a task imports them.

On a machine with a GPU, ``--device cpu`` needs ``CUDA_VISIBLE_DEVICES=""`` in the environment before torch starts:
s3prl asks torch for a GPU in several places without looking at ``--device``.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

from robustdistiller.common.installation import InstallationError, install_command
from robustdistiller.upstream.s3prl.bridge.audio import bridge_audio_backend, bridge_audio_info, bridge_audio_load
from robustdistiller.upstream.s3prl.bridge.ctc_corpus import bridge_ctc_corpus
from robustdistiller.upstream.s3prl.bridge.experts import Caches, bridge_experts, default_cache_dir
from robustdistiller.upstream.s3prl.bridge.packages import (
    bridge_catalyst,
    bridge_checkpoint_loading,
    bridge_distutils,
    bridge_huggingface_names,
    bridge_pysox,
    bridge_transformers,
)
from robustdistiller.upstream.s3prl.bridge.separation import bridge_asteroid
from robustdistiller.upstream.s3prl.bridge.shim import Shim
from robustdistiller.upstream.s3prl.bridge.sox_effects import INSTALL_SOX, bridge_sox_effects, sox_path
from robustdistiller.upstream.s3prl.bridge.torchaudio_library import bridge_torchaudio, load_torchaudio
from robustdistiller.upstream.s3prl.bridge.version import s3prl_version

__all__ = ["INSTALL_SOX", "SHIMS", "Shim", "install", "load_torchaudio", "s3prl_version", "sox_path"]

logger = logging.getLogger(__name__)

SHIMS = (
    bridge_checkpoint_loading,
    bridge_huggingface_names,
    bridge_transformers,
    bridge_distutils,
    bridge_torchaudio,
    bridge_audio_backend,
    # info last: its absence is how the load shim knows a torchaudio without a reader of its own
    bridge_audio_load,
    bridge_audio_info,
    bridge_sox_effects,
    bridge_pysox,
    bridge_catalyst,
    bridge_asteroid,
    bridge_ctc_corpus,
    bridge_experts,
)

_installed: list[Shim] = []


def install(cache_dir: str | Path | None = None) -> list[Shim]:
    """Apply the shims that are needed here; a second call only moves the cache.

    Args:
        cache_dir: where s3prl's lists of VoxCeleb files go, one folder per data set. Default: the last call's, at
            first ``~/.cache/robustdistiller/s3prl``.

    Returns:
        Every shim, applied or not, with the reason.

    Raises:
        InstallationError: s3prl is missing, or the torchaudio that it needs; the message holds the command to type.

    Example:
        >>> shims = install()
        >>> {shim.name for shim in shims if shim.applied} >= {"torch.load"}
        True
        >>> install() == shims
        True
    """
    if not _installed and importlib.util.find_spec("s3prl") is None:
        raise InstallationError("s3prl is not installed", install_command("superb"))
    if cache_dir is not None or not _installed:
        Caches.root = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    if not _installed:
        # Importing s3prl.hub warns of a package that a single upstream of it needs; that upstream says so itself.
        logging.getLogger("s3prl.upstream.espnet_hubert.expert").setLevel(logging.ERROR)
        for shim in SHIMS:
            report = shim()
            _installed.extend(report if isinstance(report, list) else [report])
        for report in _installed:
            logger.debug("%s: %s (%s)", report.name, "applied" if report.applied else "left alone", report.reason)
    return list(_installed)
