"""What a trained model makes of clean and corrupted speech: distances of features, and the enhancement head's estimate.

The student's file holds the encoder. Maps to the teacher's layers and the enhancement head are parts of training only;
they are in the checkpoints beside it in the run's folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustdistiller.acoustics.listening.page import DistanceTable, Version
from robustdistiller.common.settings import SettingsError, read
from robustdistiller.pretrain.config.schema import DistillConfig
from robustdistiller.pretrain.config.stages import stages_of
from robustdistiller.pretrain.data.dataset import Batch, Heard
from robustdistiller.pretrain.data.sampler import Position
from robustdistiller.pretrain.objectives import layer_cosine
from robustdistiller.pretrain.objectives.enhancement import STFT
from robustdistiller.pretrain.objectives.spectra import spectrum
from robustdistiller.pretrain.student.build import with_training_options
from robustdistiller.pretrain.teacher.groups.find import LayerGroups
from robustdistiller.pretrain.teacher.units import TeacherUnits
from robustdistiller.pretrain.training.checkpoint import exported_weights, read_training
from robustdistiller.pretrain.training.preparation import load_teachers
from robustdistiller.pretrain.training.step import Distiller
from robustdistiller.upstream import read_model, resolve

_OWN = (
    "1 - cos(h, c), mean over frames, then over utterances: h is the state of this layer for the corrupted utterance, "
    "c that for the clean one. 0: the corruption changes nothing."
)
_TAUGHT = (
    "1 - cos(p, t), mean over frames, then over utterances: p is what the student predicts from the corrupted "
    "utterance, t the target that it was trained on, from these layers of the teacher for the clean one. The column of "
    "clean speech is how far the student is from its teacher without any corruption."
)


@dataclass
class Answer:
    """What a model makes of an utterance.

    Attributes:
        own: by hidden state, the cosine distance to that of the same utterance clean.
        teacher: by target, the cosine distance of the student's prediction to the teacher's features of clean speech.
        enhanced: (spectra, 257), the clean magnitude spectrum as the enhancement head estimates it.
        resynthesis: (samples,), that spectrum as sound, with the phase of the corrupted speech.
    """

    own: dict[str, float]
    teacher: dict[str, float] = field(default_factory=dict)
    enhanced: np.ndarray | None = None
    resynthesis: np.ndarray | None = None


class Listener:
    """A model that is asked what it makes of speech.

    Args:
        model: its name, see `upstream.resolve`. Of a student in its run's folder the enhancement head is there, too.
        teacher: name of the teacher, if it is not where the student's notes say.

    Attributes:
        notes: why something cannot be shown, in whole sentences.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: it cannot be read, or `teacher` cannot be.
    """

    def __init__(self, model: str, teacher: str | None = None):
        path = resolve(model)
        checkpoint = read_model(path)
        self.model = checkpoint.build().eval()
        self.notes: list[str] = []
        self.distiller: Distiller | None = None
        self.enhances = False
        notes = getattr(checkpoint, "metadata", {})
        if "stage" not in notes or "config" not in notes:
            self.notes.append("Only students of this project's runs can be compared with a teacher: this is none.")
            if teacher is not None:
                raise SettingsError(f"--teacher {teacher}: {model} is no student that says what it predicts of one")
            return
        try:
            self._restore(path, notes, teacher)
        except (OSError, ValueError) as error:
            if teacher is not None:
                raise
            self.notes.append(f"Without comparison with the teacher and enhancement head: {error}.")

    def ask(self, clean: np.ndarray, corrupted: np.ndarray) -> Answer:
        """What the model makes of an utterance under a condition.

        Args:
            clean: (samples,) float32 at 16 kHz.
            corrupted: (samples,), the same utterance.

        Raises:
            ValueError: the utterance is too short for one frame.
        """
        with torch.no_grad():
            both = torch.from_numpy(np.stack([clean, corrupted]))
            before, after = (self._states(waveform[None]) for waveform in both)
            valid = torch.ones(1, next(iter(after.values())).shape[1], dtype=torch.bool)
            distances = layer_cosine(list(after.values()), list(before.values()), valid, "raw")
            answer = Answer(own=dict(zip(after, distances.tolist())))
            if self.distiller is not None:
                self._teach(answer, *both)
        return answer

    def _states(self, waveforms: Tensor) -> dict[str, Tensor]:
        output = self.model(waveforms)
        names = self.model.state_names()
        states = output.upstream_states(self.model.config)
        return {
            name.replace("_", " "): state for name, state in zip(names, states) if not name.startswith("prediction_")
        }

    def _teach(self, answer: Answer, clean: Tensor, corrupted: Tensor) -> None:
        module = self.distiller
        heard = Heard(corrupted[None], torch.tensor([math.inf]))
        batch = Batch(Position(), ("utterance",), clean[None], torch.tensor([len(clean)]), heard, heard)
        lesson = module.lesson(batch)
        lesson.targets, lesson.units = module.teach(replace(batch, second=None))
        step = module.hear(lesson, heard)
        distances = layer_cosine(step.predictions, step.targets, step.valid, "raw")
        answer.teacher = {f"teacher layer {name}": one for name, one in zip(module.target_names, distances.tolist())}
        if self.enhances:
            objective, head = module.objectives["enhancement"], module.heads["enhancement"]
            noisy = spectrum(step.student_input, *STFT).abs()
            answer.enhanced = objective.estimate_spectra(step, head, noisy)[0][0].numpy()
            answer.resynthesis = objective.estimate_waveforms(step, head)[0].numpy()

    def _restore(self, path: Path, notes: Mapping[str, Any], teacher: str | None) -> None:
        """The student with its teacher and the parts of its training."""
        config = read(DistillConfig, notes["config"])
        config = next(stage.config for stage in stages_of(config) if stage.name == notes["stage"])
        if config.pruning is not None or config.student.mask is not None:
            raise SettingsError(f"stage {notes['stage']} of its run prunes or masks, where the parts fit another shape")
        if teacher is not None:
            config = replace(config, teacher=replace(config.teacher, checkpoint=teacher))
        teachers, found = load_teachers(config)
        if found[""]["sha256"] != notes["teacher"]["sha256"]:
            raise SettingsError(f"{config.teacher.checkpoint} is not the file that the student learnt from")
        if config.targets.layers == "auto":
            layers = tuple(map(tuple, LayerGroups.load(path.parent / "groups.json").groups))
            config = replace(config, targets=replace(config.targets, layers=layers))
        units = TeacherUnits.load(path.parent / "units.npz") if config.targets.units is not None else None
        student = with_training_options(self.model, config.student)
        distiller = Distiller(config, teachers, student, units).eval()
        state = _training_state(path, notes)
        if state is not None:
            distiller.load_state_dict(exported_weights(state))
        elif config.targets.match == "layers":
            raise SettingsError(
                f"the maps to the teacher's layers are in checkpoints, and {path.parent} has none of it"
            )
        elif distiller.heads:
            self.notes.append(f"The enhancement head is in the run's checkpoints, and {path.parent} has none of them.")
        self.distiller = distiller
        self.enhances = state is not None and "enhancement" in distiller.heads


def _training_state(path: Path, notes: Mapping[str, Any]) -> dict[str, Any] | None:
    """The checkpoint that a student was exported from, if it is there."""
    for name in (f"{notes['step']:08d}", "best"):
        checkpoint = path.parent / "checkpoints" / f"{notes['stage']}-{name}.ckpt"
        if checkpoint.is_file() and (state := read_training(checkpoint))["progress"]["step"] == notes["step"]:
            return state
    return None


def distance_tables(listener: Listener, utterances: Mapping[str, Sequence[Version]]) -> list[DistanceTable]:
    """Distances of the model's features for each layer and condition, as means over the utterances.

    What the enhancement head makes of a version is laid into it.

    Args:
        listener: the model.
        utterances: by name, under the same conditions each, the first of which is clean.

    Raises:
        ValueError: an utterance is too short for one frame; it is named.
    """
    own: dict[str, list[list[float]]] = {}
    taught: dict[str, list[list[float]]] = {}
    titles = [version.condition.title for version in next(iter(utterances.values()))]
    for name, versions in utterances.items():
        for place, version in enumerate(versions):
            try:
                answer = listener.ask(versions[0].waveform, version.waveform)
            except ValueError as error:
                raise ValueError(f"utterance {name}: {error}") from error
            version.enhanced, version.resynthesis = answer.enhanced, answer.resynthesis
            for table, distances in ((own, answer.own), (taught, answer.teacher)):
                for layer, distance in distances.items():
                    table.setdefault(layer, [[] for _ in titles])[place].append(distance)
    tables = [DistanceTable("Hidden states: distance from those of clean speech", _OWN, titles, _means(own))]
    if taught:
        tables.append(
            DistanceTable("Predictions: distance from the teacher's features", _TAUGHT, titles, _means(taught))
        )
    return tables


def _means(table: Mapping[str, list[list[float]]]) -> dict[str, list[float | None]]:
    return {name: [sum(found) / len(found) for found in columns] for name, columns in table.items()}
