"""The section `multitask` of a run's configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from robustdistiller.acoustics import Condition
from robustdistiller.pretrain.config.trainer import Count, Decay, NotNegative, Positive

TASKS = ("keywords", "speakers")
#: Keys that a multi-task run heeds, each with all below it; anything else is left at its default.
USED_KEYS = (
    *("about", "source", "recipe", "out_dir", "seed", "multitask", "corruption", "optim"),
    *("teacher.checkpoint", "student.checkpoint", "student.feature_grad_mult"),
    *("student.dropout", "student.attention_dropout", "student.activation_dropout"),
    *("data.noise", "data.noise_exclude", "data.rir", "data.babble", "data.music"),
    *("data.max_samples", "data.min_samples", "data.num_workers", "data.manifest_dir", "data.unreadable_budget"),
    *("trainer.max_steps", "trainer.num_buckets", "trainer.accelerator", "trainer.precision", "trainer.deterministic"),
    *("trainer.log_every_steps", "trainer.save_every_steps", "trainer.keep_checkpoints", "trainer.max_hours"),
    "trainer.progress",
)


@dataclass
class KeywordsConfig:
    """Keyword spotting: a linear head on the mean over time, trained with cross-entropy.

    Attributes:
        data: a folder `LABEL/file.wav` with `validation_list.txt` and `testing_list.txt` as in Speech Commands, folders
            `train/LABEL/...`, `dev/...` and `test/...`, or a `.csv` or `.tsv` with columns `path` (or `file`,
            `offset_samples`, `num_samples`), `label` and `split` (train, dev or test).
        words: the labels to tell apart; empty takes all. With a list, all other labels together are `_unknown_`, and
            the recordings in `_background_noise_` make `_silence_` (the 12 classes of Speech Commands are ten words and
            these two).
        unknown_share: with `words`, utterances of `_unknown_` per utterance of a wanted word, in each split.
        silence_share: the same for `_silence_`, one-second stretches of the background noise (each recording's first
            80 % for training, the next 10 % for dev, the rest for test); without such recordings there is no
            `_silence_`.
        batch_size: utterances per update.
    """

    data: str | None = None
    words: list[str] = field(default_factory=list)
    unknown_share: NotNegative = 0.1
    silence_share: NotNegative = 0.1
    batch_size: Count = 32

    def __post_init__(self) -> None:
        if len(set(self.words)) < len(self.words):
            raise ValueError(f"words: found {self.words}, expected each word once")


@dataclass
class SpeakersConfig:
    """Speaker verification: a linear embedding of the mean over time, trained with angular (margin) softmax.

    Attributes:
        data: a folder `SPEAKER/.../file`, with or without `train/`, `dev/`, `test/` above the speakers; VoxCeleb1's own
            `dev/wav/SPEAKER`, `test/wav/SPEAKER`, where `dev` is the training set; or a table as for keywords.
        trials: list of test trials, one `1 FILE FILE` (same speaker) or `0 FILE FILE` a line; null is `veri_test.txt`
            in the folder `data`, and without that file pairs are drawn from the test utterances. Speakers in the
            list are left out of training, unless the data say themselves what is for training.
        dev_share: share of the training utterances that is held out to choose the best step, where the data has no dev
            split of its own. (The same speakers as in training: a ranking of steps, not a measurement.)
        max_trials: pairs drawn at most, half of them of the same speaker where there are so many.
        embedding_dim: length of the embedding; null compares the pooled features themselves.
        margin_type: `am` takes the margin off the cosine, `aam` adds it to the angle (radians).
        margin: 0 is plain angular softmax: softmax over scaled cosines.
        scale: factor on the cosines.
        batch_size: utterances per update.
    """

    data: str | None = None
    trials: str | None = None
    dev_share: Annotated[float, Field(gt=0, lt=1)] = 0.03
    max_trials: Annotated[int, Field(ge=2)] = 20_000
    embedding_dim: Count | None = 256
    margin_type: Literal["am", "aam"] = "am"
    margin: Decay = 0.0
    scale: Positive = 30.0
    batch_size: Count = 32


@dataclass
class MultitaskConfig:
    """Fine-tuning of a student, or of a whole teacher, for one or two tasks at once.

    A step is one iteration: an update on a keyword batch, then an update on a speaker batch, by one Adam.

    Attributes:
        keywords: null leaves the task out.
        speakers: null leaves the task out.
        features: what the heads see: the outputs of the kept distillation heads, side by side (`predictions`), the last
            hidden state, or a sum of all hidden states with trained weights, one set per task.
        encoder: `frozen` trains the heads only.
        dev_every_steps: evaluation on the dev splits.
        export: the `best` step on dev (lowest mean over tasks of error rate and equal error rate) or the `last` one.
        conditions: further test conditions, one line each as in `noise:snr_db=5,noise=FOLDER`; clean speech is always
            tested. Noise, rooms, speech and music that a line does not name come from the section `data`.
    """

    keywords: KeywordsConfig | None = None
    speakers: SpeakersConfig | None = None
    features: Literal["predictions", "last_hidden", "weighted_sum"] = "predictions"
    encoder: Literal["trainable", "frozen"] = "trainable"
    dev_every_steps: Count = 500
    export: Literal["best", "last"] = "best"
    conditions: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("keywords and speakers are both null; expected at least one task")
        try:
            labels = [Condition.parse(text).label for text in self.conditions]
        except ValueError as error:
            raise ValueError(f"conditions: {error}") from error
        if len(set(labels)) < len(labels):
            raise ValueError(f"conditions: expected different conditions beside their paths, found {self.conditions}")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the order of their updates."""
        return tuple(name for name in TASKS if getattr(self, name) is not None)
