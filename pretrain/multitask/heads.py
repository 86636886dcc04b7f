"""The heads of the two tasks: what they see of the encoder, how they pool it, their losses, and their file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistiller.common.files import write_atomically
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.multitask.config import SpeakersConfig
from robustdistiller.pretrain.objectives.ops import full_precision, valid_frames
from robustdistiller.upstream import EncoderConfig, EncoderOutput

FORMAT = "robustdistiller-heads"
FORMAT_VERSION = 1


@dataclass
class HeadsConfig:
    """The shape of the heads, JSON-able.

    Attributes:
        features: `predictions`, `last_hidden` or `weighted_sum`.
        width: of the features, per frame.
        num_states: hidden states that a weighted sum runs over.
        labels: per task, its classes in order.
        embedding_dim: length of the speaker embedding; `None` is the pooled features themselves.
    """

    features: str
    width: int
    num_states: int
    labels: dict[str, list[str]] = field(default_factory=dict)
    embedding_dim: int | None = None

    @classmethod
    def for_encoder(
        cls, encoder: EncoderConfig, features: str, labels: Mapping[str, list[str]], embedding_dim: int | None = None
    ) -> HeadsConfig:
        """The shape that fits an encoder; `SettingsError` for `predictions` of one without prediction heads."""
        width = encoder.embed_dim
        if features == "predictions":
            width = len(encoder.prediction_layers) * (encoder.prediction_dim or width)
            if not width:
                raise SettingsError(
                    "multitask.features=predictions: this model has no prediction heads, as distilled students have; "
                    "give multitask.features=last_hidden or weighted_sum"
                )
        return cls(features, width, encoder.num_layers + 1, dict(labels), embedding_dim)


class PooledFeatures(nn.Module):
    """Features of an encoder's output, mean over an utterance's valid frames: (B, width)."""

    def __init__(self, config: HeadsConfig):
        super().__init__()
        self.features = config.features
        weighted = config.features == "weighted_sum"
        self.layer_weights = nn.Parameter(torch.zeros(config.num_states)) if weighted else None

    def forward(self, output: EncoderOutput) -> Tensor:
        if self.features == "predictions":
            frames = torch.cat(output.predictions, dim=-1)
        elif self.features == "last_hidden":
            frames = output.hidden_states[-1]
        else:
            frames = sum(w * state for w, state in zip(self.layer_weights.softmax(0), output.hidden_states))
        valid = valid_frames(output.frame_lengths, frames.shape[1]).unsqueeze(2)
        return frames.float().masked_fill(~valid, 0.0).sum(1) / output.frame_lengths.unsqueeze(1)


class KeywordHead(nn.Module):
    """A linear classifier of the pooled features: logits (B, classes)."""

    def __init__(self, config: HeadsConfig):
        super().__init__()
        self.pool = PooledFeatures(config)
        self.classify = nn.Linear(config.width, len(config.labels["keywords"]))

    def forward(self, output: EncoderOutput) -> Tensor:
        with full_precision(output.frame_lengths):
            return self.classify(self.pool(output))

    def loss(self, logits: Tensor, classes: Tensor, options: object) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy, and the accuracy for the log."""
        accuracy = (logits.argmax(dim=1) == classes).float().mean()
        return F.cross_entropy(logits, classes), {"keywords_accuracy": accuracy}


class SpeakerHead(nn.Module):
    """A linear embedding (B, D) of the pooled features, compared by its cosine, and one centre per training speaker."""

    def __init__(self, config: HeadsConfig):
        super().__init__()
        self.pool = PooledFeatures(config)
        width = config.embedding_dim or config.width
        self.embed = nn.Identity() if config.embedding_dim is None else nn.Linear(config.width, width)
        self.centres = nn.Parameter(torch.empty(len(config.labels["speakers"]), width))
        nn.init.xavier_normal_(self.centres)

    def forward(self, output: EncoderOutput) -> Tensor:
        with full_precision(output.frame_lengths):
            return self.embed(self.pool(output))

    def loss(self, embeddings: Tensor, classes: Tensor, options: SpeakersConfig) -> tuple[Tensor, dict[str, Tensor]]:
        """Angular softmax: cross-entropy of the scaled cosines between embeddings and centres, with a margin."""
        with full_precision(embeddings):
            cosines = F.normalize(embeddings, dim=1) @ F.normalize(self.centres, dim=1).T
            logits = margin_logits(cosines, classes, options.scale, options.margin, options.margin_type)
            return F.cross_entropy(logits, classes), {}


def margin_logits(cosines: Tensor, classes: Tensor, scale: float, margin: float, margin_type: str) -> Tensor:
    """Logits for cross-entropy: cosines (B, classes) with a handicap on the right class (B,), scaled.

    AM-softmax (https://arxiv.org/abs/1801.05599) lowers the right class's cosine, cos t - m; AAM-softmax
    (https://arxiv.org/abs/1801.07698) widens its angle, cos(t + m), m in radians, and beyond t = pi - m goes on as cos
    t - m sin m, so that the logit never rises with the angle. With `margin=0` both are the plain softmax over scaled
    cosines.

    >>> margin_logits(torch.tensor([[0.5, 0.2]]), torch.tensor([0]), 10.0, 0.2, "am")
    tensor([[3., 2.]])
    """
    if margin == 0:
        return scale * cosines
    right = cosines.gather(1, classes.unsqueeze(1))
    handicapped = right - margin
    if margin_type == "aam":
        # The slope of the sine is infinite at a cosine of 1, where embedding and centre coincide.
        sine = (1 - right.square()).clamp_min(1e-7).sqrt()
        turned = right * math.cos(margin) - sine * math.sin(margin)
        handicapped = torch.where(right > -math.cos(margin), turned, right - margin * math.sin(margin))
    return scale * cosines.scatter(1, classes.unsqueeze(1), handicapped)


class TaskHeads(nn.ModuleDict):
    """The heads of the tasks that `config.labels` names."""

    def __init__(self, config: HeadsConfig):
        kinds = {"keywords": KeywordHead, "speakers": SpeakerHead}
        super().__init__({task: kinds[task](config) for task in config.labels})
        self.config = config


def save_heads(path: str | Path, heads: TaskHeads, metadata: Mapping[str, Any]) -> None:
    """Write heads and JSON-able notes, atomically; `torch.load(path, weights_only=True)` reads them."""
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": asdict(heads.config),
        "state_dict": {name: value.detach().cpu().clone() for name, value in heads.state_dict().items()},
        "metadata": json.loads(json.dumps(dict(metadata))),
    }
    write_atomically(path, lambda file: torch.save(content, file))


def load_heads(path: str | Path) -> TaskHeads:
    """Read what a multi-task run wrote as `heads.ckpt`; its encoder is the `student.ckpt` beside it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.

    >>> import tempfile
    >>> from robustdistiller.upstream import SpeechEncoder
    >>> encoder = SpeechEncoder(EncoderConfig.tiny())
    >>> config = HeadsConfig.for_encoder(encoder.config, "last_hidden", {"keywords": ["no", "yes"]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_heads(f"{folder}/heads.ckpt", TaskHeads(config), {"step": 100})
    ...     heads = load_heads(f"{folder}/heads.ckpt")
    >>> logits = heads["keywords"](encoder(torch.zeros(1, 16000)))
    >>> heads.config.labels["keywords"][logits.argmax()] in ("no", "yes")
    True
    """
    path = Path(path).expanduser()
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} does not hold the heads of a multi-task run; expected the heads.ckpt it wrote")
    if content["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format_version is {content['format_version']!r}, this package reads {FORMAT_VERSION}; "
            "update robustdistiller"
        )
    heads = TaskHeads(HeadsConfig(**content["config"]))
    heads.load_state_dict(content["state_dict"])
    return heads
