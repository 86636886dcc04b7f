"""``torchaudio.sox_effects`` through the ``sox`` program.

torchaudio dropped its sox effects in 2.9, and before that needs a ``libsox.so`` that most systems lack. KS, ASV and
QbE read their audio through them. The program is bit-identical to the library on the chains of these three tasks.
Without the program only what is exact in plain arithmetic is done (mono mix, gain, a rate that is already right);
resampling and silence removal are refused, because their results would not be comparable with published ones.
"""

from __future__ import annotations

import io
import math
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

from robustdistiller.upstream.s3prl.bridge.audio import load
from robustdistiller.upstream.s3prl.bridge.shim import Shim, register_module
from robustdistiller.upstream.s3prl.bridge.torchaudio_library import load_torchaudio

INSTALL_SOX = "apt-get install sox   (or: brew install sox, conda install sox)"


def sox_path() -> str | None:
    """Path of the ``sox`` program, None if it is not installed.

    Example:
        >>> sox_path() is None or sox_path().endswith(("sox", "sox.exe", "sox.EXE"))
        True
    """
    return shutil.which("sox")


def apply_effects_file(
    path: str | os.PathLike,
    effects: Sequence[Sequence[str]],
    normalize: bool = True,
    channels_first: bool = True,
    format: str | None = None,
) -> tuple[torch.Tensor, int]:
    """Read a file through a chain of sox effects, as ``torchaudio.sox_effects.apply_effects_file`` did.

    Args:
        path: audio file.
        effects: chain, for example ``[["channels", "1"], ["rate", "16000"], ["gain", "-3.0"]]``.
        normalize: must be True (float32 output).
        channels_first: shape ``(channels, samples)``, else ``(samples, channels)``.
        format: input format, if the file name does not tell.

    Returns:
        The float32 waveform and its sample rate in Hz.

    Raises:
        FileNotFoundError: no such audio file.
        RuntimeError: sox is missing and the chain needs it, or sox failed (its message is included).
        ValueError: ``normalize`` is False.

    Example:
        >>> import tempfile
        >>> import soundfile
        >>> with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        ...     soundfile.write(file.name, [0.5] * 160, 16000)
        ...     waveform, rate = apply_effects_file(file.name, [["channels", "1"], ["rate", "16000"], ["gain", "-3.0"]])
        >>> waveform.shape, rate, round(waveform[0, 0].item(), 3)
        (torch.Size([1, 160]), 16000, 0.354)
    """
    if not normalize:
        raise ValueError("apply_effects_file(normalize=False) is not supported: found False, expected True.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"No such audio file: {os.fspath(path)!r}.")
    program = sox_path()
    if program is None:
        waveform, sample_rate_hz = load(path)
        waveform = _exact_effects(waveform, sample_rate_hz, effects, os.fspath(path))
    else:
        source = ["-t", format] if format else []
        waveform, sample_rate_hz = _run_sox(program, [*source, os.fspath(path)], effects)
    return (waveform if channels_first else waveform.t().contiguous()), sample_rate_hz


def apply_effects_tensor(
    tensor: torch.Tensor, sample_rate: int, effects: Sequence[Sequence[str]], channels_first: bool = True
) -> tuple[torch.Tensor, int]:
    """Run a waveform through a chain of sox effects, as ``torchaudio.sox_effects.apply_effects_tensor`` did.

    Args:
        tensor: float32 waveform, ``(channels, samples)``, or ``(samples, channels)`` if not ``channels_first``.
        sample_rate: in Hz.
        effects: chain of effects.
        channels_first: layout of input and output.

    Raises:
        RuntimeError: as :func:`apply_effects_file`.

    Example:
        >>> quieter, rate = apply_effects_tensor(torch.ones(1, 160), 16000, [["channels", "1"], ["gain", "-6.0"]])
        >>> round(quieter[0, 0].item(), 3), rate
        (0.501, 16000)
    """
    waveform = tensor if channels_first else tensor.t()
    program = sox_path()
    if program is None:
        result, rate_hz = _exact_effects(waveform, sample_rate, effects, "a waveform"), sample_rate
    else:
        raw = waveform.t().contiguous().float().numpy().tobytes()
        source = ["-t", "f32", "-r", str(sample_rate), "-c", str(waveform.shape[0]), "-"]
        result, rate_hz = _run_sox(program, source, effects, raw)
    return (result if channels_first else result.t().contiguous()), rate_hz


def _run_sox(
    program: str, source: list[str], effects: Sequence[Sequence[str]], stdin: bytes | None = None
) -> tuple[torch.Tensor, int]:
    # -D: no dither, as in the library. -V1: the length in a piped header is always wrong, sox need not warn.
    chain = [str(word) for effect in effects for word in effect]
    command = [program, "-V1", "-D", *source, "-t", "wav", "-e", "float", "-b", "32", "-", *chain]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise RuntimeError(f"sox failed with exit code {done.returncode} on {' '.join(command)!r}: {reason}")
    return load(io.BytesIO(done.stdout))


def _exact_effects(
    waveform: torch.Tensor, sample_rate_hz: int, effects: Sequence[Sequence[str]], source: str
) -> torch.Tensor:
    for name, *arguments in effects:
        if name == "channels" and arguments == ["1"]:
            waveform = waveform.mean(dim=0, keepdim=True)
        elif name == "gain" and len(arguments) == 1:
            waveform = waveform * math.pow(10.0, float(arguments[0]) / 20.0)
        elif name == "rate" and arguments == [str(sample_rate_hz)]:
            continue
        else:
            effect = " ".join([name, *map(str, arguments)])
            raise RuntimeError(
                f"The sox effect {effect!r} on {source} ({sample_rate_hz} Hz) needs the program sox, which was not "
                f"found; an imitation would give other scores. Type: {INSTALL_SOX}."
            )
    return waveform


def bridge_sox_effects() -> Shim:
    """``torchaudio.sox_effects``: absent from torchaudio 2.9 on, unusable before without ``libsox.so``."""
    torchaudio, name = load_torchaudio(), "torchaudio.sox_effects"
    try:
        import torchaudio.sox_effects as real

        real.apply_effects_tensor(torch.zeros(1, 160), 16000, [["channels", "1"]])
        return Shim(name, False, "torchaudio's own sox effects work")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        reason = "gone from torchaudio 2.9 on" if isinstance(error, ImportError) else f"libsox does not load ({error})"
    functions = {"apply_effects_file": apply_effects_file, "apply_effects_tensor": apply_effects_tensor}
    if hasattr(torchaudio, "sox_effects"):
        vars(torchaudio.sox_effects).update(functions)
    else:
        register_module(name, **functions)
    program = sox_path()
    how = f"{program} is used" if program else f"sox is missing, so only 16 kHz files work: {INSTALL_SOX}"
    return Shim(name, True, f"{reason}; {how}")
