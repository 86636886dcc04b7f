"""The README of a Hugging Face folder, from what a checkpoint's metadata says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from robustdistiller.upstream.checkpoints.formats.base import Checkpoint
from robustdistiller.upstream.model.config import EncoderConfig

_UNKNOWN = "not recorded in the checkpoint"


def model_card(
    checkpoint: Checkpoint, name: str, model_class: str, notes: Iterable[str] = (), results: str = ""
) -> str:
    """Markdown with YAML front matter. What the metadata does not say is called unrecorded, not guessed.

    Args:
        checkpoint: encoder and metadata, as :func:`robustdistiller.pretrain.distill` writes it.
        name: title of the card.
        model_class: class of transformers that reads the folder.
        notes: what differs from the original checkpoint.
        results: Markdown for the section of results.

    >>> from robustdistiller.upstream import EncoderConfig, SpeechEncoder
    >>> config = EncoderConfig.tiny(num_layers=1)
    >>> weights = SpeechEncoder(config).state_dict()
    >>> card = model_card(Checkpoint("robustdistiller", config, weights, {"license": "mit"}), "tiny", "HubertModel")
    >>> card.splitlines()[1:3]
    ['license: mit', 'library_name: transformers']
    """
    metadata = checkpoint.metadata
    sections = [
        f"# {name}",
        _summary(checkpoint),
        _section("Use", _usage(model_class, checkpoint.config)),
        _section("Origin", _bullets(_origin(metadata))),
        _section("Differences from the original checkpoint", _bullets((note,) for note in notes)),
        _section("Results", results.strip() or "No results were given when this card was written."),
        _section("Architecture", _bullets(_architecture(checkpoint))),
    ]
    return "\n\n".join([_front_matter(metadata), *filter(None, sections)]) + "\n"


def _front_matter(metadata: Mapping[str, Any]) -> str:
    values: dict[str, Any] = {}
    if metadata.get("license"):
        values["license"] = str(metadata["license"])
    values |= {
        "library_name": "transformers",
        "pipeline_tag": "feature-extraction",
        "tags": ["speech", "audio", "self-supervised", "distillation", "robustdistiller"],
    }
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---"


def _summary(checkpoint: Checkpoint) -> str:
    config = checkpoint.config
    count = sum(value.numel() for value in checkpoint.state_dict.values())
    milliseconds = 1000 * config.downsample_rate / 16000
    return (
        f"A speech encoder of {count / 1e6:.2f} M parameters: {config.num_layers} transformer layers of width "
        f"{config.embed_dim}. It turns a waveform at 16 kHz into one vector per {milliseconds:g} ms."
    )


def _usage(model_class: str, config: EncoderConfig) -> str:
    scaled = "waveform"
    if config.normalize_waveform:
        scaled = f"torch.nn.functional.layer_norm(waveform, waveform.shape, eps={config.normalize_eps:g})"
    return "\n".join(
        [
            "```python",
            "import torch",
            "from transformers import AutoModel",
            "",
            f'model = AutoModel.from_pretrained("PATH").eval()  # {model_class}',
            "waveform = torch.randn(16000)  # one second at 16 kHz, as float",
            "with torch.no_grad():",
            f"    output = model({scaled}[None], output_hidden_states=True)",
            "output.hidden_states  # input of the first layer, then the output of each layer",
            "```",
        ]
    )


def _origin(metadata: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    teacher, config = metadata.get("teacher"), _mapping(metadata.get("config"))
    data = _mapping(config.get("data"))
    yield "Teacher", _teacher(teacher)
    yield "Recipe", str(metadata.get("recipe") or _UNKNOWN)
    step, hours = metadata.get("step"), metadata.get("audio_hours")
    if isinstance(step, int):
        audio = f", {hours:.1f} hours of audio" if isinstance(hours, (int, float)) else ""
        yield "Training", f"{step:,} steps{audio}"
    yield "Training speech", _names(data.get("speech"))
    if "corruption" in metadata:
        yield "Corruption of the training speech", _corruption(metadata["corruption"])
        for kind, key in (("Noise", "noise"), ("Room impulse responses", "rir"), ("Babble", "babble")):
            if data.get(key):
                yield kind, _names(data[key])
    yield "Licence", str(metadata.get("license") or f"{_UNKNOWN}; mind those of the teacher and the data")
    versions = _mapping(metadata.get("versions"))
    if versions:
        yield "Versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    origin = _mapping(metadata.get("converted_from"))
    if origin:
        digest = f", SHA-256 {origin['sha256']}" if "sha256" in origin else ""
        yield "Converted from", f"{origin.get('name')} ({origin.get('format')}{digest})"


def _architecture(checkpoint: Checkpoint) -> Iterable[tuple[str, ...]]:
    config = checkpoint.config
    yield "Conv extractor", f"{len(config.conv_layers)} layers, {config.conv_norm} norm"
    yield "Layer norm before the projection", "yes" if config.feature_norm else "no, as in DistilHuBERT"
    yield "Attention heads", str(config.heads[0])
    yield "Feed-forward width", str(config.ffn_dims[0])
    yield "Relative position bias", "yes" if config.relative_position else "no"
    yield "Expects a normalised waveform", "yes" if config.normalize_waveform else "no"


def _teacher(teacher: Any) -> str:
    if not isinstance(teacher, Mapping):
        return str(teacher or _UNKNOWN)
    digest = f", SHA-256 {teacher['sha256']}" if teacher.get("sha256") else ""
    return f"{teacher.get('file', 'unnamed')} ({teacher.get('format', 'unknown format')}{digest})"


def _corruption(policy: Any) -> str:
    if not policy:
        return "none"
    if not isinstance(policy, Mapping):
        return str(policy)
    return ", ".join(f"{key} {_brief(value)}" for key, value in policy.items() if value is not None)


def _names(value: Any) -> str:
    """Names of folders and files without the place where they lay."""
    values = value if isinstance(value, (list, tuple)) else [value]
    names = [str(item).replace("\\", "/").rstrip("/").rpartition("/")[2] for item in values if item]
    return ", ".join(names) or _UNKNOWN


def _brief(value: Any) -> str:
    return " to ".join(map(str, value)) if isinstance(value, (list, tuple)) and len(value) == 2 else str(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _bullets(entries: Iterable[tuple[str, ...]]) -> str:
    """One line per entry, whatever line breaks its text has."""
    return "\n".join("- " + " ".join(": ".join(entry).split()) for entry in entries)


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""
