"""The sections of a distillation run's configuration, one dataclass each; `config` puts them together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from robustdistiller.pretrain.teacher.groups.find import GroupsConfig


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


@dataclass
class StudentConfig:
    """The model that is trained. What is not set is the teacher's.

    Attributes:
        checkpoint: start from this student, named as the teacher is, in its own shape, instead of building one.
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
        feature_grad_mult: factor on the gradient that reaches the conv extractor.
        dropout: in the transformer, after attention and feed-forward.
        attention_dropout: on attention weights.
        activation_dropout: inside the feed-forward part.
    """

    checkpoint: str | None = None
    num_layers: int | None = 2
    source_layers: Literal["first", "every_other"] | tuple[int, ...] = "first"
    init: Literal["distilhubert", "truncated", "random"] = "distilhubert"
    relative_position: Literal["drop", "keep"] = "drop"
    embed_dim: int | None = None
    num_heads: int | None = None
    ffn_dim: int | None = None
    feature_grad_mult: float = 0.1
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1


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

    Raises:
        ValueError: no crops, or no space.

    >>> TargetCacheConfig(crops=0)
    Traceback (most recent call last):
    ValueError: crops is 0, expected 1 or more
    """

    folder: str | None = None
    dtype: Literal["fp16", "int8", "fp32"] = "fp16"
    max_gb: float = 100.0
    crops: int = 1

    def __post_init__(self) -> None:
        if self.crops < 1:
            raise ValueError(f"crops is {self.crops}, expected 1 or more")
        if self.max_gb <= 0:
            raise ValueError(f"max_gb is {self.max_gb:g}, expected more than 0")


@dataclass
class TargetsConfig:
    """What of the teacher is predicted, and from what of the student. Layer 0 is the input of the first layer.

    Attributes:
        layers: one entry per target: a teacher layer, or a list of layers whose mean is the target (SKILL). `auto`
            finds groups of similar layers on a calibration set (section `groups`).
        match: `heads` regresses all targets from the student's last layer, one head each (DistilHuBERT); `layers`
            regresses each from a student layer through a linear map that starts as the identity (DPHuBERT).
        student_layers: with `match: layers`, the student layer, or group of layers, for each target; null is the same
            numbers as `layers`.
        share_maps: with `match: layers`, all targets but layer 0 share one map, as in DPHuBERT; false gives each its
            own.
        normalize: `layer_norm` takes mean and scale of each frame out of the teacher's layers before they are averaged
            and compared.
        groups: how `auto` finds the groups.
        cache: keep the targets on disk; null asks the teacher in every step. `targets.cache={}` does it as is.
    """

    layers: Literal["auto"] | tuple[int | tuple[int, ...], ...] = (4, 8, 12)
    match: Literal["heads", "layers"] = "heads"
    student_layers: tuple[int | tuple[int, ...], ...] | None = None
    share_maps: bool = True
    normalize: Literal["none", "layer_norm"] = "none"
    groups: GroupsConfig = field(default_factory=GroupsConfig)
    cache: TargetCacheConfig | None = None


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
    max_samples: int = 250_000
    min_samples: int = 1_600
    long_files: Literal["crop", "windows", "drop"] = "crop"
    num_workers: int = 4
    manifest_dir: str | None = None
    unreadable_budget: int = 10


@dataclass
class OptimConfig:
    """AdamW with linear warm-up.

    Attributes:
        lr: peak learning rate.
        betas: AdamW's.
        eps: AdamW's.
        weight_decay: on weight matrices and kernels; biases and norms have none.
        warmup_fraction: share of `schedule_steps` over which the rate rises from 0.
        schedule: after that, `linear` falls to 0 at `schedule_steps`, `constant` stays.
        schedule_steps: length of the schedule; null is `trainer.max_steps` of the run's first start.
        clip_norm: largest gradient norm of all trained parameters together.
    """

    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 1e-6
    warmup_fraction: float = 0.07
    schedule: Literal["linear", "constant"] = "linear"
    schedule_steps: int | None = None
    clip_norm: float = 15.0


@dataclass
class TrainerConfig:
    """How long, how large, on what.

    Attributes:
        max_steps: optimizer steps.
        batch_size: utterances per batch and device; null is no limit.
        batch_seconds: about so many padded seconds per batch and device; null is no limit. With both, the one reached
            first counts.
        accumulate: batches per optimizer step.
        num_buckets: batches are made of utterances of similar length; this many kinds.
        accelerator: Lightning's: auto, cpu, gpu, mps.
        devices: devices per node.
        num_nodes: machines.
        strategy: how several processes train: `auto` is DDP for several devices; `ddp_find_unused_parameters_true` is
            needed where a part of the student has no part in the loss, such as layers above the last matched one.
        precision: `auto` is fp16 on CUDA and fp32 elsewhere.
        deterministic: refuse GPU kernels that are not reproducible.
        compile: compile the layers of teacher and student (torch.compile); takes minutes at the start.
        activation_checkpointing: compute the student's transformer layers again in the backward pass instead of
            keeping what is inside them: less memory, the same gradients.
        log_every_steps: one line of history.csv and TensorBoard per so many steps.
        save_every_steps: checkpoint interval.
        keep_checkpoints: how many to keep.
        max_hours: stop, with a checkpoint, after this time; start again to go on.
        progress: show the progress bar, where the output is a terminal.
    """

    max_steps: int = 200_000
    batch_size: int | None = 24
    batch_seconds: float | None = None
    accumulate: int = 1
    num_buckets: int = 10
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = "auto"
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    deterministic: bool = False
    compile: bool = False
    activation_checkpointing: bool = False
    log_every_steps: int = 50
    save_every_steps: int = 10_000
    keep_checkpoints: int = 2
    max_hours: float | None = None
    progress: bool = True
