"""Files that are either complete or not there."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from robustdistiller.common.files import write_bytes


def save_arrays(path: Path, notes: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays and JSON-able notes as one compressed file, at once.

    >>> save_arrays(Path("a.npz"), {"seed": 3}, {"correct": np.array([True])})
    >>> load_arrays(Path("a.npz"))
    ({'seed': 3}, {'correct': array([ True])})
    """
    content = io.BytesIO()
    np.savez_compressed(content, notes=np.frombuffer(json.dumps(notes).encode(), dtype=np.uint8), **arrays)
    write_bytes(path, content.getvalue())


def load_arrays(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads what `save_arrays` wrote: the notes and the arrays."""
    with np.load(path, allow_pickle=False) as content:
        arrays = {name: content[name] for name in content.files}
    return json.loads(arrays.pop("notes").tobytes()), arrays
