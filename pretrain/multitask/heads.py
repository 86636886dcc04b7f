"""The heads of the two tasks: what they see of the encoder, how they pool it, and their file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustdistiller.common.files import write_atomically
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.multitask.margin import angular_softmax
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
        """The shape that fits an encoder.

        Raises:
            SettingsError: `predictions` of an encoder without prediction heads.

        >>> HeadsConfig.for_encoder(EncoderConfig(prediction_layers=(4, 8, 12)), "predictions", {}).width
        2304
        """
        width = encoder.embed_dim
        if features == "predictions":
            count = len(encoder.prediction_layers)
            if not count:
                raise SettingsError(
                    "multitask.features=predictions: this model has no prediction heads, as distilled students have; "
                    "give multitask.features=last_hidden or weighted_sum"
                )
            width = count * (encoder.prediction_dim or encoder.embed_dim)
        return cls(features, width, encoder.num_layers + 1, dict(labels), embedding_dim)


class PooledFeatures(nn.Module):
    """Features of the encoder, mean over an utterance's valid frames: (B, width).

    >>> pool = PooledFeatures("last_hidden", num_states=1)
    >>> states = torch.tensor([[[1.0], [3.0], [100.0]]])
    >>> pool(EncoderOutput(states, states, [states], frame_lengths=torch.tensor([2])))
    tensor([[2.]])
    """

    def __init__(self, features: str, num_states: int):
        super().__init__()
        self.features = features
        self.layer_weights = nn.Parameter(torch.zeros(num_states)) if features == "weighted_sum" else None

    def forward(self, output: EncoderOutput) -> Tensor:
        """Pool what the encoder returned."""
        frames = self._frames(output).float()
        valid = torch.arange(frames.shape[1], device=frames.device) < output.frame_lengths.unsqueeze(1)
        total = (frames * valid.unsqueeze(2)).sum(dim=1)
        return total / output.frame_lengths.unsqueeze(1)

    def _frames(self, output: EncoderOutput) -> Tensor:
        if self.features == "predictions":
            return torch.cat(output.predictions, dim=-1)
        if self.features == "last_hidden":
            return output.hidden_states[-1]
        weights = torch.softmax(self.layer_weights, dim=0)
        return sum(weight * state for weight, state in zip(weights, output.hidden_states))


class KeywordHead(nn.Module):
    """A linear classifier of the pooled features.

    >>> head = KeywordHead(HeadsConfig("last_hidden", 4, 1, {"keywords": ["no", "yes"]}))
    >>> states = torch.zeros(3, 5, 4)
    >>> head(EncoderOutput(states, states, [states], frame_lengths=torch.tensor([5, 4, 1]))).shape
    torch.Size([3, 2])
    """

    def __init__(self, config: HeadsConfig):
        super().__init__()
        self.pool = PooledFeatures(config.features, config.num_states)
        self.classify = nn.Linear(config.width, len(config.labels["keywords"]))

    def forward(self, output: EncoderOutput) -> Tensor:
        """Logits (B, classes)."""
        with torch.autocast(output.frame_lengths.device.type, enabled=False):
            return self.classify(self.pool(output))


class SpeakerHead(nn.Module):
    """A linear embedding of the pooled features, and one centre per training speaker.

    >>> head = SpeakerHead(HeadsConfig("last_hidden", 4, 1, {"speakers": ["ann", "bob"]}, embedding_dim=8))
    >>> states = torch.zeros(3, 5, 4)
    >>> head(EncoderOutput(states, states, [states], frame_lengths=torch.tensor([5, 4, 1]))).shape
    torch.Size([3, 8])
    """

    def __init__(self, config: HeadsConfig):
        super().__init__()
        self.pool = PooledFeatures(config.features, config.num_states)
        width = config.embedding_dim or config.width
        self.embed = nn.Identity() if config.embedding_dim is None else nn.Linear(config.width, width)
        self.centres = nn.Parameter(torch.empty(len(config.labels["speakers"]), width))
        nn.init.xavier_normal_(self.centres)

    def forward(self, output: EncoderOutput) -> Tensor:
        """Embeddings (B, D), of any length: they are compared by their cosine."""
        with torch.autocast(output.frame_lengths.device.type, enabled=False):
            return self.embed(self.pool(output))

    def loss(self, embeddings: Tensor, labels: Tensor, scale: float, margin: float, margin_type: str) -> Tensor:
        """Angular softmax of embeddings (B, D) whose speakers are `labels` (B,)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return angular_softmax(embeddings, self.centres, labels, scale, margin, margin_type)


class TaskHeads(nn.ModuleDict):
    """The heads of the tasks that `config.labels` names.

    >>> heads = TaskHeads(HeadsConfig("last_hidden", 4, 1, {"speakers": ["ann", "bob"]}))
    >>> list(heads), heads.config.labels["speakers"]
    (['speakers'], ['ann', 'bob'])
    """

    def __init__(self, config: HeadsConfig):
        kinds = {"keywords": KeywordHead, "speakers": SpeakerHead}
        super().__init__({task: kinds[task](config) for task in config.labels})
        self.config = config


def save_heads(path: str | Path, heads: TaskHeads, metadata: Mapping[str, Any]) -> None:
    """Write heads, atomically, as plain tensors and JSON values: `torch.load(path, weights_only=True)` reads them.

    Args:
        path: the file.
        heads: trained heads.
        metadata: JSON-able notes.
    """
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
    >>> encoder = SpeechEncoder(EncoderConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4))
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
