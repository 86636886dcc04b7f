"""What s3prl's heads expect of an upstream, checked with short noises and silence before anything long starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from robustdistiller.upstream import CheckpointError
from robustdistiller.upstream.s3prl.entries import find_checkpoint, require_entry

LONG_SAMPLES, SHORT_SAMPLES, SHORTEST_SAMPLES = 16000, 9600, 800
# s3prl's Featurizer stops at a difference of 5 frames between what an upstream gives and what its rate promises.
_FRAMES_TOLERANCE = 5
# Relative to the root mean square of a layer. Between the two, padding leaks into the features, as it does where
# convolutions are normalised over time without a mask (wav2vec 2.0 Base and its family); above, utterances mix.
_SAME, _LEAKING = 1e-3, 0.5


class ContractError(ValueError):
    """An upstream breaks what s3prl's heads rely on; the message says where."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was looked at.
        ok: it is as it should be.
        found: what was found, and where it is wrong what was expected.
        required: heads cannot be trained without it; otherwise it is advice.
    """

    name: str
    ok: bool
    found: str
    required: bool = True


def check_upstream(
    name: str, checkpoint: str | None = None, options: str | None = None, device: str = "cpu"
) -> list[Finding]:
    """Load an upstream as s3prl does and look at what it gives for noises and for silence.

    Args:
        name: entry of s3prl's hub, ours included (``-u``).
        checkpoint: what its ``-k`` is given.
        options: what its ``-g`` is given.
        device: where it runs.

    Returns:
        Findings up to the first one that makes the rest meaningless.

    Example:
        >>> [finding.name for finding in check_upstream("no_such_upstream")]
        ['entry']
    """
    try:
        upstream = open_upstream(name, checkpoint, options)
    except ContractError as error:
        return [Finding("entry", False, str(error))]
    return examine(upstream, device)


def open_upstream(name: str, checkpoint: str | None = None, options: str | None = None) -> Any:
    """Load an upstream as s3prl does; the arguments are those of `check_upstream`.

    Raises:
        ContractError: there is no such entry (the nearest are given), or it does not load.
    """
    try:
        require_entry(name)
        find_checkpoint(name, checkpoint)
    except (FileNotFoundError, ValueError) as error:
        raise ContractError(str(error)) from error
    from s3prl import hub

    try:
        return getattr(hub, name)(ckpt=checkpoint, model_config=options, refresh=False)
    except (Exception, SystemExit) as error:  # of whatever kind: the upstream is anybody's code
        why = str(error) if isinstance(error, CheckpointError) else f"{type(error).__name__}: {error}"
        raise ContractError(f"{name} does not load: {why}") from error


def examine(upstream: Any, device: str = "cpu") -> list[Finding]:
    """The same for an upstream that is loaded."""
    if not isinstance(upstream, torch.nn.Module):
        return [Finding("type", False, f"the upstream is a {type(upstream).__name__}; expected a torch.nn.Module")]
    try:
        rate = upstream.get_downsample_rates("hidden_states")  # type: ignore[operator]
    except Exception as error:  # noqa: BLE001 - the report says whatever went wrong
        what = "get_downsample_rates('hidden_states')"
        return [Finding("rate", False, f"{what} raised {type(error).__name__}: {error}; expected a number of samples")]
    # Real, for NumPy's numbers are fine.
    if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 < float(rate) < math.inf:
        return [Finding("rate", False, f"get_downsample_rates gives {rate!r}; expected samples per frame, e.g. 320")]
    findings = [Finding("rate", True, f"one frame per {rate:g} samples")]
    upstream = upstream.to(device).eval()
    noises = _noises(device)
    checks: Sequence[Callable[..., list[Finding]]] = (
        _check_output,
        _check_repeats,
        _check_batch,
        _check_shortest,
        _check_silence,
    )
    with torch.no_grad():
        for check in checks:
            try:
                findings += check(upstream, noises, rate)
            except _Broken as error:
                return [*findings, error.finding]
            except Exception as error:  # noqa: BLE001 - the report says whatever went wrong
                what = check.__name__.removeprefix("_check_").replace("shortest", "50 ms")
                return [*findings, Finding(what, False, f"forward raised {type(error).__name__}: {error}")]
    return findings


def require(findings: Sequence[Finding]) -> None:
    """Refuse an upstream that heads cannot be trained on.

    Raises:
        ContractError: naming what breaks.
    """
    broken = [finding for finding in findings if not finding.ok and finding.required]
    if broken:
        what = "; ".join(f"({finding.name}): {finding.found}" for finding in broken)
        raise ContractError(f"the upstream breaks the contract {what}")


class _Broken(Exception):
    """Carries the finding after which nothing more can be looked at."""

    def __init__(self, name: str, found: str) -> None:
        super().__init__(found)
        self.finding = Finding(name, False, found)


def _noises(device: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(size, generator=generator).to(device) for size in (LONG_SAMPLES, SHORT_SAMPLES)]


def _layers(upstream: torch.nn.Module, waveforms: list[Tensor]) -> list[Tensor]:
    """The hidden states of a batch, of the right types and shapes."""
    output = upstream([waveform.clone() for waveform in waveforms])
    if not isinstance(output, dict) or "hidden_states" not in output:
        found = f"a {type(output).__name__}" + (
            f" with keys {sorted(map(str, output))}" if isinstance(output, dict) else ""
        )
        raise _Broken("types", f"forward gives {found}; expected a dict with hidden_states")
    states = output["hidden_states"]
    if not isinstance(states, list | tuple) or not states:
        found = f"a {type(states).__name__}" + (" without entries" if isinstance(states, list | tuple) else "")
        raise _Broken("types", f"hidden_states is {found}; expected a list of tensors")
    for index, state in enumerate(states):
        if not isinstance(state, Tensor) or not state.is_floating_point():
            found = f"a tensor of {state.dtype}" if isinstance(state, Tensor) else f"a {type(state).__name__}"
            wanted = "a floating-point tensor (batch, frames, features)"
            raise _Broken("types", f"hidden_states[{index}] is {found}; expected {wanted}")
        if state.dim() != 3 or state.shape[0] != len(waveforms):
            wanted = f"({len(waveforms)}, frames, features) for {len(waveforms)} waveforms"
            raise _Broken("shapes", f"hidden_states[{index}] has shape {tuple(state.shape)}; expected {wanted}")
        if state.shape != states[0].shape:
            both = f"{tuple(states[0].shape)} and {tuple(state.shape)}"
            raise _Broken("shapes", f"hidden_states[0] and [{index}] have shapes {both}; expected equal ones")
        if not torch.isfinite(state).all():
            raise _Broken("values", f"hidden_states[{index}] holds numbers that are not finite")
    return [state.detach().float() for state in states]


def _check_output(upstream: torch.nn.Module, noises: list[Tensor], rate: float) -> list[Finding]:
    layers = _layers(upstream, noises)
    frames, features = layers[0].shape[1:]
    promised = round(LONG_SAMPLES / rate)
    if abs(frames - promised) >= _FRAMES_TOLERANCE:
        raise _Broken(
            "frames",
            f"{frames} frames for {LONG_SAMPLES} samples; expected {promised}, as its rate of {rate:g} samples says",
        )
    return [Finding("output", True, f"{len(layers)} hidden states of {features} features, {frames} frames a second")]


def _check_repeats(upstream: torch.nn.Module, noises: list[Tensor], rate: float) -> list[Finding]:
    difference = _difference(_layers(upstream, noises), _layers(upstream, noises))
    if difference > _SAME:
        raise _Broken(
            "repeats",
            f"the same noise gives features that differ by {difference:.0%} the second time; "
            "expected none in evaluation mode (is dropout on?)",
        )
    return [Finding("repeats", True, "the same noise gives the same features")]


def _check_batch(upstream: torch.nn.Module, noises: list[Tensor], rate: float) -> list[Finding]:
    together = _layers(upstream, noises)
    worst = 0.0
    for index, noise in enumerate(noises):
        alone = _layers(upstream, [noise])
        # The last frames of a padded utterance see the padding in any upstream.
        frames = min(alone[0].shape[1], together[0].shape[1], math.floor(len(noise) / rate)) - 2
        worst = max(worst, _difference([t[index, :frames] for t in together], [a[0, :frames] for a in alone]))
    if worst <= _SAME:
        return [Finding("batch", True, "an utterance has the same features in a batch as alone")]
    found = f"in a padded batch the features of an utterance differ by {worst:.1%} from those it has alone"
    if worst > _LEAKING:
        raise _Broken("batch", f"{found}; expected the same: are utterances mixed up?")
    return [Finding("batch", False, f"{found}: padding leaks into them, so scores depend on the batch size", False)]


def _check_shortest(upstream: torch.nn.Module, noises: list[Tensor], rate: float) -> list[Finding]:
    frames = _layers(upstream, [noises[0][:SHORTEST_SAMPLES]])[0].shape[1]
    if frames < 1:
        raise _Broken("50 ms", "no frame for 50 ms of audio; expected at least one")
    return [Finding("50 ms", True, f"{frames} frames for 50 ms of audio")]


def _check_silence(upstream: torch.nn.Module, noises: list[Tensor], rate: float) -> list[Finding]:
    fading = noises[0].clone()
    fading[LONG_SAMPLES // 2 :] = 0
    try:
        _layers(upstream, [fading, torch.zeros_like(noises[1])])
    except _Broken as error:
        if error.finding.name != "values":
            raise
        found = "digital silence gives features that are not finite; heads stop at the first utterance that has some"
        return [Finding("silence", False, found, False)]
    return [Finding("silence", True, "features of digital silence are finite")]


def _difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest root mean square difference of a layer, relative to the layer's own."""
    return max(
        float((f - e).square().mean().sqrt() / e.square().mean().sqrt().clamp_min(1e-8))
        for f, e in zip(found, expected)
    )
