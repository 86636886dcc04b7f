"""Names that do not exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustdistiller.common.names import did_you_mean, nearest, refuse_unknown


def test_several_near_names_in_any_case() -> None:
    known = ["WavLM Base", "WavLM Base+", "fbank"]
    assert nearest("wavlm base", known, most=3) == ["WavLM Base", "WavLM Base+"]
    assert did_you_mean("wavlm base", known, most=3) == "; did you mean 'WavLM Base' or 'WavLM Base+'?"
    assert did_you_mean("wavlm", ["DPWavLM", "ARMwavLM-S", "WavLM Large", *known], most=3) == (
        "; did you mean 'WavLM Base', 'WavLM Large' or 'WavLM Base+'?"
    )
    assert did_you_mean("wavlm", [f"entry {number}" for number in range(99)]) == "", "no list that nobody reads"


def test_unknown_names_are_refused() -> None:
    refuse_unknown(["a"], ["a", "b"], "key")
    with pytest.raises(ValueError, match="unknown key 'c'; known: none"):
        refuse_unknown(["c"], [], "key")


def test_there_is_one_definition_of_nearest() -> None:
    root = Path(__file__).parents[2]
    rooms = ("common", "acoustics", "upstream", "pretrain", "eval", "mini", "cli", "research")
    users = [path for room in rooms for path in (root / room).rglob("*.py") if "get_close_matches" in path.read_text()]
    assert users == [root / "common" / "names.py"]
