"""Gates that learn to be exactly 0 or 1: the hard concrete distribution of Louizos et al., arXiv 1712.01312."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: A gate that stays open never falls below this, so that "open" and "above 0" are the same.
_SMALLEST = 1e-6
#: Approximates the mean of an open gate: Wang et al., arXiv 1910.04732, in their code; DPHuBERT's too.
_MEAN_SLOPE = 0.8


class HardConcrete(nn.Module):
    """A vector of gates from 0 to 1, each with a parameter log alpha.

    Sampled, a gate is `clip(s * (1 + 2 * stretch) - stretch, 0, 1)` with `s = sigmoid((logit(u) + log alpha) /
    temperature)` and uniform `u` (eq. 10-11 there). It is above 0 with probability `sigmoid(log alpha - temperature *
    log(stretch / (1 + stretch)))` (eq. 12). Each log alpha starts around `log((1 - drop_rate) / drop_rate)`. With
    `at_least_one` the last gate is never closed: where all would be, that with the greatest log alpha stays open.

    >>> gates = HardConcrete(1000, drop_rate=0.01)
    >>> 0.98 < gates.sample().mean().item() <= 1, round(gates.expected().item())
    (True, 998)
    """

    def __init__(
        self,
        size: int,
        drop_rate: float = 0.5,
        std: float = 0.01,
        temperature: float = 2 / 3,
        stretch: float = 0.1,
        at_least_one: bool = False,
    ):
        super().__init__()
        self.temperature, self.stretch, self.at_least_one = temperature, stretch, at_least_one
        mean = math.log((1 - drop_rate) / drop_rate)
        self.log_alpha = nn.Parameter(torch.empty(size).normal_(mean, std) if std else torch.full((size,), mean))

    def __len__(self) -> int:
        return len(self.log_alpha)

    def logits(self) -> Tensor:
        """Logit of the probability that each gate is open: `(size,)`."""
        return self.log_alpha - self.temperature * math.log(self.stretch / (1 + self.stretch))

    def expected(self) -> Tensor:
        """Expected number of open gates, differentiable."""
        return self._expected(self.logits())

    def any_open(self) -> Tensor:
        """Probability that one gate or more is open, differentiable."""
        if self.at_least_one:
            return torch.ones((), device=self.log_alpha.device)
        return 1 - F.logsigmoid(-self.logits()).sum().exp()

    def sample(self) -> Tensor:
        """Gates `(size,)` drawn with PyTorch's global generator of their device, differentiable in log alpha."""
        uniform = torch.rand_like(self.log_alpha).clamp(_SMALLEST, 1 - _SMALLEST)
        smooth = ((uniform.logit() + self.log_alpha) / self.temperature).sigmoid()
        gates = (smooth * (1 + 2 * self.stretch) - self.stretch).clamp(0, 1)
        if self.at_least_one:
            best = F.one_hot(self.log_alpha.argmax(), len(self)).bool()
            gates = torch.where(best & ~(gates > 0).any(), smooth.clamp(min=_SMALLEST), gates)
        return gates

    @torch.no_grad()
    def resolve(self) -> Tensor:
        """Gates `(size,)` without chance, for use and for removing what is closed.

        As many are open as are expected to be (rounded), those with the greatest log alpha (the first of equal ones),
        each at its :meth:`value`, as in DPHuBERT's code. Counted on the CPU, so that every device gives the same.
        """
        logits = self.logits().cpu().double()
        number = max(round(self._expected(logits).item()), int(self.at_least_one))
        best = logits.argsort(descending=True, stable=True)[:number].to(self.log_alpha.device)
        return torch.zeros_like(self.log_alpha).index_copy_(0, best, self.value()[best])

    @torch.no_grad()
    def value(self) -> Tensor:
        """What each gate is if it is open, without chance: `sigmoid(0.8 * log alpha / temperature)`, above 0."""
        exact = (_MEAN_SLOPE * self.log_alpha.cpu().double() / self.temperature).sigmoid().clamp(min=_SMALLEST)
        return exact.to(self.log_alpha)

    def _expected(self, logits: Tensor) -> Tensor:
        number = logits.sigmoid().sum()
        return number + F.logsigmoid(-logits).sum().exp() if self.at_least_one else number
