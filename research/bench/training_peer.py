"""The released way of a training step, out of s3prl's own modules: what `training` compares with.

As in the released code of RobustDistiller (arXiv 2302.09437): s3prl's WavLM behind its upstream interface as the
teacher, s3prl's Distiller as the student, a bidirectional LSTM on the conv features, s3prl's optimizer, eager float32;
each utterance, its noise and its impulse response are read from files, reverberation is SciPy's full convolution.
"""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.signal
import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistiller.pretrain.objectives.enhancement import EnhancementHead
from robustdistiller.pretrain.training.step import Distiller
from robustdistiller.upstream import Checkpoint, SpeechEncoder
from robustdistiller.upstream.checkpoints.formats.s3prl import s3prl_content

LAYERS = (4, 8, 12)
_SNR_DB = (0, 20)
_WHITE_NOISE = 0.3


class PeerStep:
    """Teacher, student, head and optimizer with the weights of a `Distiller` that is about to train.

    Args:
        module: of a run of recipe `robustdistiller` whose teacher is of the WavLM family.
        work: folder for the teacher's file.
    """

    def __init__(self, module: Distiller, work: Path):
        from s3prl.optimizers import get_optimizer
        from s3prl.upstream.distiller.model import DistillerConfig, DistillerModel
        from s3prl.upstream.wavlm.expert import UpstreamExpert

        file = work / "peer-teacher.pt"
        torch.save(_content(module.teachings[0].model), file)
        self.teacher = UpstreamExpert(str(file)).eval().requires_grad_(False)
        content = _content(module.student)
        options = {**content["Config"]["distiller"], "feature_grad_mult": module.student.config.feature_grad_mult}
        with contextlib.redirect_stdout(io.StringIO()):
            self.student = DistillerModel(DistillerConfig(options))
        self.student.load_state_dict(content["Distiller"])
        self.head = _Head(module.heads["enhancement"])
        self.settings = module.config.optim
        self.enhancement_weight = module.config.objectives.enhancement.weight
        self.optimizer = get_optimizer(
            [self.student, self.head],
            self.settings.schedule_steps,
            {
                "name": "AdamW_with_schedule",
                "lr": self.settings.lr,
                "warmup_proportion": self.settings.warmup_fraction,
                "betas": list(self.settings.betas),
                "eps": self.settings.eps,
                "weight_decay": self.settings.weight_decay,
            },
        )

    def to(self, device: str) -> PeerStep:
        """Everything on `device`."""
        for part in (self.teacher, self.student, self.head):
            part.to(device)
        return self

    def __call__(self, clean: Tensor, heard: Tensor) -> dict[str, Tensor]:
        """One optimizer step on `(batch, samples)` without padding: the terms of the loss, and the gradient's norm."""
        with torch.no_grad():
            states = self.teacher(list(clean.unbind(0)))["hidden_states"]
            targets = torch.stack([states[layer] for layer in LAYERS], 1)
        features, _, predictions, _ = self.student(heard, torch.ones_like(heard))
        terms = {
            "l1": F.l1_loss(predictions, targets),
            "cosine": -F.logsigmoid(F.cosine_similarity(predictions, targets, dim=-1)).mean(),
            "enhancement": F.l1_loss(self.head(features, _magnitudes(heard)), _magnitudes(clean)),
        }
        loss = terms["l1"] + terms["cosine"] + self.enhancement_weight * terms["enhancement"]
        loss.backward()
        weights = [*self.student.parameters(), *self.head.parameters()]
        norm = nn.utils.clip_grad_norm_(weights, self.settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}, "grad_norm": norm}


class PeerData:
    """Batches in turn: an utterance is clean, noisy, reverberant or both with equal probability.

    Args:
        speech: audio files of equal length at 16 kHz.
        noises: audio files.
        rooms: impulse responses.
        seed: of everything drawn.
    """

    def __init__(self, speech: Sequence[Path], noises: Sequence[Path], rooms: Sequence[Path], seed: int):
        self.speech, self.noises, self.rooms = list(speech), list(noises), list(rooms)
        self.random = random.Random(seed)
        self.gaussian = np.random.default_rng(seed)

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Clean and corrupted speech, each `(size, samples)`."""
        clean = [_read(file) for file in self.random.choices(self.speech, k=size)]
        heard = [self._corrupt(row) for row in clean]
        return (torch.from_numpy(np.stack(rows).astype(np.float32)) for rows in (clean, heard))

    def _corrupt(self, speech: np.ndarray) -> np.ndarray:
        operation = self.random.choice(["clean", "noise", "reverb", "noise+reverb"])
        if "reverb" in operation:
            speech = scipy.signal.convolve(speech, _read(self.random.choice(self.rooms)), mode="full")[: len(speech)]
        if "noise" in operation:
            noise = self._noise(len(speech))
            ratio = 10 ** (self.random.randint(*_SNR_DB) / 10)
            gain = np.sqrt(np.mean(speech**2) / (np.mean(noise**2) * ratio + 1e-12))
            speech = speech + gain * noise
        return speech

    def _noise(self, length: int) -> np.ndarray:
        if self.random.random() < _WHITE_NOISE:
            return self.gaussian.standard_normal(length, dtype=np.float32)
        noise = _read(self.random.choice(self.noises))
        noise = np.tile(noise, -(-length // len(noise)))
        start = self.random.randint(0, len(noise) - length)
        return noise[start : start + length]


class _Head(nn.Module):
    """Mask estimator of the released code, with the weights of ours."""

    def __init__(self, ours: EnhancementHead):
        super().__init__()
        first = ours.lstm.ahead[0]
        self.repeats, depth = ours.repeats, len(ours.lstm.ahead)
        self.lstm = nn.LSTM(first.input_size, first.hidden_size, depth, batch_first=True, bidirectional=True,
                            dropout=ours.lstm.dropout.p)  # fmt: skip
        self.dropout = nn.Dropout(ours.dropout.p)
        self.linear = nn.Linear(ours.linear.in_features, ours.linear.out_features)
        self.linear.load_state_dict(ours.linear.state_dict())
        weights = {}
        for layer, (ahead, back) in enumerate(zip(ours.lstm.ahead, ours.lstm.back)):
            weights |= {name.replace("l0", f"l{layer}"): value for name, value in ahead.state_dict().items()}
            weights |= {name.replace("l0", f"l{layer}_reverse"): value for name, value in back.state_dict().items()}
        self.lstm.load_state_dict(weights)

    def forward(self, features: Tensor, noisy: Tensor) -> Tensor:
        features = features.repeat_interleave(self.repeats, dim=1)
        features = F.pad(features, (0, 0, 0, noisy.shape[1] - features.shape[1]))
        hidden, _ = self.lstm(features)
        return torch.sigmoid(self.linear(self.dropout(hidden))) * noisy


def _magnitudes(waveforms: Tensor) -> Tensor:
    """Padded with zeros as ours are, so that the losses can be compared."""
    window = torch.hann_window(400, device=waveforms.device)
    return torch.stft(waveforms, 512, 160, 400, window, pad_mode="constant", return_complex=True).abs().transpose(1, 2)


def _content(encoder: SpeechEncoder) -> dict:
    return s3prl_content(Checkpoint("robustdistiller", encoder.config, encoder.state_dict()))[1]


def _read(file: Path) -> np.ndarray:
    samples, _ = soundfile.read(file, dtype="float32", always_2d=True)
    return samples[:, 0]
