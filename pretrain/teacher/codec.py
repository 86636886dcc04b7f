"""How a teacher's targets are stored: exactly, in half precision, or in eight bits with a scale per frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustdistiller.common.settings import SettingsError

_VALUE_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
_SCALE_BYTES = 4
_FLOAT = {"fp32": torch.float32, "fp16": torch.float16}


@dataclass(frozen=True)
class TargetCodec:
    """Targets to bytes and back.

    `int8` gives every frame of every target the step of a 127th of its largest magnitude.

    Attributes:
        dtype: `fp32`, `fp16` or `int8`.
        targets: how many.
        width: values per frame of each.

    >>> codec = TargetCodec("int8", targets=1, width=3)
    >>> codec.decode(codec.encode([torch.tensor([[1.0, -0.5, 0.003]])]))[0]
    tensor([[ 1.0000, -0.5039,  0.0000]])
    >>> codec.frame_bytes, TargetCodec("fp16", 3, 768).frame_bytes
    (7, 4608)
    """

    dtype: str
    targets: int
    width: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one frame of one target."""
        return self.width * _VALUE_BYTES[self.dtype] + (_SCALE_BYTES if self.dtype == "int8" else 0)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame of all targets."""
        return self.targets * self.row_bytes

    def encode(self, targets: Sequence[Tensor]) -> Tensor:
        """Per target (..., D) to (..., targets, row_bytes) uint8, on their device."""
        values = torch.stack([one.detach().float() for one in targets], dim=-2)
        if self.dtype != "int8":
            return values.to(_FLOAT[self.dtype]).contiguous().view(torch.uint8)
        scale = values.abs().amax(-1, keepdim=True) / 127
        whole = torch.round(values / scale.clamp(min=torch.finfo(torch.float32).tiny)).to(torch.int8)
        return torch.cat([whole.view(torch.uint8), scale.contiguous().view(torch.uint8)], dim=-1)

    def decode(self, stored: Tensor) -> list[Tensor]:
        """Inverse of `encode`: per target (..., D) float32."""
        if self.dtype != "int8":
            values = stored.contiguous().view(_FLOAT[self.dtype]).float()
        else:
            whole, scale = stored.split([self.width, _SCALE_BYTES], dim=-1)
            scale = scale.clone(memory_format=torch.contiguous_format).view(torch.float32)  # aligned
            values = whole.contiguous().view(torch.int8).float() * scale
        return list(values.unbind(-2))

    def require_range(self, targets: Sequence[Tensor]) -> None:
        """Make sure that the type reaches far enough for finite values.

        Raises:
            SettingsError: half precision does not.

        >>> TargetCodec("fp16", 1, 1).require_range([torch.tensor([1e6])])
        Traceback (most recent call last):
        robustdistiller.common.settings.SettingsError: targets.cache.dtype=fp16 holds values up to 65504, and the \
teacher's go to 1e+06; give int8 or fp32
        """
        if self.dtype == "fp16":
            largest = max(float(one.detach().abs().max()) for one in targets)
            if largest > torch.finfo(torch.float16).max:
                raise SettingsError(
                    f"targets.cache.dtype=fp16 holds values up to 65504, and the teacher's go to {largest:.3g}; give "
                    "int8 or fp32"
                )
