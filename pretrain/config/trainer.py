"""The sections of a configuration that say how a student is trained: optimizer, length, validation, probes, logs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from robustdistiller.acoustics import Condition

Count = Annotated[int, Field(ge=1)]
"""A whole number of at least 1."""
WholeNumber = Annotated[int, Field(ge=0)]
"""A whole number of at least 0."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A finite number above 0."""
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A finite number of at least 0."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A number from 0 to 1."""
Decay = Annotated[float, Field(ge=0, lt=1)]
"""A number from 0 to below 1."""


@dataclass
class OptimConfig:
    """AdamW with linear warm-up.

    Attributes:
        lr: peak learning rate.
        betas: AdamW's.
        eps: AdamW's.
        weight_decay: on weight matrices and kernels; biases have none.
        decay_norms: whether the factors of norms decay, too.
        warmup_fraction: share of `schedule_steps` over which the rate rises from 0.
        schedule: after that, `linear` falls to 0 at `schedule_steps`, `constant` stays.
        schedule_steps: length of the schedule; null is `trainer.max_steps` of the stage's first start. A stage does not
            take it over from the one before.
        clip_norm: largest gradient norm of all trained weights together.
        clip_gates: whether the gates of pruning and their multipliers are among these.
    """

    lr: Positive = 2e-4
    betas: tuple[Decay, Decay] = (0.9, 0.98)
    eps: Positive = 1e-6
    weight_decay: NotNegative = 1e-6
    decay_norms: bool = False
    warmup_fraction: Share = 0.07
    schedule: Literal["linear", "constant"] = "linear"
    schedule_steps: Count | None = None
    clip_norm: Positive = 15.0
    clip_gates: bool = False


@dataclass
class TrainerConfig:
    """How long, how large, on what.

    Attributes:
        max_steps: optimizer steps of the stage.
        batch_size: utterances per batch and device; null is no limit.
        batch_seconds: about so many padded seconds per batch and device; null is no limit. With both, the one reached
            first counts.
        accumulate: batches per optimizer step.
        num_buckets: batches are made of utterances of similar length; this many kinds.
        accelerator: auto, cpu, gpu, mps, as Lightning names them.
        devices: devices per node.
        num_nodes: machines.
        strategy: how several processes train: `auto` is DDP for several devices; `ddp_find_unused_parameters_true` is
            needed where a part of the student has no part in the loss, such as layers above the last matched one.
        precision: `auto` is fp16 on CUDA and fp32 elsewhere.
        deterministic: refuse GPU kernels that are not reproducible.
        compile: compile the layers of teacher and student (torch.compile); takes minutes at the start.
        activation_checkpointing: compute the student's transformer layers again in the backward pass instead of
            keeping what is inside them: less memory, the same gradients.
        ema_decay: an exponential moving average of the student's weights with this decay is what is validated and
            exported; null is the weights themselves.
        log_every_steps: one line of history.csv and TensorBoard per so many steps.
        save_every_steps: checkpoint interval.
        keep_checkpoints: how many of the newest to keep; the newest itself is always kept, to go on from.
        max_hours: stop, with a checkpoint, after this time; start again to go on.
        progress: show the progress bar, where the output is a terminal.
    """

    max_steps: Count = 200_000
    batch_size: Count | None = 24
    batch_seconds: Positive | None = None
    accumulate: Count = 1
    num_buckets: Count = 10
    accelerator: str = "auto"
    devices: Count = 1
    num_nodes: Count = 1
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = "auto"
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    deterministic: bool = False
    compile: bool = False
    activation_checkpointing: bool = False
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    log_every_steps: Count = 50
    save_every_steps: Count = 10_000
    keep_checkpoints: WholeNumber = 2
    max_hours: Positive | None = None
    progress: bool = True


@dataclass
class ValidationConfig:
    """Validation during training: distances to the teacher, which always hears clean speech, on speech not trained on.

    Every utterance meets the same noise and room each time. Neither weights, nor random numbers, nor the order of the
    data depend on whether and how often it runs; only what is held out is missing from the training speech.

    Attributes:
        every_steps: optimizer steps between two validations; one more comes after the last step. Null is never.
        speech: folders to validate on, left out of the training where they are part of it. Empty holds out some of
            `data.speech`, chosen by a hash of the recording's name (the speakers are then those of the training).
        utterances: how many are used, chosen by hash; at most a tenth of `data.speech` is held out.
        conditions: one-line conditions (`noise:snr_db=5`). Null is clean, noise at 5 dB, reverberation, and
            reverberation with noise at 10 dB, without those for which there is no noise or no room.
        noise: folders of noise, written as in `data.noise`; all of it is used unless `split` says which part. Empty
            takes that of the training.
        rir: folders of impulse responses, likewise; empty takes those of the training.
        criterion: what, averaged over conditions, chooses the best checkpoint: the distance of the predicted targets by
            `cosine` (1 minus the cosine; all targets count alike) or `l1` (targets of large values count more), or the
            `loss`. Where no term of the loss trains predictions, their distance says nothing, and it has to be `loss`.
        seed: of the corruption.
    """

    every_steps: Count | None = None
    speech: list[str] = field(default_factory=list)
    utterances: Count = 64
    conditions: list[str] | None = None
    noise: list[str] = field(default_factory=list)
    rir: list[str] = field(default_factory=list)
    criterion: Literal["cosine", "l1", "loss"] = "cosine"
    seed: int = 0

    def __post_init__(self) -> None:
        labels = [Condition.parse(text).label for text in self.conditions or ()]
        if len(set(labels)) < len(labels) or self.conditions == []:
            raise ValueError(f"conditions: expected one or more different conditions, found {self.conditions}")


@dataclass
class ProbeConfig:
    """A linear probe while training: on features averaged over time, a classifier is trained on clean speech, and
    tested on other speech, clean and under the conditions of the validation.

    Attributes:
        every_steps: optimizer steps between two probes; one more comes after the last step. Null is never.
        data: CSV or `.tsv` file with the columns `path` (absolute, or relative to its folder) and `label` and, if
            wanted, `split`: `train`, and `dev` or `test`. With `dev`, those of `test` are left alone. Keep the
            recordings out of `data.speech`.
        test_share: of each label's recordings that are for testing where there is no column `split`.
        max_utterances: more are not used; all labels and splits stay in proportion. Null uses all.
        seed: of the choice.
        l2: weight of the squared weights beside the mean cross-entropy.
        criterion: whether the probe's accuracy, averaged over the conditions, chooses the best checkpoint; otherwise
            `validation.criterion` does.
    """

    every_steps: Count | None = None
    data: str | None = None
    test_share: Annotated[float, Field(gt=0, lt=1)] = 1 / 3
    max_utterances: Annotated[int, Field(ge=4)] | None = None
    seed: int = 0
    l2: Positive = 0.01
    criterion: bool = False


@dataclass
class LogConfig:
    """Where the log goes beside history.csv and TensorBoard.

    Attributes:
        wandb: project on Weights & Biases; null is none.
    """

    wandb: str | None = None
