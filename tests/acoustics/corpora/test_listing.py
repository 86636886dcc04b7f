"""Which files a folder holds, in the same order and under the same names on every file system."""

import os

import pytest

from robustdistiller.acoustics.audio.listing import list_pieces, walk_audio


@pytest.mark.parametrize("backwards", [False, True])
def test_names_do_not_depend_on_the_order_of_the_file_system(backwards, tmp_path, monkeypatch):
    """A link and its target below one root: a recording gets one of two names, the same on every machine."""
    for name in ("music/a.wav", "rain/b.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "a-link").symlink_to(tmp_path / "rain")
    (tmp_path / "z-link").symlink_to(tmp_path / "music")
    walk = os.walk

    def walk_in_order(root, **options):
        for folder, subfolders, files in walk(root, **options):
            subfolders.sort(reverse=backwards)
            yield folder, subfolders, files

    monkeypatch.setattr(os, "walk", walk_in_order)
    assert sorted(walk_audio(tmp_path)) == ["a-link/b.wav", "music/a.wav"]
    assert [piece.name for piece in list_pieces(tmp_path)] == ["a-link/b.wav", "music/a.wav"]


def test_a_link_that_points_back_up_is_not_followed_for_ever(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "up").symlink_to(tmp_path)
    (tmp_path / "deep" / "a.wav").touch()
    assert list(walk_audio(tmp_path)) == ["deep/a.wav"]
