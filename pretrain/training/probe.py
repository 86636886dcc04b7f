"""A linear probe while training: can labelled speech, clean and corrupted, be told apart by the student's features?"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from robustdistiller.acoustics import Corruptor
from robustdistiller.acoustics.audio.files import read_audio
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.trainer import ProbeConfig
from robustdistiller.pretrain.objectives.ops import valid_frames
from robustdistiller.upstream import SpeechEncoder

_BATCH_UTTERANCES = 16
_TEST_SHARE = 0.2
_L2 = 1e-3


@dataclass(frozen=True)
class Item:
    """A labelled recording: its path as the table names it, the file, its label, its length in samples, its part."""

    name: str
    file: Path
    label: str
    samples: int
    is_test: bool


class Probe:
    """A linear classifier on the means over time of a student's hidden states, side by side.

    It is multinomial logistic regression on standardised features, trained on clean speech from zeros until it is
    optimal, so that nothing about it is random. Each test utterance meets the same corruption in every measurement.

    Args:
        settings: the table of recordings and labels.
        corruptors: by condition; clean speech is tested in any case.
        max_samples: of longer recordings the beginning is used.

    Raises:
        SettingsError: the table or a file in it cannot be used; the line is named.
    """

    def __init__(self, settings: ProbeConfig, corruptors: Mapping[str, Corruptor], max_samples: int):
        self.settings, self.max_samples = settings, max_samples
        self.corruptors = {name: one for name, one in corruptors.items() if name != "clean"}
        self.items = read_table(Path(settings.data).expanduser())
        self.labels = sorted({item.label for item in self.items})

    def describe(self) -> dict[str, object]:
        """What defines it, to recognise the same probe after a restart."""
        items = sorted((item.name, item.label, item.samples, item.is_test) for item in self.items)
        conditions = {name: corruptor.describe()["sources"] for name, corruptor in self.corruptors.items()}
        return {"items": hashlib.sha256(json.dumps(items).encode()).hexdigest(), "conditions": conditions}

    @torch.no_grad()
    def measure(self, student: SpeechEncoder) -> dict[str, float]:
        """Accuracy, from 0 to 1, on the test recordings by condition.

        Args:
            student: it is left in the mode in which it was found.

        Raises:
            SettingsError: a layer is to be probed that the student does not have.
        """
        layers = range(student.num_layers + 1) if self.settings.layers is None else self.settings.layers
        if max(layers) > student.num_layers:
            raise SettingsError(f"probe.layers: found {max(layers)}, expected 0 to {student.num_layers}, the student's")
        train, test = ([item for item in self.items if item.is_test == part] for part in (False, True))
        modes = {part: part.training for part in student.modules()}
        device = next(student.parameters()).device
        student.eval()
        try:
            with torch.autocast(device.type, enabled=False):
                features = self._features(student, train, layers, None)
                tested = {"clean": self._features(student, test, layers, None)}
                for name, corruptor in self.corruptors.items():
                    tested[name] = self._features(student, test, layers, corruptor)
        finally:
            for part, training in modes.items():
                part.training = training
        mean, scale = features.mean(0), features.std(0).clamp_min(1e-6)
        weight, bias = fit_linear(
            (features - mean) / scale, self._targets(train), len(self.labels), self.settings.steps
        )
        truth = self._targets(test)
        return {
            name: float(((((x - mean) / scale) @ weight + bias).argmax(1) == truth).double().mean())
            for name, x in tested.items()
        }

    def _targets(self, items: Sequence[Item]) -> Tensor:
        return torch.tensor([self.labels.index(item.label) for item in items])

    def _features(
        self, student: SpeechEncoder, items: Sequence[Item], layers: Sequence[int], corruptor: Corruptor | None
    ) -> Tensor:
        """(items, layers x D) float64 on the CPU, in the order of the items."""
        device, found = next(student.parameters()).device, {}
        for batch in self._batches(items):
            audio = [torch.from_numpy(self._read(item, corruptor, student.config.receptive_field)) for item in batch]
            lengths = torch.tensor([len(samples) for samples in audio])
            output = student(pad_sequence(audio, batch_first=True).to(device), lengths, predict=False)
            valid = valid_frames(output.frame_lengths, output.projected.shape[1]).unsqueeze(-1)
            states = torch.cat([output.hidden_states[layer] for layer in layers], dim=-1)
            means = (states.float() * valid).sum(1) / valid.sum(1)
            found |= dict(zip((item.name for item in batch), means.cpu().double()))
        return torch.stack([found[item.name] for item in items])

    def _read(self, item: Item, corruptor: Corruptor | None, shortest: int) -> np.ndarray:
        samples = read_audio(item.file)[: self.max_samples]
        if corruptor is not None:
            samples = corruptor.apply(samples, corruptor.draw(item.name, len(samples)))
        return np.pad(samples, (0, max(shortest - len(samples), 0))).astype(np.float32)

    @staticmethod
    def _batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
        ordered = sorted(items, key=lambda item: (item.samples, item.name))
        return (ordered[start : start + _BATCH_UTTERANCES] for start in range(0, len(ordered), _BATCH_UTTERANCES))


def read_table(path: Path) -> list[Item]:
    """The recordings of a CSV file with the columns `path`, `label` and possibly `split` (`train` or `test`).

    Paths are relative to the table. Without splits, a fifth of the recordings of each label is for testing, chosen by a
    hash of the path.

    Raises:
        SettingsError: a column is missing, a file cannot be read, or there is nothing to tell apart.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows, header = list(reader), reader.fieldnames or []
    except OSError as error:
        raise SettingsError(f"probe.data: {path} cannot be read: {error.strerror}") from error
    missing = [name for name in ("path", "label") if name not in header]
    if missing:
        raise SettingsError(f"probe.data: {path} has no column {missing[0]!r}; found {', '.join(header) or 'nothing'}")
    by_label: dict[str, list[tuple[str, Path, int, str]]] = defaultdict(list)
    for number, row in enumerate(rows, start=2):
        where, split = f"probe.data: line {number} of {path}", row.get("split") or ""
        if not row["path"] or not row["label"] or split not in ("", "train", "test"):
            raise SettingsError(f"{where}: expected a path, a label and, if any, the split train or test; found {row}")
        file = path.parent / Path(row["path"]).expanduser()
        try:
            samples = read_audio(file)
        except (OSError, ValueError) as error:
            raise SettingsError(f"{where}: {error}") from error
        by_label[row["label"]].append((row["path"], file, len(samples), split))
    items = []
    for label, found in by_label.items():
        found.sort(key=lambda one: hashlib.sha256(one[0].encode()).hexdigest())
        tests = max(round(_TEST_SHARE * len(found)), 1)
        for index, (name, file, samples, split) in enumerate(found):
            items.append(Item(name, file, label, samples, split == "test" if split else index < tests))
    trained = {item.label for item in items if not item.is_test}
    untrained = sorted({item.label for item in items} - trained)
    if untrained:
        raise SettingsError(
            f"probe.data: {path} has no recording to train on for {', '.join(untrained)}; give two or more"
        )
    if len(trained) < 2 or all(not item.is_test for item in items):
        raise SettingsError(
            f"probe.data: {path} has {len(trained)} label{'s' * (len(trained) != 1)} and "
            f"{sum(item.is_test for item in items)} test recordings; expected two labels or more, and some to test"
        )
    if len({item.name for item in items}) < len(items):
        raise SettingsError(f"probe.data: {path} names a recording twice")
    return items


def fit_linear(features: Tensor, targets: Tensor, num_labels: int, iterations: int = 300) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression: the minimum of mean cross-entropy + 5e-4 ||W||^2, by L-BFGS from zeros.

    Args:
        features: (N, D) float64, standardised.
        targets: (N,) int64.
        num_labels: L.
        iterations: at most.

    Returns:
        (D, L) weights and (L,) biases.

    >>> weight, bias = fit_linear(torch.tensor([[-1.0], [1.0]]).double(), torch.tensor([0, 1]), 2)
    >>> bool(weight[0, 1] > 0 > weight[0, 0])
    True
    """
    with torch.enable_grad():
        weight = torch.zeros(features.shape[1], num_labels, dtype=features.dtype, requires_grad=True)
        bias = torch.zeros(num_labels, dtype=features.dtype, requires_grad=True)
        solver = torch.optim.LBFGS(
            [weight, bias], max_iter=iterations, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            solver.zero_grad()
            value = F.cross_entropy(features @ weight + bias, targets) + 0.5 * _L2 * weight.square().sum()
            value.backward()
            return value

        solver.step(loss)
    return weight.detach(), bias.detach()
