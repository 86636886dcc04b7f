"""How Whisper's files are recognised, before anything is read from them, and what is said where they do not belong."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustdistiller.upstream.pretrained.names import CTRANSLATE2_FILE, expanded

#: How a file of CTranslate2 begins: the version of the container, and the kind of model, of which this is Whisper's.
CTRANSLATE2_START = struct.Struct("<IH12s")
CTRANSLATE2_KIND = b"WhisperSpec\0"
NO_STUDENT = (
    "a Whisper encoder, which can be a teacher (teacher.checkpoint) and an upstream, but no student, and is neither "
    "converted nor exported; expected a model of the wav2vec 2.0 family"
)


def layout_of(content: Mapping[str, Any]) -> str | None:
    """The layout of an opened file or Hugging Face folder, if it holds Whisper: ``huggingface`` or ``openai``.

    >>> layout_of({"dims": {"n_mels": 80}, "model_state_dict": {}})
    'openai'
    """
    config = content.get("hf_config")
    if isinstance(config, Mapping):
        return "huggingface" if config.get("model_type") == "whisper" else None
    return "openai" if {"dims", "model_state_dict"} <= content.keys() else None


def ctranslate2_file(path: str | Path) -> Path | None:
    """The file itself, or ``model.bin`` in the folder, if it begins as Whisper does in CTranslate2's format.

    >>> ctranslate2_file("nowhere")
    """
    path = expanded(path)
    file = path / CTRANSLATE2_FILE if path.is_dir() else path
    if not file.is_file():
        return None
    with file.open("rb") as opened:
        start = opened.read(CTRANSLATE2_START.size)
    if len(start) < CTRANSLATE2_START.size:
        return None
    _, length, kind = CTRANSLATE2_START.unpack(start)
    return file if length == len(CTRANSLATE2_KIND) and kind == CTRANSLATE2_KIND else None
