"""The enhancement head: spectra and mask loss against NumPy and SciPy, the LSTM against packed sequences."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.signal
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from robustdistiller.pretrain import SettingsError
from robustdistiller.pretrain.objectives import Step, si_snr_db, spectral_distance, valid_frames
from robustdistiller.pretrain.objectives.enhancement import (
    STFT,
    BiLSTM,
    Enhancement,
    EnhancementHead,
    num_spectra,
)
from robustdistiller.pretrain.objectives.spectra import mrstft_distance, spectrum

from .conftest import STUDENT


def magnitude_spectrum(waveforms: torch.Tensor) -> torch.Tensor:
    return spectrum(waveforms, *STFT).abs()


def numpy_magnitudes(samples: np.ndarray) -> np.ndarray:
    """(samples // 160 + 1, 257), by writing out the definition."""
    window = np.zeros(512)
    window[56:456] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    padded = np.pad(samples.astype(np.float64), 256)
    frames = [padded[start : start + 512] * window for start in range(0, len(samples) // 160 * 160 + 1, 160)]
    return np.abs(np.fft.rfft(frames))


def test_spectrum_equals_numpy_and_scipy() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 3333).astype(np.float32)
    found = magnitude_spectrum(torch.from_numpy(samples)[None])[0].numpy()
    np.testing.assert_allclose(found, numpy_magnitudes(samples), atol=2e-6)
    hann = scipy.signal.get_window("hann", 400)
    _, _, spectrum = scipy.signal.stft(
        samples, window=hann, nperseg=400, noverlap=240, nfft=512, boundary="zeros", padded=False
    )
    inner = np.abs(spectrum.T) * hann.sum()  # SciPy starts its window half a window earlier and scales by its sum
    np.testing.assert_allclose(found[: len(inner)], inner[: len(found)], atol=2e-6)


def test_spectrum_of_a_padded_batch_equals_alone() -> None:
    samples = torch.randn(2, 4000)
    samples[1, 2500:] = 0
    batch = magnitude_spectrum(samples)
    lengths = num_spectra(torch.tensor([4000, 2500]))
    assert lengths.tolist() == [26, 16]
    torch.testing.assert_close(batch[1, : lengths[1]], magnitude_spectrum(samples[1:, :2500])[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_bilstm_equals_packed_sequences(num_layers: int) -> None:
    torch.manual_seed(0)
    reference = nn.LSTM(6, 5, num_layers, batch_first=True, bidirectional=True)
    ours = BiLSTM(6, 5, num_layers)
    for layer in range(num_layers):
        for module, suffix in ((ours.ahead[layer], ""), (ours.back[layer], "_reverse")):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(module, f"{name}_l0").data.copy_(getattr(reference, f"{name}_l{layer}{suffix}"))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in reference.parameters())
    lengths = torch.tensor([4, 9, 1])
    x = torch.randn(3, 9, 6)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(reference(packed)[0], batch_first=True)
    found, valid = ours(x, lengths), valid_frames(lengths, 9)
    torch.testing.assert_close(found[valid], expected[valid], rtol=0, atol=1e-6)
    plain = reference(x)[0]
    assert (plain[valid] - expected[valid]).abs().max() > 1e-3, "padding does not matter in this test"


def test_mask_loss_equals_numpy() -> None:
    torch.manual_seed(0)
    head = EnhancementHead(4, hidden_size=3, num_layers=1).eval()
    lengths = torch.tensor([3200, 2000])
    noisy, clean = torch.randn(2, 3200), torch.randn(2, 3200)
    for waveforms in (noisy, clean):
        waveforms[1, 2000:] = 0
    features, frame_lengths = torch.randn(2, 9, 4), torch.tensor([9, 5])
    spectra = num_spectra(lengths)
    estimate = head(features, frame_lengths, magnitude_spectrum(noisy), spectra)
    loss = spectral_distance(estimate, magnitude_spectrum(clean), valid_frames(spectra, estimate.shape[1]))

    differences = []
    for row, (length, frames) in enumerate(zip(lengths.tolist(), frame_lengths.tolist())):
        spectrum = numpy_magnitudes(noisy[row, :length].numpy())
        repeated = np.repeat(features[row, :frames].numpy(), 2, axis=0)
        repeated = np.pad(repeated, ((0, len(spectrum) - len(repeated)), (0, 0)))
        with torch.no_grad():
            hidden = head.lstm(torch.from_numpy(repeated)[None], torch.tensor([len(repeated)]))[0].numpy()
        logits = hidden @ head.linear.weight.detach().numpy().T + head.linear.bias.detach().numpy()
        masked = spectrum / (1 + np.exp(-logits))
        differences.append(np.abs(masked - numpy_magnitudes(clean[row, :length].numpy())).ravel())
    assert loss.item() == pytest.approx(np.concatenate(differences).mean(), rel=1e-5)


def test_mask_lies_between_nothing_and_all() -> None:
    head = EnhancementHead(4, hidden_size=3, num_layers=1)
    noisy = torch.rand(1, 21, 257)
    estimate = head(torch.randn(1, 9, 4) * 50, torch.tensor([9]), noisy, torch.tensor([21]))
    assert torch.all(estimate >= 0) and torch.all(estimate <= noisy)


@pytest.fixture
def make_objective(make_shapes):
    """The term and its head, small, with the head's weights drawn from a fixed seed, in eval mode."""

    def make(**options) -> tuple[Enhancement, EnhancementHead]:
        torch.manual_seed(0)
        objective = Enhancement(hidden_size=3, num_layers=1, **options)
        return objective, objective.make_head(make_shapes()).eval()

    return make


def _cut(step: Step, index: int) -> Step:
    """One utterance of a step, without padding."""
    samples, frames = int(step.batch.lengths[index]), int(step.valid[index].sum())
    rows = slice(index, index + 1)
    batch = dataclasses.replace(
        step.batch,
        ids=step.batch.ids[rows],
        waveforms=step.batch.waveforms[rows, :samples],
        lengths=step.batch.lengths[rows],
    )
    output = step.student._replace(
        extractor_features=step.student.extractor_features[rows, :frames],
        hidden_states=[x[rows, :frames] for x in step.student.hidden_states],
        frame_lengths=step.student.frame_lengths[rows],
    )
    return dataclasses.replace(step, batch=batch, student=output, student_input=step.student_input[rows, :samples])


@pytest.mark.parametrize("kind", ["si_snr", "mrstft"])
def test_waveform_losses_are_those_of_torch_utterance_by_utterance(make_step, make_objective, kind: str) -> None:
    step = make_step((9, 5))
    (objective, head), estimates = make_objective(loss=kind), []
    for index, length in enumerate(step.batch.lengths.tolist()):
        one = _cut(step, index)
        window = torch.hann_window(400)
        noisy = torch.stft(one.student_input, 512, 160, 400, window, pad_mode="constant", return_complex=True)
        frames, spectra = one.student.frame_lengths, torch.tensor([noisy.shape[-1]])
        magnitudes = head(one.student.extractor_features, frames, noisy.abs().transpose(1, 2), spectra)
        changed = torch.polar(magnitudes.transpose(1, 2), noisy.angle())
        estimate = torch.istft(changed, 512, 160, 400, window, length=length)[0]
        estimates.append(torch.nn.functional.pad(estimate, (0, step.student_input.shape[1] - length)))
    estimates = torch.stack(estimates)
    if kind == "si_snr":
        expected = -si_snr_db(estimates, step.batch.waveforms, step.batch.lengths).mean()
    else:
        expected = mrstft_distance(estimates, step.batch.waveforms, step.batch.lengths)
    torch.testing.assert_close(objective(step, head), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["l1", "l2", "si_snr", "mrstft"])
def test_every_loss_is_blind_to_padding(make_step, make_objective, kind: str) -> None:
    step, (objective, head) = make_step((9, 5)), make_objective(loss=kind)
    alone = [objective(_cut(step, index), head) for index in range(2)]
    if kind == "si_snr":
        torch.testing.assert_close(objective(step, head), sum(alone) / 2, rtol=1e-5, atol=1e-5)
    padded, short = make_step((9, 5)), _cut(step, 1)
    for tensor in (padded.student.extractor_features, *padded.student.hidden_states):
        tensor[1, 5:] = 1e3
    torch.testing.assert_close(objective(padded, head), objective(step, head), rtol=0, atol=0)
    longer = dataclasses.replace(
        short,
        student_input=torch.nn.functional.pad(short.student_input, (0, 2000)),
        batch=dataclasses.replace(short.batch, waveforms=torch.nn.functional.pad(short.batch.waveforms, (0, 2000))),
        student=short.student._replace(
            extractor_features=torch.nn.functional.pad(short.student.extractor_features, (0, 0, 0, 6))
        ),
    )
    torch.testing.assert_close(objective(longer, head), alone[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["l1", "l2", "si_snr", "mrstft"])
def test_losses_reward_the_clean_utterance(make_step, make_objective, kind: str) -> None:
    """With nothing to remove, an open mask is better than a closed one and the best there is."""
    step = make_step((9, 5))
    step = dataclasses.replace(step, student_input=step.batch.waveforms)
    (objective, head), values = make_objective(loss=kind), []
    for bias in (30.0, 0.0, -30.0):
        head.linear.weight.data.zero_()
        head.linear.bias.data.fill_(0.0)
        head.linear.bias.data[: 257 if bias else 128] = bias or -30.0  # 0: half the bins are removed
        values.append(objective(step, head).item())
    assert values[0] == pytest.approx(-80 if kind == "si_snr" else 0, abs=1 if kind == "si_snr" else 1e-5)
    assert values[0] < values[1]
    if kind != "si_snr":  # which does not see the level
        assert values[1] < values[2]


@pytest.mark.parametrize("kind", ["l1", "l2", "si_snr", "mrstft"])
@pytest.mark.parametrize(("chosen", "hidden"), [("extractor", None), ("last_hidden", 2), (0, 0), (1, 1)])
def test_gradient_reaches_the_chosen_features(
    make_step, make_objective, kind: str, chosen: str | int, hidden: int | None
) -> None:
    step = make_step()
    every = [step.student.extractor_features, *step.student.hidden_states]
    for tensor in every:
        tensor.requires_grad_()
    objective, head = make_objective(loss=kind, input=chosen)
    with torch.autocast("cpu", torch.bfloat16):
        value = objective(step, head)
    assert value.dtype == torch.float32
    assert value.ndim == 0
    value.backward()
    reached = [index for index, tensor in enumerate(every) if tensor.grad is not None]
    assert reached == [0 if hidden is None else hidden + 1]
    assert torch.isfinite(every[reached[0]].grad).all()
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in head.parameters())


@pytest.mark.parametrize(
    ("options", "shapes", "message"),
    [
        ({"input": 3}, {}, "input: found layer 3, expected 0 to 2 or extractor, last_hidden"),
        ({"mrstft_over": "utterance"}, {}, "mrstft_over: it is an option of loss=mrstft, found loss=l1"),
        ({}, {"student": STUDENT.replace(conv_layers=((5, 480, 240),))}, "multiple of 160 samples, found 240"),
    ],
)
def test_what_does_not_fit_is_refused(make_shapes, options: dict, shapes: dict, message: str) -> None:
    Enhancement().check(make_shapes())
    with pytest.raises(SettingsError, match=message):
        Enhancement(**options).check(make_shapes(**shapes))


@pytest.mark.parametrize(
    "options", [{"loss": kind} for kind in ("l1", "l2", "si_snr")] + [{"loss": "mrstft", "mrstft_over": "utterance"}]
)
def test_values_of_parts_of_a_batch_add_up(make_step, make_objective, options: dict) -> None:
    """Weighted by what `mean_over` names, utterances alone give what they give together."""
    step, (objective, head) = make_step((9, 5, 30)), make_objective(**options)
    counts = {"spectra": num_spectra(step.batch.lengths).tolist(), "utterances": [1, 1, 1]}[objective.mean_over]
    parts = sum(count * objective(_cut(step, index), head) for index, count in enumerate(counts)) / sum(counts)
    torch.testing.assert_close(objective(step, head), parts, rtol=1e-5, atol=1e-5)
