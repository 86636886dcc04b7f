"""What a distillation run is, as settings: one tree of dataclasses, filled from recipe files and a command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from robustdistiller.acoustics import CorruptionPolicy
from robustdistiller.common.written import to_plain
from robustdistiller.pretrain.config.trainer import (
    Count,
    LogConfig,
    NotNegative,
    OptimConfig,
    Positive,
    ProbeConfig,
    Share,
    TrainerConfig,
    ValidationConfig,
    WholeNumber,
)
from robustdistiller.pretrain.multitask.config import MultitaskConfig
from robustdistiller.pretrain.objectives.config import ObjectivesConfig
from robustdistiller.pretrain.student.masking import MaskConfig
from robustdistiller.pretrain.student.pruning.config import PruningConfig
from robustdistiller.pretrain.teacher.groups.find import GroupsConfig
from robustdistiller.pretrain.teacher.units import UnitsConfig

Target = int | Literal["projected"] | tuple[int, ...]
"""A layer, the mean of several, or `projected`: the projected conv features before the position encoding."""


@dataclass
class TeacherConfig:
    """The model that is imitated. It is frozen and in eval mode.

    Attributes:
        checkpoint: path, URL, `org/name[@revision]` on the Hugging Face Hub, or registered name of a readable model.
        hears: `clean` speech, or a corruption of its own (`independent`), drawn like the student's but apart from it:
            the cross-distortion mapping of arXiv 2210.07978 ("setup 2" of the correlation recipe). The same corruption
            on both sides is not offered: it teaches the student to keep the noise.
        autocast: run the teacher in the trainer's mixed precision too; false keeps it in float32.
    """

    checkpoint: str | None = None
    hears: Literal["clean", "independent"] = "clean"
    autocast: bool = False


#: Options of a student that are about its training: all others are its shape, or where it comes from.
TRAINING_KEYS = frozenset(
    (*("trains", "feature_grad_mult", "train_feature_scale", "mask"),
     *("dropout", "feature_dropout", "attention_dropout", "activation_dropout"))
)  # fmt: skip


@dataclass
class StudentConfig:
    """The model that is trained. What is not set is the teacher's.

    Attributes:
        checkpoint: start from this student, named as the teacher is, in its own shape, instead of building one.
        conv_layers: `[channels, kernel, stride]` of each layer of the conv extractor, or a cheaper front end by name:
            `squeezed` (FitHuBERT, ARMHuBERT, STaRHuBERT), `sew` (SEW), or `log_mel`: two convolutions, as wide as the
            transformer, on log-mel spectra. The samples per frame have to be the teacher's.
        feature_norm: layer norm between conv extractor and projection; null is as `init` has it.
        num_layers: transformer layers; null is as many as the teacher has.
        source_layers: teacher layers that the student's start from: the `first` ones, `every_other` one (1, 3, 5 ...),
            or a list, counted from 1.
        init: `distilhubert` copies what the published students copy and leaves out the norm between conv extractor and
            projection; `truncated` copies everything, so that with the first layers the untrained student computes
            the teacher's first hidden states; `random` copies nothing.
        relative_position: what to do with a WavLM teacher's relative position bias.
        embed_dim: width of the transformer; another width than the teacher's starts at random behind the copied conv
            extractor ("thin and deep").
        num_heads: attention heads per layer.
        ffn_dim: feed-forward width.
        squeeze: frames that share one inside the transformer: 2 computes at half the rate. What comes out, and is
            compared with the teacher's, has all frames.
        squeeze_by: `pool` takes their mean (SEW), `conv` is a convolution (FitHuBERT).
        expand_by: `linear` maps each frame of the last layer to as many as it stands for (SEW), `repeat` gives it as
            often, as those of the other layers are given.
        attention_reuse: layers, counted from 1, that take the attention weights of the layer before them, and so have
            no queries and keys (ARMHuBERT).
        first_state: what the upstream gives as hidden state 0: the conv features `projected`, or `layer_input`, behind
            the position encoding; `auto` is the former for students with heads, otherwise as the teacher's file has it.
        trains: `all` of it, or the `front_end` alone, by the teacher's projected features: what stands before the
            transformer, of which neither the student's nor the teacher's is run. That is for a first stage, where the
            front end is new: whatever `targets` says, `projected` is its only target, without a map where teacher and
            student are equally wide.
        feature_grad_mult: factor on the gradient that reaches the conv extractor.
        train_feature_scale: whether the factors on the conv features that pruning leaves behind are trained.
        feature_dropout: after the projection of the conv features; null is what the teacher's file says, which differs
            between files of one model.
        dropout: in the transformer, after attention and feed-forward.
        attention_dropout: on attention weights.
        activation_dropout: inside the feed-forward part.
        mask: hides stretches of its frames from it, while it is trained; null hides none.
    """

    checkpoint: str | None = None
    conv_layers: Literal["squeezed", "sew", "log_mel"] | tuple[tuple[Count, Count, Count], ...] | None = None
    feature_norm: bool | None = None
    num_layers: Count | None = 2
    source_layers: Literal["first", "every_other"] | tuple[int, ...] = "first"
    init: Literal["distilhubert", "truncated", "random"] = "distilhubert"
    relative_position: Literal["drop", "keep"] = "drop"
    embed_dim: Count | None = None
    num_heads: Count | None = None
    ffn_dim: Count | None = None
    squeeze: Count | None = None
    squeeze_by: Literal["pool", "conv"] = "pool"
    expand_by: Literal["linear", "repeat"] = "linear"
    attention_reuse: tuple[int, ...] | None = None
    first_state: Literal["auto", "projected", "layer_input"] = "auto"
    trains: Literal["all", "front_end"] = "all"
    feature_grad_mult: NotNegative = 0.1
    train_feature_scale: bool = True
    feature_dropout: Share | None = None
    dropout: Share = 0.1
    attention_dropout: Share = 0.1
    activation_dropout: Share = 0.1
    mask: MaskConfig | None = None


@dataclass
class TargetCacheConfig:
    """Keeping the teacher's targets on disk: from the second epoch on, the teacher is not asked again.

    Possible where it hears clean speech. A recording longer than `data.max_samples` is then no longer heard in a new
    stretch each epoch, but in the same `crops` stretches in turn.

    Attributes:
        folder: where; null is `targets` in the run's folder. Runs that have the teacher in common can share one: of a
            stretch of speech that one has asked about, the others do not ask.
        dtype: `fp16`, `int8` (half of that, coarser) or `fp32` (twice that, exact).
        max_gb: most space to take, in 1e9 bytes; refused before the first step if it is not enough.
        crops: stretches of each long recording.
    """

    folder: str | None = None
    dtype: Literal["fp16", "int8", "fp32"] = "fp16"
    max_gb: Positive = 100.0
    crops: Count = 1


@dataclass
class TargetsConfig:
    """What of the teacher is predicted, and from what of the student.

    Layer 0 is the input of the first layer, after position encoding and norm; `projected` is what both start from.

    Attributes:
        layers: one entry per target: a teacher layer, a list of layers whose mean is the target (SKILL), or, with
            `match: layers`, `projected` (what DPHuBERT's code calls layer 0). `auto` finds groups of similar layers on
            a calibration set (section `groups`).
        match: `heads` regresses all targets from the student's last layer, one head each (DistilHuBERT); `layers`
            regresses each from a student layer through a linear map that starts as the identity (DPHuBERT).
        student_layers: with `match: layers`, the student layer, or group of layers, for each target; null is the same
            numbers as `layers`.
        share_maps: with `match: layers`, all targets but layer 0 and `projected` share one map, as in DPHuBERT; false
            gives each its own.
        normalize: `layer_norm` takes mean and scale of each frame out of the teacher's layers before they are averaged
            and compared.
        groups: how `auto` finds the groups.
        units: divides the frames of one of the first teacher's layers into units, for `objectives.units`; null makes
            none. `targets.units={}` does it as is.
        cache: keep the targets on disk; null asks the teacher in every step. `targets.cache={}` does it as is.
    """

    layers: Literal["auto"] | tuple[Target, ...] = (4, 8, 12)
    match: Literal["heads", "layers"] = "heads"
    student_layers: tuple[Target, ...] | None = None
    share_maps: bool = True
    normalize: Literal["none", "layer_norm"] = "none"
    groups: GroupsConfig = field(default_factory=GroupsConfig)
    units: UnitsConfig | None = None
    cache: TargetCacheConfig | None = None


@dataclass
class OtherTeacherConfig(TeacherConfig):
    """A further teacher, whose targets stand beside those of the first; with `targets.match: layers` only.

    What it has beside a teacher's options is as in `targets`; groups are not found for it.
    """

    layers: tuple[Target, ...] = ()
    student_layers: tuple[Target, ...] | None = None
    share_maps: bool = True
    normalize: Literal["none", "layer_norm"] = "none"


@dataclass
class DataConfig:
    """Where the audio is. Folders are searched recursively; any rate and channel count; read at 16 kHz, mono.

    Attributes:
        speech: folders of clean speech (flac, wav, ogg, opus, mp3), audio files, lhotse cut manifests
            (.jsonl[.gz]), lhotse Shar folders, or WebDataset shards (a folder of .tar files or one of them). As `PATH`,
            every recording counts alike; as `PATH,weight=2`, which all of them need then, each has its share.
        noise: folders of noise recordings, as `PATH` or `PATH,split=..,kind=..,only=A+B,without=C,weight=2` (see
            `acoustics.SourceSpec`). With weights, for all of them, each folder has its share of the draws. Of a known
            corpus (see `acoustics.corpus_pieces`), and of a folder with a part called train, dev or test, what serves
            as noise is taken, without `split` the part for training.
        noise_exclude: patterns (`*`, `?`) of noise files to leave out, matched against the path below the folder.
        rir: folders of room impulse responses, as for `noise`: `"RIRS_NOISES,only=real"` are the measured rooms.
        babble: folders of speech to mix babble noise from, and of interfering talkers, as for `noise`.
        music: folders of music, as for `noise`.
        max_samples: longest stretch used at once, at 16 kHz.
        min_samples: shorter files are left out, at 16 kHz.
        long_files: `crop` takes one random stretch of a longer file per epoch; `windows` uses all of it, in pieces;
            `drop` leaves longer files out, as DPHuBERT does.
        num_workers: processes that read and prepare audio; 0 reads in the main process.
        manifest_dir: where the list of audio files is kept; null is the run's own folder. Share one between runs to
            scan large corpora once.
        unreadable_budget: recordings that may turn out unreadable in the middle of a run, or silent, constant or next
            to nothing in length where they are to be noise; they are left out and listed in `out_dir/unreadable.txt`.
            One more stops the run.
    """

    speech: list[str] = field(default_factory=list)
    noise: list[str] = field(default_factory=list)
    noise_exclude: list[str] = field(default_factory=list)
    rir: list[str] = field(default_factory=list)
    babble: list[str] = field(default_factory=list)
    music: list[str] = field(default_factory=list)
    max_samples: Count = 250_000
    min_samples: Count = 1_600
    long_files: Literal["crop", "windows", "drop"] = "crop"
    num_workers: WholeNumber = 4
    manifest_dir: str | None = None
    unreadable_budget: WholeNumber = 10


@dataclass
class DistillConfig:
    """One distillation run.

    Attributes:
        about: what the recipe is, in one line.
        source: where it comes from.
        recipe: name of the recipe file.
        out_dir: the run's folder; a run found there is continued.
        seed: of everything drawn: initial heads, batches, crops, corruptions, dropout.
        teacher: the model that is imitated.
        teachers: further ones by name, each with targets of its own, which are called `NAME:LAYER`.
        student: the model that is trained.
        targets: what of the first teacher is predicted.
        data: what is heard.
        corruption: what the student hears done to it; null is clean speech.
        objectives: the terms of the loss.
        pruning: pruning of the student while it is trained; null is none.
        optim: the optimizer.
        trainer: length, batches, devices.
        validation: distances to the teacher on speech that is not trained on.
        probe: a linear probe on labelled speech.
        log: where the log goes.
        stages: what is done in turn with one student: a name for each stage, and the settings laid over those above
            while it lasts. None are one stage, called `distil`. See `config.stages.stages_of`.
        multitask: fine-tune for labelled tasks instead of distilling.

    >>> from robustdistiller.pretrain import load_config
    >>> load_config("robustdistiller", ["student.num_layers=3", "out_dir=exp/three"]).student.num_layers
    3
    """

    about: str = ""
    source: str = ""
    recipe: str = ""
    out_dir: str | None = None
    seed: int = 0
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    teachers: dict[str, OtherTeacherConfig] = field(default_factory=dict)
    student: StudentConfig = field(default_factory=StudentConfig)
    targets: TargetsConfig = field(default_factory=TargetsConfig)
    data: DataConfig = field(default_factory=DataConfig)
    corruption: CorruptionPolicy | None = None
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)
    pruning: PruningConfig | None = None
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    log: LogConfig = field(default_factory=LogConfig)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    multitask: MultitaskConfig | None = None

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-able values; as YAML it is a recipe that gives the same configuration again."""
        return to_plain(self)
