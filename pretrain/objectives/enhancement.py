"""The enhancement head of RobustDistiller: a mask on the noisy magnitude spectrum, estimated from student features.

Only used in training. It makes the student's features carry what is needed to undo the corruption (denoising and
dereverberation together, because the target is the dry clean utterance).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.objectives.base import Objective, Shapes, Step
from robustdistiller.pretrain.objectives.ops import valid_frames
from robustdistiller.pretrain.objectives.spectra import (
    inverse_spectrum,
    mrstft_distance,
    si_snr_db,
    spectral_distance,
    spectrum,
)
from robustdistiller.upstream import EncoderOutput

N_FFT = 512
HOP_SAMPLES = 160  # 10 ms: two spectra per 20 ms feature frame
WINDOW_SAMPLES = 400
NUM_BINS = N_FFT // 2 + 1


def noisy_spectrum(waveforms: Tensor) -> Tensor:
    """Centred short-time Fourier transform: 512 points, hop 160, Hann window of 400 samples.

    The ends are padded with zeros where the released code reflects the signal: an utterance then has the same spectrum
    alone and in a padded batch. It makes a difference in the first and last two frames.

    Args:
        waveforms: (B, samples), zero past each utterance's end.

    Returns:
        (B, samples // 160 + 1, 257) complex64.

    >>> noisy_spectrum(torch.zeros(2, 16000)).dtype
    torch.complex64
    """
    return spectrum(waveforms, N_FFT, HOP_SAMPLES, WINDOW_SAMPLES)


def magnitude_spectrum(waveforms: Tensor) -> Tensor:
    """Magnitudes of `noisy_spectrum`.

    Args:
        waveforms: (B, samples).

    Returns:
        (B, samples // 160 + 1, 257) float32.

    >>> magnitude_spectrum(torch.zeros(2, 16000)).shape
    torch.Size([2, 101, 257])
    """
    return noisy_spectrum(waveforms).abs()


def num_spectra(lengths: Tensor) -> Tensor:
    """Valid frames of `magnitude_spectrum` for utterances of `lengths` samples.

    >>> num_spectra(torch.tensor([16000]))
    tensor([101])
    """
    return lengths // HOP_SAMPLES + 1


class BiLSTM(nn.Module):
    """Bidirectional LSTM over padded sequences that gives each utterance what it would get alone.

    The function and the parameters of `nn.LSTM(bidirectional=True)` on packed sequences, several times faster on a CPU:
    the sequences stay padded, and the backward direction reads each utterance's own frames in reverse, so that padding
    always comes last.

    Args:
        input_size: width of the input.
        hidden_size: units per direction; the output is twice as wide.
        num_layers: stacked layers.
        dropout: between layers.

    >>> BiLSTM(8, 4, num_layers=2)(torch.zeros(2, 5, 8), torch.tensor([5, 3])).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, dropout: float = 0.0):
        super().__init__()
        widths = [input_size] + [2 * hidden_size] * (num_layers - 1)
        self.ahead = nn.ModuleList(nn.LSTM(width, hidden_size, batch_first=True) for width in widths)
        self.back = nn.ModuleList(nn.LSTM(width, hidden_size, batch_first=True) for width in widths)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Map (B, T, input_size) with (B,) valid frames to (B, T, 2 * hidden_size)."""
        with torch.autocast(x.device.type, enabled=_lstm_takes_autocast(x)):
            return self._both_ways(x if torch.is_autocast_enabled(x.device.type) else x.float(), lengths)

    def _both_ways(self, x: Tensor, lengths: Tensor) -> Tensor:
        steps = torch.arange(x.shape[1], device=x.device)
        # Its own inverse: frame t of n becomes frame n - 1 - t, padding stays where it is.
        mirror = torch.where(steps < lengths.unsqueeze(1), lengths.unsqueeze(1) - 1 - steps, steps).unsqueeze(-1)
        for layer, (ahead, back) in enumerate(zip(self.ahead, self.back)):
            if layer:
                x = self.dropout(x)
            forwards, _ = ahead(x)
            backwards, _ = back(x.gather(1, mirror.expand(-1, -1, x.shape[-1])))
            backwards = backwards.gather(1, mirror.expand(-1, -1, backwards.shape[-1]))
            x = torch.cat([forwards, backwards], dim=-1)
        return x


def _lstm_takes_autocast(x: Tensor) -> bool:
    """PyTorch's LSTM has no bfloat16 on processors that do not compute in it: there it stays in float32."""
    device = x.device.type
    return torch.is_autocast_enabled(device) and (device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported())


class EnhancementHead(nn.Module):
    """Estimates the clean spectrum: a sigmoid mask from a BiLSTM over features, times the noisy spectrum.

    Args:
        input_size: width of the features (512 for conv features, 768 for a hidden state of a Base model).
        hidden_size: LSTM units per direction.
        num_layers: LSTM layers.
        dropout: between LSTM layers and before the output layer.
        samples_per_frame: of the features; they are repeated to reach the hop of the spectrum.

    >>> head = EnhancementHead(512)
    >>> sum(p.numel() for p in head.parameters())  # 4.86 M, needed in training only
    4862721
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int = 256,
        num_layers: int = 3,
        dropout: float = 0.1,
        samples_per_frame: int = 320,
    ):
        super().__init__()
        if samples_per_frame % HOP_SAMPLES:
            raise SettingsError(
                f"the enhancement head needs feature frames of a multiple of {HOP_SAMPLES} samples, "
                f"found {samples_per_frame}: set objectives.enhancement.weight=0 for this encoder"
            )
        self.repeats = samples_per_frame // HOP_SAMPLES
        self.lstm = BiLSTM(input_size, hidden_size, num_layers, dropout)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(2 * hidden_size, NUM_BINS)

    def forward(self, features: Tensor, frame_lengths: Tensor, noisy: Tensor, spectrum_lengths: Tensor) -> Tensor:
        """Estimate the clean spectrum.

        Args:
            features: (B, T, input_size) of the student.
            frame_lengths: (B,) valid frames.
            noisy: (B, S, 257) magnitudes of what the student heard, or its complex spectrum.
            spectrum_lengths: (B,) valid spectra.

        Returns:
            (B, S, 257) magnitudes between 0 and `noisy`, or such magnitudes with the phase of `noisy`.
        """
        valid = valid_frames(frame_lengths, features.shape[1])
        features = features.masked_fill(~valid.unsqueeze(-1), 0.0).repeat_interleave(self.repeats, dim=1)
        # Unpadded convolutions give up to three spectra' worth of features less than the centred transform: zeros.
        missing = noisy.shape[1] - features.shape[1]
        features = nn.functional.pad(features, (0, 0, 0, missing))  # a negative number cuts
        mask = torch.sigmoid(self.linear(self.dropout(self.lstm(features, spectrum_lengths))).float())
        return mask * noisy


@dataclass
class Enhancement(Objective):
    """The enhancement term of RobustDistiller (arXiv 2302.09437, 2403.08654).

    A head estimates the clean magnitude spectrum from the student's features of corrupted speech.

    Attributes:
        weight: of its loss in the sum; 0 leaves the head out.
        loss: `l1` or `l2` distance of magnitudes; or, of the waveform with the noisy phase, `si_snr` (minus the
            scale-invariant signal-to-noise ratio in dB: tens of times larger than the others) or `mrstft`
            (multi-resolution STFT distance).
        input: `extractor` feeds the conv features (as in the released code), `last_hidden` the last transformer layer,
            a number that layer's output (0: the input of the first).
        hidden_size: LSTM units per direction.
        num_layers: bidirectional LSTM layers.
        dropout: between LSTM layers and before the output layer.

    >>> from robustdistiller.upstream import EncoderConfig
    >>> Enhancement(2.0, input=2).make_head(Shapes(EncoderConfig(num_layers=2), (), ())).linear.out_features
    257
    """

    loss: Literal["l1", "l2", "si_snr", "mrstft"] = "l1"
    input: int | Literal["extractor", "last_hidden"] = "extractor"
    hidden_size: int = 256
    num_layers: int = 3
    dropout: float = 0.1

    mean_over: ClassVar[str] = "utterances"

    def check(self, shapes: Shapes) -> None:
        """Refuse a layer that the student does not have, and frames that do not fit the spectrum."""
        student = shapes.student
        if isinstance(self.input, int) and not 0 <= self.input <= student.num_layers:
            raise SettingsError(
                f"input: found layer {self.input}, expected 0 to {student.num_layers}, extractor or last_hidden"
            )
        if student.downsample_rate % HOP_SAMPLES:
            raise SettingsError(
                f"the enhancement head needs feature frames of a multiple of {HOP_SAMPLES} samples, "
                f"found {student.downsample_rate}: set objectives.enhancement.weight=0 for this encoder"
            )

    def make_head(self, shapes: Shapes) -> EnhancementHead:
        """The head on the student's features."""
        student = shapes.student
        width = student.conv_layers[-1][0] if self.input == "extractor" else student.embed_dim
        return EnhancementHead(width, self.hidden_size, self.num_layers, self.dropout, student.downsample_rate)

    def __call__(self, step: Step, head: EnhancementHead) -> Tensor:
        """Scalar. `l1`, `l2`, `mrstft`: >= 0; `si_snr`: from -80 to 80 dB."""
        clean, lengths = step.batch.waveforms, step.batch.lengths.to(step.student_input.device, non_blocking=True)
        if self.loss == "mrstft":
            return mrstft_distance(self.estimate_waveforms(step, head), clean, lengths)
        if self.loss == "si_snr":
            return -si_snr_db(self.estimate_waveforms(step, head), clean, lengths).mean()
        noisy = noisy_spectrum(step.student_input)
        spectrum_lengths = num_spectra(lengths)
        features, frame_lengths = self._features(step.student), step.student.frame_lengths
        estimate = head(features, frame_lengths, noisy.abs(), spectrum_lengths)
        valid = valid_frames(spectrum_lengths, noisy.shape[1])
        return spectral_distance(estimate, magnitude_spectrum(clean), valid, self.loss)

    def estimate_waveforms(self, step: Step, head: EnhancementHead) -> Tensor:
        """The clean speech as the head estimates it, with the phase of what was heard: (B, samples)."""
        noisy = noisy_spectrum(step.student_input)
        lengths = num_spectra(step.batch.lengths.to(step.student_input.device, non_blocking=True))
        estimate = head(self._features(step.student), step.student.frame_lengths, noisy, lengths)
        valid = valid_frames(lengths, noisy.shape[1])
        return inverse_spectrum(estimate, valid, HOP_SAMPLES, WINDOW_SAMPLES, step.student_input.shape[1])

    def _features(self, output: EncoderOutput) -> Tensor:
        if self.input == "extractor":
            return output.extractor_features
        return output.hidden_states[-1 if self.input == "last_hidden" else self.input]
