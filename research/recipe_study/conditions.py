"""What the test audio goes through: the same noise and the same rooms for every upstream, mixed once and kept."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass

import numpy as np

from research.recipe_study.files import load_arrays, save_arrays
from research.recipe_study.pool import StudyData
from research.recipe_study.tasks import Items
from robustdistiller.acoustics import AudioSource, Corruptor, RIRSource, corrupt_utterance
from robustdistiller.common.locks import locked

logger = logging.getLogger(__name__)

SEED = 20


@dataclass(frozen=True)
class StudyCondition:
    """A test condition of the study.

    Attributes:
        name: in file names and tables.
        title: for people.
        what: its one-line form, see `acoustics.Condition`.

    >>> CONDITIONS["noise10"].what
    'noise:snr_db=10'
    """

    name: str
    title: str
    what: str


CONDITIONS = {
    condition.name: condition
    for condition in (
        StudyCondition("clean", "clean", "clean"),
        StudyCondition("noise20", "noise 20 dB", "noise:snr_db=20"),
        StudyCondition("noise10", "noise 10 dB", "noise:snr_db=10"),
        StudyCondition("noise5", "noise 5 dB", "noise:snr_db=5"),
        StudyCondition("noise0", "noise 0 dB", "noise:snr_db=0"),
        StudyCondition("babble10", "babble 10 dB", "noise:snr_db=10,noise=babble"),
        StudyCondition("room", "room", "reverb"),
        StudyCondition("room_noise10", "room and noise 10 dB", "noise+reverb:snr_db=10"),
    )
}
NOISY = tuple(name for name in CONDITIONS if name != "clean")


def make_corruptor(data: StudyData, condition: StudyCondition) -> Corruptor:
    """The corruptor of a condition: test noise of pool and shipped corpus, its test rooms, babble of held-out voices.

    Raises:
        FileNotFoundError: the data were not prepared.
    """
    corpus = data.corpus
    noise = [path for path in (data.noise_test, corpus.noise_test) if path.exists()]
    return Corruptor(
        condition.what,
        noise=AudioSource.from_path(noise),
        rir=RIRSource.from_path(corpus.rir_test),
        speech=AudioSource.from_path(data.babble) if data.babble.exists() else None,
        seed=SEED,
    )


def test_audio(data: StudyData, task: str, items: Items, condition: StudyCondition) -> np.ndarray:
    """The test items of a task under a condition, one after another; mixed on the first call.

    Returns:
        (samples,) float16, or the items' own int16 for clean speech.
    """
    if condition.what == "clean":
        return items.audio
    path = data.work / "tasks" / task / f"test-{condition.name}.npz"
    with locked(path.with_suffix(".lock")):
        corruptor = make_corruptor(data, condition)
        made_of = json.dumps([corruptor.describe(), hashlib.sha256(items.audio.tobytes()).hexdigest(), items.ids])
        digest = hashlib.sha256(made_of.encode()).hexdigest()
        if path.is_file():
            notes, arrays = load_arrays(path)
            if notes["digest"] == digest:
                return arrays["audio"]
        logger.info("mixing %s under %s", task, condition.name)
        pairs = zip(items.ids, items.waveforms())
        mixed = [corrupt_utterance(samples, corruptor, name).astype(np.float16) for name, samples in pairs]
        audio = np.concatenate(mixed)
        save_arrays(path, {"digest": digest, "condition": condition.what}, {"audio": audio})
    return audio
