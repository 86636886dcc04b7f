"""A linear probe while training: how well the student's features tell labelled speech apart, clean and corrupted."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path

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
        # What was made in inference mode could not be differentiated by.
        with torch.inference_mode(False), evaluating(student):
            (features,), targets = self._features(student, self._train)
            mean, scale = features.mean(0), features.std(0, correction=0).clamp_min(_LEAST_SCALE)
            weight, bias = fit_logistic((features - mean) / scale, targets, len(self.labels), self.settings.l2)
            tested, truth = self._features(student, self._test)
        accuracies = {}
        for condition, found in zip(("clean", *self._test.corruptors), tested):
            scores = (found - mean) / scale @ weight + bias
            right = (scores.argmax(1) == truth).double().mean()
            accuracies[condition] = float(right) if scores.isfinite().all() else math.nan
        return accuracies

    @torch.no_grad()
    def _features(self, student: SpeechEncoder, speech: ValidationSpeech) -> tuple[list[Tensor], Tensor]:
        """Clean and per condition (recordings, D) float64 on the CPU; (recordings,) int64 labels."""
        rows: list[list[Tensor]] = [[] for _ in range(1 + len(speech.corruptors))]
        labels: list[int] = []
        for index in range(len(speech)):
            batch, views = speech.read(index)
            labels += [self._label_of[name] for name in batch.ids]
            for found, waveforms in zip(rows, (batch.waveforms, *(view.waveforms for view in views))):
                found.append(mean_states(student, waveforms, batch.lengths).cpu().double())
        return [torch.cat(found) for found in rows], torch.tensor(labels)


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


def fit_logistic(features: Tensor, targets: Tensor, num_labels: int, l2: float) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression: the minimum of mean cross-entropy + l2 / 2 ||W||^2, by L-BFGS from zero.

    It is what scikit-learn's `LogisticRegression(C=1 / (l2 * N))` finds.

    Args:
        features: (N, D) float64, standardised.
        targets: (N,) int64 labels from 0.
        num_labels: L.
        l2: more than 0, so that there is one minimum.

    Returns:
        (D, L) weights and (L,) biases, which are not shrunk.
    """
    with torch.enable_grad():
        weight = torch.zeros(features.shape[1], num_labels, dtype=features.dtype, requires_grad=True)
        bias = torch.zeros(num_labels, dtype=features.dtype, requires_grad=True)
        options = {"max_iter": 1000, "tolerance_grad": 1e-7, "tolerance_change": 1e-14, "history_size": 10}
        solver = torch.optim.LBFGS([weight, bias], line_search_fn="strong_wolfe", **options)

        def cost() -> Tensor:
            solver.zero_grad()
            value = F.cross_entropy(features @ weight + bias, targets) + 0.5 * l2 * weight.square().sum()
            value.backward()
            return value

        solver.step(cost)
    return weight.detach(), bias.detach()
