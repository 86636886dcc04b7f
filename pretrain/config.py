"""What a distillation run is: one dataclass tree, filled from a recipe file and dotted overrides.

Precedence: command line > recipe file > its `base` > the defaults below. Unknown keys are refused. The merged result
is saved as `config.yaml` in the run's folder before the first step, and is itself a recipe.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from robustdistiller.acoustics import CorruptionPolicy

from .settings import SettingsError, build, merge, nearest, parse_override, to_plain


@dataclass
class TeacherConfig:
    """The model that is imitated. It is frozen, in eval mode, and always hears clean speech.

    Attributes:
        checkpoint: file in any format that `robustdistiller.upstream.load_encoder` reads.
        autocast: run the teacher in the trainer's mixed precision too; false keeps it in float32.
    """

    checkpoint: str | None = None
    autocast: bool = False


@dataclass
class StudentConfig:
    """The model that is trained; its widths and conv extractor are the teacher's.

    Attributes:
        num_layers: transformer layers; layer i starts as the teacher's layer i.
        prediction_layers: teacher layers to predict, one head each (hidden state n is the output of layer n).
        init: `distilhubert` copies what the published students copy and leaves out the norm between conv extractor and
            projection; `truncated` is exactly the teacher's first layers; `random` copies nothing.
        relative_position: what to do with a WavLM teacher's relative position bias.
        feature_grad_mult: factor on the gradient that reaches the conv extractor.
        dropout: in the transformer, after attention and feed-forward.
        attention_dropout: on attention weights.
        activation_dropout: inside the feed-forward part.
    """

    num_layers: int = 2
    prediction_layers: tuple[int, ...] = (4, 8, 12)
    init: Literal["distilhubert", "truncated", "random"] = "distilhubert"
    relative_position: Literal["drop", "keep"] = "drop"
    feature_grad_mult: float = 0.1
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1


@dataclass
class DataConfig:
    """Where the audio is. Folders are searched recursively; any rate and channel count; read at 16 kHz, mono.

    Attributes:
        speech: folders of clean speech (flac, wav, ogg, opus, mp3), audio files, or lhotse cut manifests (.jsonl[.gz]).
        noise: folders of noise recordings.
        noise_exclude: patterns (`*`, `?`) of noise files to leave out, matched against the path below the folder.
        rir: folders of room impulse responses.
        babble: folders of speech to mix babble noise from.
        max_samples: longest stretch used at once, at 16 kHz.
        min_samples: shorter files are left out, at 16 kHz.
        long_files: `crop` takes one random stretch of a longer file per epoch; `windows` uses all of it, in pieces.
        num_workers: processes that read and prepare audio; 0 reads in the main process.
        manifest_dir: where the list of audio files is kept; null is the run's own folder. Share one between runs to
            scan large corpora once.
    """

    speech: list[str] = field(default_factory=list)
    noise: list[str] = field(default_factory=list)
    noise_exclude: list[str] = field(default_factory=list)
    rir: list[str] = field(default_factory=list)
    babble: list[str] = field(default_factory=list)
    max_samples: int = 250_000
    min_samples: int = 1_600
    long_files: Literal["crop", "windows"] = "crop"
    num_workers: int = 4
    manifest_dir: str | None = None


@dataclass
class EnhancementConfig:
    """The head that estimates the clean magnitude spectrum from the student's features of corrupted speech.

    Attributes:
        weight: of its loss in the sum; 0 leaves the head out.
        loss: distance between estimated and clean magnitudes.
        input: `extractor` feeds the conv features (as in the released code), `last_hidden` the last transformer layer.
        hidden_size: LSTM units per direction.
        num_layers: bidirectional LSTM layers.
        dropout: between LSTM layers and before the output layer.
    """

    weight: float = 0.0
    loss: Literal["l1", "l2"] = "l1"
    input: Literal["extractor", "last_hidden"] = "extractor"
    hidden_size: int = 256
    num_layers: int = 3
    dropout: float = 0.1


@dataclass
class ObjectivesConfig:
    """Weights of the terms of the loss; a term of weight 0 is not computed.

    Attributes:
        l1: mean absolute difference between predicted and teacher features.
        cosine: -log sigmoid of their cosine similarity.
        feature_penalty: mean square of the conv features.
        enhancement: spectrum estimation.
    """

    l1: float = 1.0
    cosine: float = 1.0
    feature_penalty: float = 0.0
    enhancement: EnhancementConfig = field(default_factory=EnhancementConfig)


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
        precision: `auto` is fp16 on CUDA and fp32 elsewhere.
        deterministic: refuse GPU kernels that are not reproducible.
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
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    deterministic: bool = False
    log_every_steps: int = 50
    save_every_steps: int = 10_000
    keep_checkpoints: int = 2
    max_hours: float | None = None
    progress: bool = True


@dataclass
class DistillConfig:
    """One distillation run.

    Attributes:
        about: what the recipe is, in one line.
        source: where it comes from.
        recipe: name of the recipe file.
        out_dir: the run's folder; a run found there is continued.
        seed: of everything drawn: initial heads, batches, crops, corruptions, dropout.

    >>> load_config("robustdistiller", ["student.num_layers=3", "out_dir=exp/three"]).student.num_layers
    3
    """

    about: str = ""
    source: str = ""
    recipe: str = ""
    out_dir: str | None = None
    seed: int = 0
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    data: DataConfig = field(default_factory=DataConfig)
    corruption: CorruptionPolicy | None = None
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-able values."""
        return to_plain(self)


def load_config(recipe: str | Path, overrides: Iterable[str] = ()) -> DistillConfig:
    """Read a recipe and lay overrides over it.

    Args:
        recipe: name of a shipped recipe, or the path of a YAML file.
        overrides: `dotted.key=value` each, value in YAML: `student.num_layers=3`, `data.speech=[A, B]`.

    Raises:
        SettingsError: unknown recipe, unknown key, or a value of the wrong type.

    >>> config = load_config("robustdistiller", ["optim.lr=1e-4", "data.noise=[musan/noise]"])
    >>> config.optim.lr, config.optim.clip_norm, config.data.noise
    (0.0001, 15.0, ['musan/noise'])
    """
    path = _find_recipe(recipe)
    values = _read_chain(path, seen=())
    for override in overrides:
        values = merge(values, parse_override(override))
    values["recipe"] = values.get("recipe") or path.stem
    return build(DistillConfig, values)


def list_recipes() -> dict[str, DistillConfig]:
    """The shipped recipes by name.

    >>> sorted(list_recipes())
    ['distilhubert', 'robustdistiller']
    """
    return {path.stem: load_config(path) for path in sorted(_recipe_dir().glob("*.yaml"))}


def _recipe_dir() -> Path:
    return Path(str(resources.files("robustdistiller.pretrain"))) / "recipes"


def _find_recipe(recipe: str | Path, near: Path | None = None) -> Path:
    """A recipe by path (relative to the working directory or to the file `near` that names it) or by shipped name."""
    candidate = Path(recipe).expanduser()
    if candidate.suffix in (".yaml", ".yml"):
        for path in (candidate, *((near.parent / candidate,) if near else ())):
            if path.is_file():
                return path
        raise SettingsError(f"recipe file {candidate} does not exist")
    path = _recipe_dir() / f"{recipe}.yaml"
    if not path.is_file():
        names = [path.stem for path in _recipe_dir().glob("*.yaml")]
        raise SettingsError(f"unknown recipe {str(recipe)!r} ({nearest(str(recipe), names)}); a file must end in .yaml")
    return path


def _read_chain(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The values of a recipe file laid over those of its `base`."""
    if path.resolve() in seen:
        raise SettingsError(f"recipe {path} is its own base: " + " -> ".join(str(step) for step in (*seen, path)))
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise SettingsError(f"recipe {path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"recipe {path}: expected keys and values, found {type(values).__name__}")
    base = values.pop("base", None)
    if base is None:
        return values
    below = _read_chain(_find_recipe(base, near=path), (*seen, path.resolve()))
    return merge({key: value for key, value in below.items() if key != "recipe"}, values)
