"""Shared by the tests of `prepare`: toy corpora in the layouts s3prl reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from robustdistiller.eval import tasks
from robustdistiller.eval.data import Plan, look

#: Inputs of `prepare` in the toy corpora, relative to their root.
INPUTS = {
    "KS": {"speech_commands_root": ["train"], "speech_commands_test_root": ["test"]},
    "IC": {"file_path": ["."]},
    "SID": {"file_path": ["."], "meta_data": ["split.txt"]},
    "ER": {"root": ["."]},
    "ASR": {"libri_root": ["LibriSpeech"]},
    "PR": {"path": ["LibriSpeech"], "lexicon": ["lexicon-1.txt", "lexicon-2.txt"]},
    "SF": {"path": ["."]},
    "ASV": {"file_path": ["."], "test_meta_data": ["test_trials.txt"]},
    "SD": {"librimix": ["."]},
    "QbE": {"dataset_root": ["."]},
    "SE": {"voicebank": ["."]},
    "SE2": {"voicebank": ["."]},
    "SS": {"librimix": ["."]},
    "SS2": {"librimix": ["."]},
}


@pytest.fixture
def look_at(tmp_path) -> Callable[..., Plan]:
    """Look at a task's data; what is made goes to ``tmp_path / "out"``."""

    def call(code: str, folder: Path | None = None, **roots: Path | list[Path]) -> Plan:
        given = {name: path if isinstance(path, list) else [path] for name, path in roots.items()}
        if folder is not None:
            given = {name: [folder / one for one in names] for name, names in INPUTS[code].items()} | given
        return look(tasks.get(code), given, tmp_path / "out")

    return call
