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
from robustdistiller.pretrain.config.trainer import Count, Share
from robustdistiller.pretrain.objectives.base import Objective, Shapes, Step, check_layer, hidden_state
from robustdistiller.pretrain.objectives.ops import valid_frames
from robustdistiller.pretrain.objectives.spectra import (
    inverse_spectrum,
    mrstft_distance,
    si_snr_db,
    spectral_distance,
    spectrum,
)

#: FFT size, hop (two spectra per 20 ms feature frame) and window in samples. The ends are padded with zeros, where the
#: released code reflects the signal; that makes a difference in the first and last two spectra.
STFT = (512, 160, 400)
N_FFT, HOP_SAMPLES, WINDOW_SAMPLES = STFT
NUM_BINS = N_FFT // 2 + 1


def num_spectra(lengths: Tensor) -> Tensor:
    """Valid spectra of utterances of `lengths` samples."""
    return lengths // HOP_SAMPLES + 1


class BiLSTM(nn.Module):
    """`nn.LSTM(bidirectional=True)` over packed sequences, by sequences that stay padded: 3.8 times as fast on a CPU.

    The backward direction reads each utterance's own frames in reverse, so that padding always comes last.
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

    The options are those of `Enhancement`. Features of `samples_per_frame`, a multiple of the hop, are repeated to
    reach the hop of the spectrum.
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
        self.repeats = samples_per_frame // HOP_SAMPLES
        self.lstm = BiLSTM(input_size, hidden_size, num_layers, dropout)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(2 * hidden_size, NUM_BINS)

    def forward(self, features: Tensor, frame_lengths: Tensor, noisy: Tensor, spectrum_lengths: Tensor) -> Tensor:
        """Estimate the clean spectrum.

        Args: features: (B, T, input_size) of the student. frame_lengths: (B,) valid frames. noisy: (B, S, 257)
        magnitudes of what the student heard, or its complex spectrum; the result is of the same kind.
        spectrum_lengths: (B,) valid spectra.
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
    """A head estimates clean spectra from the student's features of corrupted speech (arXiv 2302.09437, 2403.08654).

    Attributes:
        weight: of its loss in the sum; 0 leaves the head out.
        loss: `l1` or `l2` distance of magnitudes; or, of the waveform with the noisy phase, `si_snr` (minus the
            scale-invariant signal-to-noise ratio in dB: tens of times larger than the others) or `mrstft`
            (multi-resolution STFT distance).
        mrstft_over: for `mrstft`: whether its ratios are of the whole `batch`, as released, or of each `utterance`.
        input: `extractor` feeds the conv features (as in the released code), `last_hidden` the last transformer layer,
            a number that layer's output (0: the input of the first).
        hidden_size: LSTM units per direction.
        num_layers: bidirectional LSTM layers.
        dropout: between LSTM layers and before the output layer.
    """

    loss: Literal["l1", "l2", "si_snr", "mrstft"] = "l1"
    mrstft_over: Literal["batch", "utterance"] = "batch"
    input: int | Literal["extractor", "last_hidden"] = "extractor"
    hidden_size: Count = 256
    num_layers: Count = 3
    dropout: Share = 0.1

    needs: ClassVar = frozenset({"corruption"})

    @property
    def mean_over(self) -> str:
        over = {"batch": "batches", "utterance": "utterances"}[self.mrstft_over]
        return {"l1": "spectra", "l2": "spectra", "si_snr": "utterances", "mrstft": over}[self.loss]

    def check(self, shapes: Shapes) -> None:
        check_layer("input", self.input, shapes.student, "extractor, last_hidden")
        if shapes.student.downsample_rate % HOP_SAMPLES:
            raise SettingsError(
                f"the enhancement head needs feature frames of a multiple of {HOP_SAMPLES} samples, "
                f"found {shapes.student.downsample_rate}: set objectives.enhancement.weight=0 for this encoder"
            )
        if self.loss != "mrstft" and self.mrstft_over != "batch":
            raise SettingsError(f"mrstft_over: it is an option of loss=mrstft, found loss={self.loss}; leave it out")

    def make_head(self, shapes: Shapes) -> EnhancementHead:
        student = shapes.student
        width = student.conv_layers[-1][0] if self.input == "extractor" else student.embed_dim
        return EnhancementHead(width, self.hidden_size, self.num_layers, self.dropout, student.downsample_rate)

    def __call__(self, step: Step, head: EnhancementHead | None = None) -> Tensor:
        """Scalar. `l1`, `l2`, `mrstft`: >= 0; `si_snr`: from -80 to 80 dB."""
        clean, lengths = step.batch.waveforms, step.batch.lengths.to(step.student_input.device, non_blocking=True)
        if self.loss in ("l1", "l2"):
            estimate, valid = self.estimate_spectra(step, head, spectrum(step.student_input, *STFT).abs())
            return spectral_distance(estimate, spectrum(clean, *STFT).abs(), valid, self.loss)
        waveforms = self.estimate_waveforms(step, head)
        if self.loss == "mrstft":
            return mrstft_distance(waveforms, clean, lengths, over=self.mrstft_over)
        return -si_snr_db(waveforms, clean, lengths).mean()

    def estimate_waveforms(self, step: Step, head: EnhancementHead) -> Tensor:
        """The clean speech as the head estimates it, with the phase of what was heard: (B, samples)."""
        estimate, valid = self.estimate_spectra(step, head, spectrum(step.student_input, *STFT))
        return inverse_spectrum(estimate, valid, HOP_SAMPLES, WINDOW_SAMPLES, step.student_input.shape[1])

    def estimate_spectra(self, step: Step, head: EnhancementHead, noisy: Tensor) -> tuple[Tensor, Tensor]:
        """The clean spectra as the head estimates them, (B, S, 257), and which of them are valid, (B, S).

        `noisy` is what the student heard, magnitudes or complex, and so is the estimate.
        """
        output = step.student
        features = output.extractor_features if self.input == "extractor" else hidden_state(output, self.input)
        lengths = num_spectra(step.batch.lengths.to(noisy.device, non_blocking=True))
        estimate = head(features, output.frame_lengths, noisy, lengths)
        return estimate, valid_frames(lengths, noisy.shape[1])
