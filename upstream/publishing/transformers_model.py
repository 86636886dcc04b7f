"""A speech encoder as a model of transformers: what ``AutoModel`` builds from a folder that was published.

Such a folder holds this module, and the modules of the encoder, as one file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from robustdistiller.upstream.model.config import EncoderConfig
from robustdistiller.upstream.model.encoder import SpeechEncoder


class RobustDistillerConfig(PretrainedConfig):
    """The configuration of an encoder among what transformers keeps of a model.

    Args:
        encoder_options: options of :class:`EncoderConfig`; absent ones take their defaults.
        options: what every configuration of transformers has.

    Raises:
        ValueError: an option is unknown or out of range.
    """

    model_type = "robustdistiller"

    def __init__(self, encoder_options: dict[str, Any] | None = None, **options: Any):
        self.encoder_options = EncoderConfig.from_dict(encoder_options or {}).to_dict()
        super().__init__(**options)

    @property
    def hidden_size(self) -> int:
        """Width of a hidden state."""
        return self.encoder_options["embed_dim"]

    @property
    def num_hidden_layers(self) -> int:
        """Transformer layers."""
        return self.encoder_options["num_layers"]


@dataclass
class RobustDistillerOutput(ModelOutput):
    """What :class:`RobustDistillerModel` returns.

    Attributes:
        last_hidden_state: ``(batch, frames, hidden_size)``, output of the last layer.
        hidden_states: input of the first layer and output of each layer, in the same shape; None unless asked for.
        predictions: of the hidden states of a teacher, one for each entry of ``prediction_layers`` in the
            configuration; None without prediction heads.
        frame_lengths: ``(batch,)``, valid frames of each utterance; those behind them are padding.
    """

    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    predictions: tuple[Tensor, ...] | None = None
    frame_lengths: Tensor | None = None


class RobustDistillerModel(PreTrainedModel):
    """Waveforms to hidden states. An utterance has the same features in any batch."""

    config_class = RobustDistillerConfig
    base_model_prefix = "robustdistiller"
    main_input_name = "input_values"
    _supports_sdpa = True

    def __init__(self, config: RobustDistillerConfig):
        super().__init__(config)
        self.encoder = SpeechEncoder(EncoderConfig.from_dict(config.encoder_options))
        self.post_init()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> RobustDistillerOutput | tuple:
        """Encode a batch.

        Args:
            input_values: ``(batch, samples)``, 16 kHz, in [-1, 1]. What of normalisation the model needs it does.
            attention_mask: ``(batch, samples)``, 1 for the samples of an utterance, 0 for the padding behind them;
                None: there is no padding.
            output_hidden_states: give the states of all layers.
            return_dict: False gives a tuple.

        Raises:
            ValueError: an utterance is too short for one frame, there is padding before or inside an utterance, or the
                mask has another shape than the samples.
        """
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        if attention_mask is not None and attention_mask.shape != input_values.shape:
            found, expected = tuple(attention_mask.shape), tuple(input_values.shape)
            raise ValueError(f"attention_mask has shape {found}; expected {expected}, one value per sample")
        lengths = None if attention_mask is None else _lengths(attention_mask)
        output = self.encoder(input_values, lengths, None if wanted else {self.encoder.num_layers})
        result = RobustDistillerOutput(
            last_hidden_state=output.hidden_states[-1],
            hidden_states=tuple(output.hidden_states) if wanted else None,
            predictions=tuple(output.predictions) or None,
            frame_lengths=output.frame_lengths,
        )
        as_tuple = return_dict is False or (return_dict is None and not self.config.return_dict)
        return result.to_tuple() if as_tuple else result

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """What the file of weights lacks: transformers builds a model without values, constants of ours included."""
        buffers = dict(module.named_buffers(recurse=False))
        reset: Any = getattr(module, "reset_buffers", None)
        if not buffers or reset is None:
            return super()._init_weights(module)
        with next(iter(buffers.values())).device:
            reset()
        for name in buffers:
            value = getattr(module, name)
            setattr(module, name, value.to(self.dtype) if value.is_floating_point() else value)


def _lengths(attention_mask: Tensor) -> Tensor:
    """``(batch,)`` int64, samples before the padding."""
    lengths = attention_mask.long().sum(dim=1)
    inside = torch.arange(attention_mask.shape[1], device=lengths.device) < lengths.unsqueeze(1)
    if not torch.compiler.is_compiling() and not torch.equal(attention_mask.bool(), inside):
        raise ValueError("attention_mask has zeros before ones; expected padding behind utterances only")
    return lengths
