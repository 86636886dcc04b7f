"""A student in a folder that transformers loads by itself: python examples/transformers_student.py STUDENT FOLDER

For students of DistilHuBERT's shape, in transformers' own class. `robustdistiller publish` takes students of any shape.
"""

import sys
from pathlib import Path

import torch

from robustdistiller.upstream import export_checkpoint


def features(student: str | Path, folder: str | Path, waveforms: torch.Tensor) -> torch.Tensor:
    """Last hidden state ``(batch, frames, width)`` of ``waveforms`` ``(batch, samples)`` at 16 kHz."""
    export_checkpoint(student, folder, to="huggingface")
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(waveforms).last_hidden_state


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(features(*sys.argv[1:], torch.randn(1, 16000)).shape)
