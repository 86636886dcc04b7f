"""The README of a Hugging Face folder, from what a checkpoint's metadata says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from robustdistiller.upstream.checkpoints.formats.base import Checkpoint
from robustdistiller.upstream.model.config import EncoderConfig

_UNKNOWN = "not recorded in the checkpoint"


def model_card(checkpoint: Checkpoint, name: str, usage: str, notes: Iterable[str] = (), results: str = "") -> str:
    """Markdown with YAML front matter. What the metadata does not say is called unrecorded, not guessed.

    Args:
        checkpoint: encoder and metadata, as :func:`robustdistiller.pretrain.distill` writes it.
        name: title of the card.
        usage: Markdown for the section that says how it is used.
        notes: what differs from the original checkpoint.
        results: Markdown for the section of results.

    >>> from robustdistiller.upstream import EncoderConfig, SpeechEncoder
    >>> config = EncoderConfig.tiny(num_layers=1)
    >>> weights = SpeechEncoder(config).state_dict()
    >>> card = model_card(Checkpoint("robustdistiller", config, weights, {"license": "mit"}), "tiny", "See ...")
    >>> card.splitlines()[1:3]
    ['license: mit', 'library_name: transformers']
    """
    metadata = checkpoint.metadata
    sections = [
        f"# {name}",
        _summary(checkpoint),
        _section("Use", usage),
        _section("Origin", _bullets(_origin(metadata))),
        _section("Differences from the original checkpoint", _bullets((note,) for note in notes)),
        _section("Results", results.strip() or "No results were given when this card was written."),
        _section("Architecture", _bullets(_architecture(checkpoint))),
    ]
    return "\n\n".join([_front_matter(metadata), *filter(None, sections)]) + "\n"


def describe(config: EncoderConfig) -> str:
    """The traits of an encoder, in a few words.

    >>> describe(EncoderConfig(num_layers=2, feature_norm=False, prediction_layers=(4, 8, 12)))
    '7 conv layers (group norm), 2 post-norm layers 768 wide, 3 prediction heads'
    """
    heads, ffn = set(config.heads), set(config.ffn_dims)
    on_bands = "" if config.front_end == "conv" else f" on {config.num_mel_bands} log-mel bands"
    traits = [
        f"{len(config.conv_layers)} conv layers{on_bands} ({config.conv_norm} norm)",
        f"{config.num_layers} {'pre' if config.norm_first else 'post'}-norm layers {config.embed_dim} wide",
    ]
    if config.squeeze > 1:
        traits.append(f"{config.squeeze} frames as one inside")
    if config.position_depth > 1:
        traits.append(f"position from {config.position_depth} convolutions")
    if config.position_batch_norm:
        traits.append("batch norm before the position convolution")
    if config.relative_position:
        traits.append(f"{'gated ' if config.gated_relative_position else ''}relative position bias")
    if len(heads) > 1 or len(ffn) > 1 or 0 in heads | ffn:
        traits.append("pruned (sizes differ by layer)")
    if config.attention_reuse:
        traits.append(f"attention reused in {len(config.attention_reuse)} layers")
    if config.prediction_layers:
        traits.append(f"{len(config.prediction_layers)} prediction heads")
    return ", ".join(traits)


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


def _origin(metadata: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    teacher, config = metadata.get("teacher"), _mapping(metadata.get("config"))
    data = _mapping(config.get("data"))
    yield "Teacher", _teacher(teacher)
    yield "Recipe", str(metadata.get("recipe") or _UNKNOWN)
    step, hours = metadata.get("step"), metadata.get("audio_hours")
    if steps := _mapping(metadata.get("steps")):  # of all stages, which what was written before 2026-12 does not have
        step = sum(steps.values())
    if isinstance(step, int):
        audio = f", {hours:.1f} hours of audio" if isinstance(hours, (int, float)) else ""
        yield "Training", f"{step:,} steps{audio}"
    yield "Training speech", _names(data.get("speech"))
    if "corruption" in metadata:
        yield "Corruption of the training speech", _corruption(metadata["corruption"])
        for kind, key in (("Noise", "noise"), ("Room impulse responses", "rir"), ("Babble", "babble")):
            if data.get(key):
                yield kind, _names(data[key])
    licence = metadata.get("license") or metadata.get("licence")  # the latter in words, not one of the Hub's names
    yield "Licence", str(licence or f"{_UNKNOWN}; mind those of the teacher and the data")
    versions = _mapping(metadata.get("versions"))
    if versions:
        yield "Versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    if merged := _mapping(metadata.get("merged")):
        sources = merged.get("sources")
        files = " and ".join(map(_file, sources if isinstance(sources, list) else []))
        yield "Weighted mean of", f"{files}, with {merged.get('weight')} as the weight of the latter"
    if origin := _mapping(metadata.get("converted_from")):
        yield "Converted from", _file(origin)


def _architecture(checkpoint: Checkpoint) -> Iterable[tuple[str, ...]]:
    config = checkpoint.config
    yield "In short", describe(config)
    yield "Layer norm before the projection", "yes" if config.feature_norm else "no, as in DistilHuBERT"
    yield "Attention heads", _per_layer(config.heads)
    yield "Feed-forward width", _per_layer(config.ffn_dims)
    yield "Relative position bias", "yes" if config.relative_position else "no"
    yield "Waveforms are normalised first", "yes" if config.normalize_waveform else "no"


def _per_layer(values: tuple[int, ...]) -> str:
    """One number where all layers have the same."""
    return ", ".join(map(str, values if len(set(values)) > 1 else values[:1])) or "none"


def _file(source: Any) -> str:
    """Name, format and digest of a checkpoint."""
    source = _mapping(source)
    digest = f", SHA-256 {source['sha256']}" if "sha256" in source else ""
    return f"{source.get('name')} ({source.get('format')}{digest})"


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
