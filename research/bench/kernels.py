"""What each CPU kernel of `fast` gains end to end: the encoder with it beside the encoder as it is.

Shapes of WavLM Base+ and of a DistilHuBERT, random weights: their speed is that of trained ones. A kernel that gains
less than a tenth in every line has to go.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from research.bench.edge import final_shape
from research.bench.measure import Comparison, alternate, work_clock
from research.bench.settings import Findings, Settings
from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.eval.cost.protocol import noise
from robustdistiller.upstream import EncoderConfig, SpeechEncoder
from robustdistiller.upstream.fast import accelerate, accelerate_training
from robustdistiller.upstream.fast.spectral_position import SpectralPosition

DURATIONS_S = (10.0, 2.0)
EXTRACTOR, POSITION = "conv extractor alone", "position convolution by spectra alone"


def run(settings: Settings) -> Findings:
    """Inference on one utterance, and a step of the student on four unequal ones."""
    durations_s, shapes = DURATIONS_S, {"tiny": EncoderConfig.tiny(position_kernel=128)}
    if settings.quick:
        durations_s = (2.0,)
    else:
        teacher = EncoderConfig.wavlm_base_plus()
        shapes = {
            "WavLM Base+": teacher,
            "two-layer student": EncoderConfig(num_layers=2, feature_norm=False, prediction_layers=(4, 8, 12)),
            "fast50": final_shape(teacher, "fast50", []),
        }
    comparisons = []
    for name, config in shapes.items():
        encoder = SpeechEncoder(config).eval().requires_grad_(False)
        for duration_s in durations_s:
            waveform = noise(round(duration_s * SAMPLE_RATE_HZ), settings.seed).unsqueeze(0)
            title = f"{name}, inference on {duration_s:g} s"
            comparisons += _compare(
                title, encoder, _frozen(encoder), lambda one, x=waveform: one(x).hidden_states[-1], settings
            )
    longest_s = durations_s[0]
    student = SpeechEncoder(list(shapes.values())[min(1, len(shapes) - 1)].replace(dropout=0.0, attention_dropout=0.0))
    waveforms = torch.stack([noise(round(longest_s * SAMPLE_RATE_HZ), settings.seed + i) for i in range(4)])
    lengths = torch.tensor([waveforms.shape[1], *[waveforms.shape[1] * 3 // 5] * 3])
    weights = torch.randn(student.config.embed_dim, generator=torch.Generator().manual_seed(settings.seed))
    ways = {"fast.accelerate_training": copy.deepcopy(student), POSITION: copy.deepcopy(student)}
    for name, one in ways.items():
        accelerate_training(one, extractor=name != POSITION)

    def step(one: SpeechEncoder) -> torch.Tensor:
        output = one(waveforms, lengths)
        loss = (output.hidden_states[-1][0] @ weights).square().mean()  # a mean of normed states has no gradient
        one.zero_grad()
        loss.backward()
        return one.transformer.layers[0].up.weight.grad.clone()

    name = list(shapes)[min(1, len(shapes) - 1)]
    comparisons += _compare(f"{name}, forward and backward", student, ways, step, settings)
    comparisons += _teacher(next(iter(shapes.items())), longest_s, settings)
    text = (
        f"One thread, processor time; in training a batch of four of {longest_s:g} s, three of which end after three "
        "fifths, to the teacher a batch of four. Each line is the whole encoder.",
    )
    return Findings(tuple(comparisons), (), text)


def _frozen(encoder: SpeechEncoder) -> dict[str, SpeechEncoder]:
    """All kernels for inference, and each by itself."""
    ways = {"fast.accelerate": accelerate(encoder)}
    if encoder.config.front_end == "conv":
        ways[EXTRACTOR] = accelerate(encoder)
        ways[EXTRACTOR].transformer.position = encoder.transformer.position
    ways[POSITION] = copy.deepcopy(encoder)
    ways[POSITION].transformer.position = SpectralPosition(encoder.transformer.position, frozen=True)
    return ways


def _teacher(shape: tuple[str, EncoderConfig], duration_s: float, settings: Settings) -> list[Comparison]:
    """The frozen teacher of a training with `teacher.autocast`: in bfloat16, with the kernels for training."""
    name, config = shape
    encoder = SpeechEncoder(config).eval().requires_grad_(False)
    fast = copy.deepcopy(encoder)
    accelerate_training(fast)
    waveforms = torch.stack([noise(round(duration_s * SAMPLE_RATE_HZ), settings.seed + i) for i in range(4)])

    def hear(one: SpeechEncoder) -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return one(waveforms).hidden_states[-1].float()

    ways = {"fast.accelerate_training": fast}
    return _compare(f"{name}, teacher in bfloat16", encoder, ways, hear, settings)


def _compare(
    title: str,
    encoder: SpeechEncoder,
    ways: dict[str, SpeechEncoder],
    call: Callable[[SpeechEncoder], torch.Tensor],
    settings: Settings,
) -> list[Comparison]:
    expected = call(encoder)
    errors = {name: float((call(one) - expected).abs().max() / expected.abs().max()) for name, one in ways.items()}
    timed = {name: lambda one=one: call(one) for name, one in {"as it is": encoder, **ways}.items()}
    seconds = alternate(timed, settings.rounds, clock=work_clock("cpu"))
    return [
        Comparison(
            f"{title}: {name}", "kernel", "plain modules", seconds[name], seconds["as it is"],
            f"equal to {errors[name]:.1e} of the largest value",
        )
        for name in ways
    ]  # fmt: skip
