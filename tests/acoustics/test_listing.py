"""Names of recordings."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from robustdistiller.acoustics.audio import listing
from robustdistiller.acoustics.audio.listing import name_recordings


def test_names_of_recordings(tmp_path):
    for name in ("one/x/a.wav", "two/x/a.wav", "two/x/b.wav", "two/x/b.ogg", "two/.hidden/c.wav", "v1.2.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(name_recordings([tmp_path / "two"])) == ["x/a", "x/b.ogg", "x/b.wav"]
    found = name_recordings([tmp_path / "one", tmp_path / "two", tmp_path / "v1.2.wav"])
    assert list(found) == ["one/x/a", "two/x/a", "two/x/b.ogg", "two/x/b.wav", "v1.2"]
    (tmp_path / "other" / "one" / "x").mkdir(parents=True)
    (tmp_path / "other" / "one" / "x" / "a.wav").touch()
    with pytest.raises(ValueError, match=r"would both be called one/x/a.wav; take one folder at a time"):
        name_recordings([tmp_path / "one", tmp_path / "other" / "one"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no audio files in .*empty; searched to any depth for .aif"):
        name_recordings([tmp_path / "empty"])
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        name_recordings(["nowhere"])


def test_one_recording_in_two_formats_costs_no_time(tmp_path, monkeypatch):
    """Each name is compared with a few others, not with all: paths are compared some times each."""
    names = ["a.flac", *(f"{number}.wav" for number in range(2000)), "a.wav"]
    monkeypatch.setattr(listing, "walk_audio", lambda *_: names)
    compared, equal = [], PurePath.__eq__
    monkeypatch.setattr(PurePath, "__eq__", lambda self, other: bool(compared.append(1)) or equal(self, other))
    found = name_recordings([tmp_path])
    assert len(found) == 2002 and found["a.wav"] == Path(tmp_path, "a.wav")
    assert len(compared) < 10 * len(names)
