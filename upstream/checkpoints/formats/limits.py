"""What the models of other software cannot be, in one table."""

from __future__ import annotations

from collections.abc import Callable

from robustdistiller.upstream.checkpoints.formats.base import listed
from robustdistiller.upstream.model.config import EncoderConfig

_ALL, _REGULAR = "s3prl transformers torchaudio DPHuBERT", "s3prl transformers torchaudio"
#: Software or models, as :func:`obstacle` is given them; which encoders they cannot be; and what is said of these.
_LIMITS: list[tuple[str, Callable[[EncoderConfig], bool], str]] = [
    (_ALL, lambda c: c.num_layers == 0, "it has no transformer layer"),
    (_ALL, lambda c: c.front_end != "conv", "its front end takes log-mel spectra, not the waveform"),
    (_ALL, lambda c: c.squeeze > 1, "its transformer joins {c.squeeze} frames to one"),
    (_REGULAR, lambda c: any(number * c.width_per_head != c.embed_dim for number in c.heads),
     "its attention heads are pruned ({heads} of {c.total_heads})"),
    (_REGULAR, lambda c: len(set(c.ffn_dims)) > 1 or 0 in c.ffn_dims,
     "its feed-forward widths differ from layer to layer ({widths})"),
    (_REGULAR, lambda c: c.feature_scale, "it scales the channels of the conv extractor (feature_scale)"),
    (_REGULAR, lambda c: c.relative_position and set(c.bias_columns) != {tuple(range(c.total_heads))},
     "its heads use other columns of the relative position table than their own"),
    (_ALL, lambda c: bool(c.attention_reuse), "its layers {reused} reuse attention weights"),
    ("distiller_local", lambda c: c.feature_norm,
     "it has prediction heads and a layer norm after the conv extractor, and s3prl's Distiller has no such norm "
     "(without its heads it can be written: --drop-heads)"),
    ("distiller_local", lambda c: c.relative_position,
     "it has relative position biases, which s3prl's Distiller lacks"),
    ("distiller_local", lambda c: c.position_depth > 1,
     "its position encoding is a stack of convolutions, unlike s3prl's Distiller"),
    ("distiller_local", lambda c: c.conv_bias, "its conv extractor has biases, which s3prl's Distiller lacks"),
    ("distiller_local", lambda c: c.normalize_waveform, "it normalises the waveform, which s3prl's Distiller does not"),
    ("WavLMModel Data2VecAudioModel torchaudio DPHuBERT", lambda c: not c.feature_norm,
     "it has no layer norm between the conv extractor and the projection, which {model} always has"),
    ("data2vec_local transformers torchaudio DPHuBERT", lambda c: not c.has_projection,
     "it has no projection after the conv extractor, which {model} always has"),
    ("s3prl", lambda c: c.has_projection and c.position_depth == 1 and c.conv_layers[-1][0] == c.embed_dim,
     "it has a projection from the conv extractor's {c.embed_dim} channels to {c.embed_dim} dimensions, and s3prl "
     "has none there"),
    ("torchaudio DPHuBERT", lambda c: c.activation != "gelu",
     "its activation is {c.activation}, and {whose} knows only gelu"),
    ("torchaudio DPHuBERT", lambda c: c.position_depth > 1,
     "its position encoding is a stack of convolutions (data2vec)"),
    ("s3prl WavLMModel torchaudio DPHuBERT", lambda c: c.position_batch_norm,
     "it has a batch norm before its position convolution, which {whose}'s models lack"),
    ("s3prl transformers", lambda c: c.position_depth > 1 and c.relative_position,
     "it has both a stack of position convolutions and relative positions"),
    ("data2vec_local", lambda c: c.position_kernel < 3,
     "s3prl's data2vec has position kernels of 3 or more, not {c.position_kernel}"),
    ("Data2VecAudioModel", lambda c: c.conv_norm != "layer" or c.norm_first,
     "{model} has layer norms in its conv extractor and after the transformer's parts, not conv_norm "
     "{c.conv_norm!r} and norm_first {c.norm_first}"),
    ("transformers torchaudio DPHuBERT", lambda c: c.relative_position and not c.gated_relative_position,
     "its relative position bias has no gates, which {model} always has"),
    ("DPHuBERT", lambda c: c.relative_position and c.embed_dim % c.width_per_head != 0,
     "its width {c.embed_dim} is not a multiple of its heads' width {c.width_per_head}"),
    ("DPHuBERT", lambda c: c.relative_position and c.heads[0] == 0,
     "its first layer has no attention, which is where DPWavLM keeps the relative position table of all layers"),
]  # fmt: skip


def obstacle(config: EncoderConfig, whose: str, model: str) -> str | None:
    """Why an encoder cannot be a model of other software, the first reason of several; ``None`` if it can.

    Args:
        config: the encoder.
        whose: the software.
        model: the model of it that the encoder would be.

    >>> obstacle(EncoderConfig(num_layers=2, num_heads=(12, 8), head_dim=64), "torchaudio", "wav2vec2_model")
    'its attention heads are pruned (12, 8 of 12)'
    >>> obstacle(EncoderConfig(num_layers=2, num_heads=(3, 0), head_dim=64), "DPHuBERT", "wav2vec2_model")
    """
    lists = {"heads": listed(config.heads), "widths": listed(config.ffn_dims), "reused": listed(config.attention_reuse)}
    for who, is_so, said in _LIMITS:
        if {whose, model} & set(who.split()) and is_so(config):
            return said.format(c=config, whose=whose, model=model, **lists)
    return None
