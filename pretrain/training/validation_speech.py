"""The speech that validation during training uses: what it is, how it is corrupted, and that it can be read."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from lhotse.cut import Cut

from robustdistiller.acoustics import AudioSource, Condition, Corruptor, RIRSource, SourceSpec
from robustdistiller.acoustics.condition import SOURCES
from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.data.cuts import FileCut, as_cut, choose_by_hash, id_digest, name_hash
from robustdistiller.pretrain.data.dataset import Batch, BatchRequest, Heard, Position, SpeechBatches
from robustdistiller.pretrain.data.headers import lists_folder
from robustdistiller.pretrain.data.speech import SpeechCuts, speech_cuts

if TYPE_CHECKING:
    from robustdistiller.pretrain.config.schema import DistillConfig

logger = logging.getLogger(__name__)

#: What is validated when no conditions are given, as far as there are noises and rooms.
DEFAULT_CONDITIONS = ("clean", "noise:snr_db=5", "reverb", "noise+reverb:snr_db=10")

_BATCH_UTTERANCES = 8
_LARGEST_SHARE = 0.1  # of the training speech that may be held out
_TOUCHING_S = 1e-4  # more than two stretches of a file that touch overlap by rounding


class ValidationSpeech:
    """The utterances of the validation in batches of similar length, each with a fixed corruption per condition.

    Audio is read anew each time, so that a large set needs no memory. Of longer utterances, the first `max_samples` are
    used. `corruptors` are named by condition.
    """

    def __init__(self, cuts: Sequence[Cut | FileCut], corruptors: dict[str, Corruptor], max_samples: int):
        most_s = max_samples / SAMPLE_RATE_HZ
        cuts = [as_cut(cut) for cut in cuts]
        cuts = [
            cut.truncate(duration=most_s, preserve_id=True) if cut.num_samples > max_samples else cut for cut in cuts
        ]
        cuts = sorted(cuts, key=lambda cut: (cut.num_samples, cut.id))
        self.corruptors = corruptors
        self.requests = [
            BatchRequest(Position(), tuple(cuts[start : start + _BATCH_UTTERANCES]))
            for start in range(0, len(cuts), _BATCH_UTTERANCES)
        ]
        self._reader = SpeechBatches()

    def __len__(self) -> int:
        return len(self.requests)

    def read(self, index: int) -> tuple[Batch, list[Heard]]:
        """Clean speech of one batch, and what it sounds like under each condition.

        Raises:
            ValueError: audio that cannot be read; the file is named.
        """
        batch = self._reader[self.requests[index]]
        if batch.skipped:
            raise ValueError(batch.skipped[0][1])
        views = []
        for corruptor in self.corruptors.values():
            rows = []
            for name, length, row in zip(batch.ids, batch.lengths.tolist(), batch.waveforms.numpy()):
                drawn = corruptor.draw(name, length)
                rows.append((corruptor.apply(row[:length], drawn), drawn))
            views.append(Heard.of(rows))
        return batch, views

    def describe(self) -> dict:
        """What defines it, to recognise the same validation after a restart."""
        cuts = [cut for request in self.requests for cut in request.cuts]
        conditions = {label: corruptor.describe()["sources"] for label, corruptor in self.corruptors.items()}
        return {"speech": id_digest(cuts), "conditions": conditions}


def prepare_validation(
    config: DistillConfig, out_dir: Path, cuts: SpeechCuts, corruptor: Corruptor | None
) -> tuple[SpeechCuts, ValidationSpeech | None]:
    """Divide the speech, and make sure that everything the validation needs can be read.

    Returns:
        What remains of `cuts` to be trained on, and what to validate on (`None` without validation).

    Raises:
        SettingsError: speech, noise or rooms are missing or broken.
    """
    settings = config.validation
    if settings.every_steps is None:
        return cuts, None
    try:
        training, held = _divide(config, out_dir, cuts)
        corruptors = validation_corruptors(config, corruptor)
        speech = ValidationSpeech(held, corruptors, config.data.max_samples)
        for index in range(len(speech)):
            speech.read(index)
    except (OSError, ValueError) as error:
        raise error if isinstance(error, SettingsError) else SettingsError(f"validation: {error}") from error
    logger.info(
        "validation on %d utterances%s, every %d steps: %s",
        len(held),
        "" if settings.speech else " held out of data.speech",
        settings.every_steps,
        "; ".join(corruptors),
    )
    return training, speech


def _divide(config: DistillConfig, out_dir: Path, cuts: SpeechCuts) -> tuple[SpeechCuts, list[Cut | FileCut]]:
    """What to train on and what to validate on; speech in shards is trained on as it is."""
    listed = cuts.listed
    settings, data = config.validation, config.data
    if settings.speech:
        found, _ = speech_cuts(settings.speech, lists_folder(data.manifest_dir, out_dir), data.min_samples)
        heard = _Stretches(found)
        training = cuts.where(lambda cut: not heard.overlap(cut))
        held = choose_by_hash(found, settings.utterances)
        if len(training) < len(cuts):
            logger.info("%d utterances of validation.speech are left out of data.speech", len(cuts) - len(training))
    elif listed:
        kept, held = hold_out(listed, settings.utterances)
        ids = {cut.id for cut in kept}
        training = cuts.where(lambda cut: cut.id in ids)
    else:
        raise ValueError("nothing can be held out of data.speech in shards; give validation.speech=[FOLDER, ...]")
    if not len(training):
        raise ValueError("nothing of data.speech is left to train on; give another validation.speech")
    return training, held


def hold_out(cuts: Sequence[Cut], utterances: int) -> tuple[list[Cut], list[Cut]]:
    """Divide speech into a part to train on, in its order, and a part to validate on.

    Recordings are chosen by the hash of their name, so that the choice does not depend on order or place, and changes
    little when speech is added. All cuts of a recording go to the same side. Where `utterances` are more than a tenth
    of all, fewer are held out, but at least one.

    Raises:
        ValueError: everything is one recording.
    """
    recordings = defaultdict(list)
    for cut in cuts:
        recordings[_recording_of(cut)].append(cut)
    wanted = min(utterances, max(int(len(cuts) * _LARGEST_SHARE), 1))
    held: dict[str, list[Cut]] = {}
    for name in sorted(recordings, key=name_hash):
        if sum(map(len, held.values())) >= wanted:
            break
        held[name] = recordings[name]
    training = [cut for cut in cuts if _recording_of(cut) not in held]
    if not training:
        raise ValueError("holding out speech leaves none to train on, it is all one recording; give validation.speech")
    return training, choose_by_hash([cut for group in held.values() for cut in group], wanted)


def _recording_of(cut: Cut) -> str:
    return getattr(cut, "recording_id", None) or cut.id


class _Stretches:
    """Which stretches of which files some speech takes up."""

    def __init__(self, cuts: Iterable[Cut | FileCut]) -> None:
        found = defaultdict(list)
        for cut in cuts:
            file, begin_s, end_s = _place_of(cut)
            found[file].append((begin_s, end_s))
        # By where they begin, with the latest end of all until then.
        self._of = {}
        for file in found.keys() - {None}:
            begins, ends = np.array(sorted(found[file])).T
            self._of[file] = begins, np.maximum.accumulate(ends)

    def overlap(self, cut: Cut | FileCut) -> bool:
        """Whether a cut has audio in common with it."""
        file, begin_s, end_s = _place_of(cut)
        if file not in self._of:
            return False
        begins, ends = self._of[file]
        before = np.searchsorted(begins, end_s - _TOUCHING_S)
        return bool(before and ends[before - 1] > begin_s + _TOUCHING_S)


def _place_of(cut: Cut | FileCut) -> tuple[str | None, float, float]:
    """File, begin and end; without a file where it is in a shard."""
    if isinstance(cut, FileCut):
        begin_s = cut.first_frame / cut.info.sample_rate_hz
        return str(Path(cut.file).resolve()), begin_s, begin_s + cut.duration
    recording = getattr(cut, "recording", None)
    files = [source.source for source in recording.sources if source.type == "file"] if recording is not None else []
    return (str(Path(files[0]).resolve()) if files else None), cut.start, cut.end


def validation_corruptors(config: DistillConfig, training: Corruptor | None) -> dict[str, Corruptor]:
    """What the validation does to speech, by condition; it uses the training's noise and rooms where it names none."""
    settings, data = config.validation, config.data
    given = {} if training is None else {kind: getattr(training.recordings, kind) for kind in SOURCES}
    for kind in ("noise", "rir"):
        roots, split = getattr(settings, kind), "all"
        if not roots and not given.get(kind):  # what is taken from the section `data` is what training takes of it
            roots, split = getattr(data, kind), "training"
        if roots:
            source = _open(roots, kind, split)
            given[kind] = RIRSource(source) if kind == "rir" else source
    conditions = [Condition.parse(text) for text in settings.conditions or DEFAULT_CONDITIONS]
    if settings.conditions is None:
        conditions = [one for one in conditions if all(given.get(kind) for kind in one.needs)]
    return {one.label: Corruptor(one, **given, seed=settings.seed) for one in conditions}


def _open(roots: Sequence[str], purpose: str, split: str) -> AudioSource:
    pieces = []
    for root in roots:
        spec = SourceSpec.parse(root)
        found, name = spec.pieces(purpose, split), Path(spec.path).name
        pieces += found if len(roots) == 1 else [replace(one, name=f"{name}/{one.name}") for one in found]
    return AudioSource(pieces)
