"""Which hidden states of an upstream to keep: one, all, or the sum that a trained head learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robustdistiller.upstream import UpstreamExpert
from robustdistiller.upstream.checkpoints.plain import plain
from robustdistiller.upstream.checkpoints.safe_load import safe_load
from robustdistiller.upstream.s3prl.whisper_expert import WhisperExpert


@dataclass(frozen=True)
class LayerChoice:
    """What to keep of an upstream's hidden states.

    Attributes:
        names: names of what is kept, such as ``layer_4`` or ``weighted``.
        needed: names of the hidden states it is made from.
        weights: weight of each of these in the sum; ``None`` keeps each by itself.
        normalize: layer-norm each hidden state before the sum, as s3prl's ``--upstream_feature_normalize``.

    >>> choice = LayerChoice(("weighted",), ("projected", "layer_1"), (0.25, 0.75))
    >>> choice.pick({"projected": torch.zeros(1, 2), "layer_1": torch.ones(1, 2), "layer_2": torch.ones(1, 2)})
    {'weighted': tensor([[0.7500, 0.7500]])}
    """

    names: tuple[str, ...]
    needed: tuple[str, ...]
    weights: tuple[float, ...] | None = None
    normalize: bool = False

    def pick(self, states: dict[str, Tensor]) -> dict[str, Tensor]:
        """From hidden states by name, each ``(..., dim)``, what is to be kept."""
        kept = [states[name] for name in self.needed]
        if self.weights is None:
            return dict(zip(self.names, kept))
        if self.normalize:
            kept = [F.layer_norm(state, state.shape[-1:]) for state in kept]
        summed: Any = sum(weight * state for weight, state in zip(self.weights, kept))
        return {self.names[0]: summed}


def choose_layers(layer: str, names: Sequence[str], head: str | Path | None = None) -> LayerChoice:
    """Read ``--layer``.

    Args:
        layer: number or name of a hidden state, ``"all"``, or ``"weighted"``.
        names: names of the upstream's hidden states, in their order.
        head: for ``"weighted"``: checkpoint of a head that s3prl trained.

    Raises:
        ValueError: there is no such hidden state, a head is missing or superfluous, or it does not fit the upstream.
        FileNotFoundError: there is no such head.

    >>> names = ("projected", "layer_1", "layer_2", "prediction_4")
    >>> choose_layers("2", names).names, choose_layers("prediction_4", names).names
    (('layer_2',), ('prediction_4',))
    >>> choose_layers("7", names)
    Traceback (most recent call last):
    ValueError: layer '7': expected 0 to 3, a name (projected, layer_1, layer_2, prediction_4), 'weighted' or 'all'
    """
    names = tuple(names)
    if layer == "weighted":
        if head is None:
            raise ValueError("layer 'weighted' needs the head that learned the weights: give --head FILE")
        return _weighted(names, head)
    if head is not None:
        raise ValueError(f"a head is for layer 'weighted'; layer {layer!r} uses none")
    if layer == "all":
        return LayerChoice(names, names)
    if layer in names:
        return LayerChoice((layer,), (layer,))
    if layer.isdecimal() and int(layer) < len(names):
        return LayerChoice((names[int(layer)],), (names[int(layer)],))
    raise ValueError(
        f"layer {layer!r}: expected 0 to {len(names) - 1}, a name ({', '.join(names)}), 'weighted' or 'all'"
    )


def _weighted(names: tuple[str, ...], head: str | Path) -> LayerChoice:
    path = Path(head).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"head {path}: no such file")
    content, _ = safe_load(path)
    arguments: dict[str, Any] = plain(content.get("Args")) if "Args" in content else {}
    arguments = arguments if isinstance(arguments, dict) else {}
    if arguments.get("upstream_trainable"):
        raise ValueError(f"head {path} was trained with its own fine-tuned upstream, of which this one has no weights")
    featurizer = content.get("Featurizer")
    weights = featurizer.get("weights") if isinstance(featurizer, dict) else None
    if not isinstance(weights, Tensor) or weights.dim() != 1:
        selected = arguments.get("upstream_feature_selection")
        how = f" (it was trained on {selected!r})" if selected else ""
        raise ValueError(f"head {path} holds no layer weights{how}; expected a head that s3prl trained on all layers")
    without_heads = tuple(name for name in names if not name.startswith("prediction_"))
    fitting = next((some for some in (names, without_heads) if len(some) == len(weights)), None)
    if fitting is None:
        raise ValueError(
            f"head {path} weighs {len(weights)} hidden states, but the upstream has {len(names)}: it was trained on "
            "another one"
        )
    if not torch.isfinite(weights).all():
        raise ValueError(f"head {path} has layer weights that are not finite")
    normalize = bool(arguments.get("upstream_feature_normalize"))
    return LayerChoice(("weighted",), fitting, tuple(weights.double().softmax(0).tolist()), normalize)


class LayerReader:
    """Runs an upstream as far as a choice needs it.

    Args:
        upstream: the upstream; put it on its device first.
        choice: what to keep.

    >>> import tempfile
    >>> from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint
    >>> config = EncoderConfig(embed_dim=16, num_layers=2, num_heads=2, ffn_dim=32, position_groups=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/teacher.ckpt", SpeechEncoder(config), {})
    ...     upstream = UpstreamExpert(f"{folder}/teacher.ckpt").eval()
    >>> reader = LayerReader(upstream, choose_layers("1", upstream.names))
    >>> features, = reader([torch.zeros(16000)])
    >>> features["layer_1"].shape
    torch.Size([49, 16])
    """

    def __init__(self, upstream: UpstreamExpert | WhisperExpert, choice: LayerChoice):
        self.encoder, self.names, self.choice = upstream.inference_encoder, upstream.names, choice
        deepest = max(self.names.index(name) for name in choice.needed)
        self.predict = deepest > self.encoder.config.num_layers
        self.layers = None if self.predict else tuple(self.names.index(name) for name in choice.needed)

    @torch.inference_mode()
    def __call__(self, waveforms: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Features of each waveform ``(samples,)``, without padding: name to ``(frames, dim)``, on the CPU.

        A waveform shorter than one frame is padded with zeros to one.
        """
        shortest, device = self.encoder.config.receptive_field, next(self.encoder.parameters()).device
        lengths = torch.tensor([max(len(wave), shortest) for wave in waveforms])
        batch = torch.zeros(len(waveforms), int(lengths.max()))
        for row, wave in zip(batch, waveforms):
            row[: len(wave)] = wave
        output = self.encoder(batch.to(device), lengths, self.layers, self.predict)
        states = dict(zip(self.names, output.upstream_states(self.encoder.config)))
        kept = {name: value.float().cpu() for name, value in self.choice.pick(states).items()}
        return [
            {name: value[row, :frames].clone() for name, value in kept.items()}
            for row, frames in enumerate(output.frame_lengths.tolist())
        ]
