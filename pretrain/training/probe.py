"""A linear probe while training: how well the student's features tell labelled speech apart, clean and corrupted."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from robustdistiller.acoustics import Corruptor
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.trainer import ProbeConfig
from robustdistiller.pretrain.objectives import valid_frames
from robustdistiller.pretrain.training.evaluating import evaluating
from robustdistiller.pretrain.training.probe_speech import labelled_speech, probe_cuts
from robustdistiller.pretrain.training.validation_speech import ValidationSpeech
from robustdistiller.upstream import SpeechEncoder

logger = logging.getLogger(__name__)

_LEAST_SCALE = 1e-6  # of a feature that hardly varies


class Probe:
    """Multinomial logistic regression on the means over time of all hidden states, side by side.

    Nothing about it is random: features are standardised by the training speech, the regression is convex and starts
    from zero, and a recording meets the same noise and room in every measurement. Audio is read anew each time.

    Args:
        settings: labelled speech and regression.
        corruptors: by condition, as the validation has them. Clean speech is tested in any case.
        max_samples: at 16 kHz, what is used of longer recordings.

    Raises:
        SettingsError: the CSV file, a recording, or a noise or room that is drawn cannot be used.
    """

    def __init__(self, settings: ProbeConfig, corruptors: Mapping[str, Corruptor], max_samples: int):
        self.settings = settings
        path = Path(settings.data).expanduser()
        try:
            rows = labelled_speech(path, settings.test_share, settings.max_utterances, settings.seed)
            cuts = probe_cuts(path, rows, max_samples)
            self.labels = sorted({row.label for row in rows})
            self._label_of = {cut.id: self.labels.index(row.label) for cut, row in zip(cuts, rows)}
            corrupted = {label: one for label, one in corruptors.items() if str(one.what) != "clean"}
            self._train, self._test = (
                ValidationSpeech([cut for cut, row in zip(cuts, rows) if row.split == split], kept, max_samples)
                for split, kept in (("train", {}), ("test", corrupted))
            )
            for index in range(len(self._test)):  # reads what the corruption will draw
                self._test.read(index)
        except (OSError, ValueError) as error:
            raise SettingsError(f"probe: {error}") from error
        lines = sorted((row.name, row.label, row.split, cut.num_samples) for cut, row in zip(cuts, rows))
        self._digest = hashlib.sha256(json.dumps(lines).encode()).hexdigest()
        tests = sum(row.split == "test" for row in rows)
        logger.info(
            "probe: %d labels, %d utterances to train on, %d to test", len(self.labels), len(rows) - tests, tests
        )

    def describe(self) -> dict:
        """What defines it, to recognise the same probe after a restart."""
        return {"speech": self._digest, "l2": self.settings.l2, "conditions": self._test.describe()["conditions"]}

    def measure(self, student: SpeechEncoder) -> dict[str, float]:
        """Accuracy on the test speech by condition, 0 to 1, `clean` first; NaN where features are not finite.

        The student is left as it was, and so are the global random generators.
        """
        from sklearn.linear_model import LogisticRegression  # slow to import

        with evaluating(student):
            (features,), labels = self._features(student, self._train)
            tested, truth = self._features(student, self._test)
        accuracies = dict.fromkeys(("clean", *self._test.corruptors), math.nan)
        if not np.isfinite(features).all():
            return accuracies
        mean, scale = features.mean(0), features.std(0).clip(_LEAST_SCALE)
        classifier = LogisticRegression(C=1 / (self.settings.l2 * len(features)), tol=1e-7, max_iter=1000)
        classifier.fit((features - mean) / scale, labels)
        for condition, found in zip(accuracies, tested):
            if np.isfinite(found).all():
                accuracies[condition] = float(classifier.score((found - mean) / scale, truth))
        return accuracies

    @torch.no_grad()
    def _features(self, student: SpeechEncoder, speech: ValidationSpeech) -> tuple[list[np.ndarray], list[int]]:
        """Clean and per condition (recordings, D) float64; the labels."""
        rows: list[list[np.ndarray]] = [[] for _ in range(1 + len(speech.corruptors))]
        labels: list[int] = []
        for index in range(len(speech)):
            batch, views = speech.read(index)
            labels += [self._label_of[name] for name in batch.ids]
            for found, waveforms in zip(rows, (batch.waveforms, *(view.waveforms for view in views))):
                found.append(mean_states(student, waveforms, batch.lengths).cpu().double().numpy())
        return [np.concatenate(found) for found in rows], labels


def mean_states(student: SpeechEncoder, waveforms: Tensor, lengths: Tensor) -> Tensor:
    """The mean over the valid frames of every hidden state, side by side: (B, (layers + 1) x width) float32.

    Args:
        student: in eval mode.
        waveforms: (B, samples) float32, zero past each utterance's end. What is shorter than a frame goes on in zeros.
        lengths: (B,) int64, valid samples.
    """
    shortest = student.config.receptive_field
    waveforms = F.pad(waveforms, (0, max(shortest - waveforms.shape[1], 0)))
    device = next(student.parameters()).device
    output = student(waveforms.to(device), lengths.clamp_min(shortest), predict=False)
    valid = valid_frames(output.frame_lengths, output.projected.shape[1]).unsqueeze(-1)
    sums = [state.float().masked_fill(~valid, 0.0).sum(1) for state in output.hidden_states]
    return torch.cat(sums, dim=-1) / valid.sum(1)
