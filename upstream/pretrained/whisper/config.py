"""The shape of a Whisper encoder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from robustdistiller.common.names import refuse_unknown
from robustdistiller.upstream.model.config import MEL_HOP_SAMPLES, MEL_WINDOW_SAMPLES, EncoderConfig

SAMPLES_PER_FRAME = 2 * MEL_HOP_SAMPLES
_MOST = {"num_mel_bins": 1000, "num_layers": 1000, "num_heads": 1000, "max_frames": 100_000}
_MOST |= {"embed_dim": 100_000, "ffn_dim": 1_000_000}


@dataclass(frozen=True)
class WhisperConfig:
    """The shape of a Whisper encoder. The defaults are those of ``whisper-base``.

    Args:
        num_mel_bins: bins of the log-mel spectrogram, 80 or 128.
        embed_dim: width of the transformer.
        num_layers: number of its layers.
        num_heads: attention heads of a layer.
        ffn_dim: feed-forward width.
        max_frames: positions, one per 20 ms: 1500 are 30 s.
        activation: in the feed-forward parts, see :class:`EncoderConfig`; the convolutions have GELU.
        pad_to_30_s: hear every utterance with silence up to what the positions reach, as in Whisper's training. All
            of it is computed: with ``whisper-base`` 5 s then take 8 times the operations, 1 s 43 times. Without it
            positions are cut to the length, and features differ: on speech of 5 s those of the first layer have a
            cosine similarity of 0.995 with padded ones, those of the last 0.87.

    Raises:
        ValueError: a value is out of range, or width and heads do not fit.

    >>> WhisperConfig(num_layers=4, embed_dim=384, num_heads=6, ffn_dim=1536).receptive_field
    400
    >>> WhisperConfig(embed_dim=50)
    Traceback (most recent call last):
    ValueError: Whisper's configuration: embed_dim 50 is not divisible by num_heads 8
    """

    num_mel_bins: int = 80
    embed_dim: int = 512
    num_layers: int = 6
    num_heads: int = 8
    ffn_dim: int = 2048
    max_frames: int = 1500
    activation: str = "gelu"
    pad_to_30_s: bool = False

    def __post_init__(self):
        for name, most in _MOST.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise ValueError(f"Whisper's configuration: {name} is {str(value)[:200]}; expected 1 to {most}")
        if self.embed_dim % 2:
            raise ValueError(f"Whisper's configuration: embed_dim is {self.embed_dim}; expected an even number")
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"Whisper's configuration: embed_dim {self.embed_dim} is not divisible by num_heads {self.num_heads}"
            )
        if not isinstance(self.pad_to_30_s, bool):
            raise ValueError(f"Whisper's configuration: pad_to_30_s is {self.pad_to_30_s!r}; expected true or false")
        _ = self.layers  # looks at the activation

    @property
    def downsample_rate(self) -> int:
        """Samples per frame."""
        return SAMPLES_PER_FRAME

    @property
    def receptive_field(self) -> int:
        """Samples needed for one frame: a window of the spectrogram. Frames see 1040 samples where there are more."""
        return MEL_WINDOW_SAMPLES

    @property
    def max_samples(self) -> int:
        """Samples that the positions reach, 480,000 in every published model."""
        return self.max_frames * SAMPLES_PER_FRAME

    @property
    def layers(self) -> EncoderConfig:
        """The transformer layers as this package's encoder has them."""
        return EncoderConfig(
            **{name: getattr(self, name) for name in ("embed_dim", "num_layers", "num_heads", "ffn_dim", "activation")},
            norm_first=True,
            position_groups=1,
            dropout=0.0,
            attention_dropout=0.0,
        )

    def replace(self, **changes: Any) -> WhisperConfig:
        """A copy with some options changed; unknown names are refused.

        >>> WhisperConfig().replace(pad_to_30_s=True).pad_to_30_s
        True
        """
        refuse_unknown(changes, [field.name for field in dataclasses.fields(self)], "option of Whisper's encoder")
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return dataclasses.asdict(self)
