"""The two functions of asteroid that SE and SS call: separation metrics and the permutation-invariant loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations

import numpy as np
import torch

from robustdistiller.upstream.s3prl.bridge.shim import Shim, stand_in, working_import


def si_sdr_db(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB of the zero-mean signals (Le Roux et al. 2019, section 3).

    Args:
        reference: ``(samples,)``.
        estimate: ``(samples,)``.

    Example:
        >>> angle = 2 * np.pi * np.arange(16000) / 160
        >>> round(si_sdr_db(np.sin(angle), 3 * np.sin(angle) + 0.3 * np.cos(angle) + 0.5), 6)
        20.0
    """
    tiny = 1e-8  # the same guard as asteroid: silence gives -80 dB, not a division by zero
    reference = reference.astype(np.float64) - reference.mean()
    estimate = estimate.astype(np.float64) - estimate.mean()
    target = np.dot(reference, estimate) / (np.dot(reference, reference) + tiny) * reference
    distortion = estimate - target
    return float(10 * np.log10(np.dot(target, target) / (np.dot(distortion, distortion) + tiny) + tiny))


def _stoi(reference: np.ndarray, estimate: np.ndarray, sample_rate_hz: int) -> float:
    from pystoi import stoi

    return float(stoi(reference, estimate, fs_sig=sample_rate_hz))


def _pesq(reference: np.ndarray, estimate: np.ndarray, sample_rate_hz: int) -> float:
    from pesq import pesq

    return float(pesq(sample_rate_hz, reference, estimate, "wb" if sample_rate_hz == 16000 else "nb"))


_TASKS = ("enhancement_stft", "enhancement_stft2", "separation_stft", "separation_stft2")
_METRICS: dict[str, Callable[[np.ndarray, np.ndarray, int], float]] = {
    "si_sdr": lambda reference, estimate, _rate: si_sdr_db(reference, estimate),
    "stoi": _stoi,
    "pesq": _pesq,
}


def get_metrics(
    mix: np.ndarray,
    clean: np.ndarray,
    estimate: np.ndarray,
    sample_rate: int = 16000,
    metrics_list: Sequence[str] | str = "all",
    average: bool = True,
    compute_permutation: bool = False,
    **_ignored: object,
) -> dict[str, float]:
    """Metrics of separated or enhanced signals, with the call and the keys of ``asteroid.metrics.get_metrics``.

    With ``compute_permutation`` the estimates are ordered for the highest mean SI-SDR (asteroid orders them by the
    signal-to-interference ratio of BSS Eval; the order differs only when it is close to a tie).

    Args:
        mix: the mixture, ``(1, samples)`` or ``(samples,)``.
        clean: reference sources, ``(sources, samples)``.
        estimate: estimated sources, ``(sources, samples)``.
        sample_rate: in Hz, 16000 or 8000 for PESQ.
        metrics_list: some of ``si_sdr`` (dB), ``stoi`` (0 to 1), ``pesq`` (about 1 to 4.6), or ``"all"``.
        average: must be True: the mean over the sources is returned.
        compute_permutation: see above.

    Returns:
        For each metric ``name`` of the estimate and ``input_name`` of the mixture.

    Raises:
        ValueError: unknown metric, ``average`` is False, or sources and estimates differ in shape.
        ModuleNotFoundError: pystoi or pesq is missing.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> clean, noise = rng.standard_normal((1, 16000)), rng.standard_normal((1, 16000))
        >>> metrics = get_metrics(clean + noise, clean, clean + 0.1 * noise, metrics_list=["si_sdr"])
        >>> {name: round(value) for name, value in metrics.items()}
        {'input_si_sdr': 0, 'si_sdr': 20}
    """
    names = (
        list(_METRICS) if metrics_list == "all" else [metrics_list] if isinstance(metrics_list, str) else metrics_list
    )
    unknown = sorted(set(names) - set(_METRICS))
    if unknown or not average:
        problem = f"the metrics {unknown}" if unknown else "average=False"
        raise ValueError(f"This stand-in for asteroid has no {problem}; it knows {sorted(_METRICS)}: install asteroid.")
    if clean.shape != estimate.shape or clean.ndim != 2:
        raise ValueError(f"Expected two (sources, samples) arrays of one shape, found {clean.shape}, {estimate.shape}.")
    mixture = mix.reshape(-1)
    if compute_permutation:
        orders = [list(order) for order in permutations(range(len(clean)))]
        estimate = max(
            (estimate[order] for order in orders),
            key=lambda ordered: sum(map(si_sdr_db, clean, ordered)),
        )
    result = {}
    for name in names:
        measure = _METRICS[name]
        result[f"input_{name}"] = float(np.mean([measure(source, mixture, sample_rate) for source in clean]))
        pairs = zip(clean, estimate)
        result[name] = float(np.mean([measure(source, guess, sample_rate) for source, guess in pairs]))
    return result


class PITLossWrapper(torch.nn.Module):
    """Permutation-invariant loss over a matrix of pairwise losses, as ``asteroid.losses.PITLossWrapper``.

    Args:
        loss_func: ``(estimates, targets, **kwargs) -> (batch, estimates, targets)`` pairwise losses.
        pit_from: must be ``"pw_mtx"``.

    Raises:
        ValueError: another ``pit_from``.

    Example:
        >>> def distance(estimates, targets):
        ...     return (estimates.unsqueeze(2) - targets.unsqueeze(1)).abs().mean(-1)
        >>> swapped = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
        >>> PITLossWrapper(distance)(swapped, swapped.flip(1)).item()
        0.0
    """

    def __init__(self, loss_func: Callable[..., torch.Tensor], pit_from: str = "pw_mtx") -> None:
        super().__init__()
        if pit_from != "pw_mtx":
            raise ValueError(f"This stand-in for asteroid knows pit_from='pw_mtx' only, found {pit_from!r}.")
        self.loss_func = loss_func

    def forward(self, est_targets: torch.Tensor, targets: torch.Tensor, **kwargs: object) -> torch.Tensor:
        pairwise = self.loss_func(est_targets, targets, **kwargs)
        columns = torch.arange(pairwise.shape[-1], device=pairwise.device)
        losses = [pairwise[:, list(order), columns].mean(-1) for order in permutations(range(pairwise.shape[1]))]
        return torch.stack(losses).min(dim=0).values.mean()


def bridge_asteroid() -> Shim:
    """``asteroid.metrics.get_metrics`` and ``asteroid.losses.PITLossWrapper``: SE and SS."""
    works, reason = working_import("asteroid.metrics")
    if works:
        return Shim("asteroid", False, reason)
    tasks = [f"s3prl.downstream.{task}" for task in _TASKS]
    stand_in("asteroid.metrics", [f"{task}.expert" for task in tasks], get_metrics=get_metrics)
    stand_in("asteroid.losses", [f"{task}.loss" for task in tasks], PITLossWrapper=PITLossWrapper)
    return Shim("asteroid", True, f"{reason}; SE and SS need two small functions of it")
