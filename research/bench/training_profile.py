"""Where the time of a training step goes, against the machine's own limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from statistics import median

from torch.profiler import ProfilerActivity, profile

from research.bench.machine import bandwidth, matrix_rate
from research.bench.measure import Comparison

#: Kernels by kind: the beginnings of their names, the first that fits counts.
_KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "convolutions": ("aten::mkldnn_conv", "aten::convolution_backward", "aten::cudnn_conv", "aten::_slow_conv"),
    "attention": ("aten::_scaled_dot_product", "aten::_efficient", "aten::_flash", "aten::_cudnn_attention",
                  "aten::_softmax"),
    "recurrent layers": ("aten::mkldnn_rnn", "aten::_cudnn_rnn", "aten::_thnn"),
    "GELU": ("aten::gelu",),
    "Fourier transforms": ("aten::_fft",),
    "norms": ("aten::native_layer_norm", "aten::native_group_norm", "aten::_weight_norm"),
    "random numbers": ("aten::bernoulli", "aten::normal", "aten::uniform", "aten::native_dropout"),
    "copies and zeros": ("aten::copy_", "aten::cat", "aten::fill_", "aten::zero", "aten::clone", "aten::gather",
                         "aten::scatter", "aten::index"),
    "optimizer": ("aten::_fused_adam", "aten::_foreach"),
}  # fmt: skip


#: Kinds whose limit is the memory: what they read and write is counted; of others the operations, if shapes say them.
_MOVING = ("GELU", "norms", "copies and zeros", "random numbers")


@dataclass(frozen=True)
class StepParts:
    """Where the time of a step goes.

    Attributes:
        what: the size of the step, in words.
        seconds: by kind of kernel, in proportion to the step as it is without profiler.
        flops: of kinds that compute, as many as the shapes say.
        moved_bytes: of kinds that move, read and written.
        step_s: the whole step.
        matrix_rate: operations per second that the machine reaches.
        bandwidth: bytes per second.

    >>> StepParts("4 x 10 s", {"GELU": 0.5}, {}, {"GELU": 4e9}, 1.0, 1e12, 1e10).limit_s("GELU")
    0.4
    """

    what: str
    seconds: Mapping[str, float]
    flops: Mapping[str, float]
    moved_bytes: Mapping[str, float]
    step_s: float
    matrix_rate: float
    bandwidth: float

    def limit_s(self, kind: str) -> float | None:
        """Seconds that a kind would take at the machine's full rate; `None` where its work is not known."""
        if self.flops.get(kind):
            return self.flops[kind] / self.matrix_rate
        return self.moved_bytes[kind] / self.bandwidth if self.moved_bytes.get(kind) else None


class StepProfile:
    """Profiles the last of a few steps of a run.

    Args:
        device: where it runs.

    >>> StepProfile("cpu").seconds
    Counter()
    """

    def __init__(self, device: str):
        self.device = device
        self.seconds, self.flops, self.moved_bytes = Counter(), Counter(), Counter()

    def on_batch_start(self, distiller, batch, step) -> None:
        """Begin at the last step."""
        if step == distiller.config.trainer.max_steps:
            kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device != "cpu" else [])]
            self._profile = profile(activities=kinds, record_shapes=True)
            self._profile.__enter__()

    def on_step_end(self, distiller, report) -> None:
        """Add up."""
        if report.step < distiller.config.trainer.max_steps:
            return
        self._profile.__exit__(None, None, None)
        for event in self._profile.key_averages(group_by_input_shape=True):
            own_us = event.self_cpu_time_total if self.device == "cpu" else event.self_device_time_total
            kind = next((kind for kind, names in _KINDS.items() if event.key.startswith(names)), "the rest")
            self.seconds[kind] += own_us / 1e6
            if kind in _MOVING:
                self.moved_bytes[kind] += event.count * moved_bytes(event.key, event.input_shapes)
            else:
                self.flops[kind] += event.count * kernel_flops(event.key, event.input_shapes)
        del self._profile

    def parts(self, what: str, step_s: float) -> StepParts:
        """What was found, for a step that takes `step_s` without profiler, and what the machine can do."""
        scale = step_s / sum(self.seconds.values())
        seconds = {kind: scale * seconds for kind, seconds in self.seconds.items()}
        limits = matrix_rate(self.device), bandwidth(self.device)
        return StepParts(what, seconds, dict(self.flops), dict(self.moved_bytes), step_s, *limits)


def kernel_flops(name: str, shapes: list[list[int]]) -> int:
    """Operations of a matrix product, of attention or of a recurrent layer of PyTorch; 0 for others.

    >>> kernel_flops("aten::mm", [[2, 3], [3, 4]]), kernel_flops("aten::addmm_", [[2, 4], [2, 3], [3, 4], [], []])
    (48, 48)
    >>> kernel_flops("aten::_scaled_dot_product_flash_attention_for_cpu", [[1, 12, 100, 64]] * 3)
    30720000
    """
    backward = "backward" in name
    if name.startswith(_KINDS["matrix products"]):
        first = 1 if "add" in name else 0
        a, b = shapes[first : first + 2]
        return 2 * prod(a) * b[-1] if a and b else 0
    if name.startswith("aten::_scaled_dot_product"):  # 2 products, and 5 in the gradient
        queries, keys = shapes[1:3] if backward else shapes[:2]
        return (5 if backward else 2) * 2 * prod(queries) * keys[-2]
    if name.startswith("aten::mkldnn_rnn_layer"):  # input (T, B, I), weights (4H, I) and (4H, H)
        x, *weights = shapes[:3]
        return (2 if backward else 1) * 2 * prod(x[:-1]) * sum(map(prod, weights))
    return 0


def moved_bytes(name: str, shapes: list[list[int]]) -> int:
    """Bytes in float32 that a kernel without a product has to read and write at least.

    >>> moved_bytes("aten::gelu", [[10, 100]]), moved_bytes("aten::gelu_backward", [[10, 100]] * 2)
    (8000, 12000)
    >>> moved_bytes("aten::copy_", [[10, 100]] * 2), moved_bytes("aten::zero_", [[10, 100]])
    (8000, 4000)
    """
    sizes = [prod(shape) for shape in shapes if shape and all(isinstance(size, int) for size in shape)]
    if not sizes:
        return 0
    in_place = name.endswith("_")
    return 4 * (sum(sizes) + (0 if in_place else max(sizes)))


def where_time_goes(profile: StepParts, comparison: Comparison) -> tuple[str, ...]:
    """Paragraphs on a profile and on what the other way leaves to gain."""
    lines = []
    for kind, seconds in sorted(profile.seconds.items(), key=lambda part: -part[1]):
        line = f"{kind} {seconds:.2f} s ({seconds / profile.step_s:.0%})"
        limit_s = profile.limit_s(kind)
        if limit_s is not None and seconds > 0.01 * profile.step_s:
            if kind in _MOVING:
                line += f", {profile.moved_bytes[kind] / seconds / 1e9:.1f} GB/s, {limit_s / seconds:.0%} of a copy's"
            else:
                line += f", {profile.flops[kind] / seconds / 1e9:.1f} GFLOP/s, {limit_s / seconds:.0%} of the best"
        lines.append(line)
    least_s = sum(profile.limit_s(kind) or 0.0 for kind in profile.flops)
    flops, peer_s = sum(profile.flops.values()), median(comparison.peer_s)
    return (
        f"Our step of {profile.what} by kernels (profiled, in proportion to its {profile.step_s:.2f} s): "
        f"{'; '.join(lines)}. The best matrix product reaches {profile.matrix_rate / 1e9:.1f} GFLOP/s here, a copy "
        f"{profile.bandwidth / 1e9:.1f} GB/s.",
        f"The {flops / 1e9:,.0f} GFLOP counted would take {least_s:.2f} s at that rate, {least_s / profile.step_s:.0%} "
        f"of the step: what else there is to gain is {profile.step_s / least_s:.2f} times at most, and no step with "
        f"these operations can be more than {peer_s / least_s:.2f} times faster than the other way.",
    )
