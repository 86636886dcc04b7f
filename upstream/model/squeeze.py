"""A transformer at a fraction of the frame rate: frames become fewer before its layers, and many again behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistiller.upstream.model.config import EncoderConfig

#: A hidden state, or one that may not be there.
State = TypeVar("State", Tensor, Tensor | None)


class Squeeze(nn.Module):
    """Joins ``factor`` frames to one, and makes as many of one again.

    - ``squeeze_by="pool"``: their mean (SEW, https://arxiv.org/abs/2109.06870); ``"conv"``: a convolution
      (FitHuBERT, https://arxiv.org/abs/2207.00555).
    - ``expand_by="linear"``: the last layer's frames are mapped to ``factor`` frames each, with GELU (SEW). Those of
      the other layers, and with ``"repeat"`` of the last one too, are given ``factor`` times.

    An utterance whose frames do not divide has a last joined frame of fewer. With ``padding="reference"`` it is left
    out, and its frames are zero: so do the published implementations.

    >>> squeeze = Squeeze(EncoderConfig.tiny(squeeze=2, expand_by="repeat"))
    >>> squeeze.pool(torch.arange(3.0).reshape(1, 3, 1), None).flatten().tolist()
    [0.5, 2.0]
    >>> [state] = squeeze.expand([torch.tensor([[[0.5], [2.0]]])], 3, True)
    >>> state.flatten().tolist()
    [0.5, 0.5, 2.0]
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        dim, self.factor = config.embed_dim, config.squeeze
        self.drops_rest = config.padding == "reference"
        self.conv = nn.Conv1d(dim, dim, self.factor, stride=self.factor) if config.squeeze_by == "conv" else None
        self.linear = nn.Linear(dim, self.factor * dim) if config.expand_by == "linear" else None

    def pool(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Means of the valid frames of ``x`` ``(batch, frames, dim)``; ``x`` itself where a convolution joins."""
        if self.conv is not None:
            return x
        if self.drops_rest:
            return self._cut(self._means(x), x.shape[1])
        inside = x.new_ones(1, x.shape[1]) if valid is None else valid.to(x.dtype)
        share = self._means(inside.unsqueeze(-1))
        return self._means(x) / share.clamp(min=1 / self.factor)

    def convolve(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """``x`` ``(batch, frames, dim)`` with its frames joined by the convolution, or as :meth:`pool` made it."""
        if self.conv is None:
            return x
        if valid is not None and not self.drops_rest:
            x = x.masked_fill(~valid.unsqueeze(-1), 0.0)
        return self._cut(self.conv(self._filled(x).transpose(1, 2)).transpose(1, 2), x.shape[1])

    def valid(self, valid: Tensor, frames: int) -> Tensor:
        """``(batch, joined frames)``: which of them hold anything of the utterance, or, in FitHuBERT, nothing else."""
        first = self.factor - 1 if self.drops_rest and self.conv is not None and frames >= self.factor else 0
        return self._cut(valid[:, torch.arange(first, frames, self.factor, device=valid.device)], frames)

    def expand(self, states: Sequence[State], frames: int, has_last: bool) -> list[State]:
        """States ``(batch, joined frames, dim)`` as ``(batch, frames, dim)``.

        Args:
            states: of the layers, in order; None stays None.
            frames: outside.
            has_last: whether the last of ``states`` is that of the last layer.
        """
        given = list(states)
        for number, state in enumerate(states):
            if state is None:
                continue
            # By number: a slice that may be the whole is, to an exporter, another program than one that is not.
            places = torch.arange(frames, device=state.device)
            if self.linear is not None and has_last and number == len(states) - 1:
                state = F.gelu(self.linear(state)).unflatten(-1, (self.factor, -1)).flatten(1, 2)
            else:
                places = places // self.factor
            given[number] = (self._filled(state) if self.drops_rest else state)[:, places]
        return given

    def _means(self, x: Tensor) -> Tensor:
        """Of each ``factor`` frames, with zeros for those that the last ones lack."""
        return F.avg_pool1d(self._filled(x).transpose(1, 2), self.factor).transpose(1, 2)

    def _filled(self, x: Tensor) -> Tensor:
        """``x`` ``(batch, frames, dim)`` with zeros behind it, enough for a whole joined frame."""
        return F.pad(x, (0, 0, 0, self.factor - 1))

    def _cut(self, joined: Tensor, frames: int) -> Tensor:
        """Without the joined frame that has fewer frames, where that is left out."""
        return joined[:, : max(frames // self.factor, 1)] if self.drops_rest else joined
