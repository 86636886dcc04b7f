"""Corpora of room impulse responses: rooms told from noises and speech, and kept whole."""

from pathlib import Path

import pytest

from robustdistiller.acoustics import corpus_pieces

from .conftest import TREES, names


def test_openslr28_tells_rooms_from_noises_and_keeps_rooms_together(plant):
    root = plant("openslr28")
    real = "real_rirs_isotropic_noises/RVB2014_type1_"
    rooms = names(root, "rir")
    assert f"{real}rir_largeroom1_far_angla.wav" in rooms and f"{real}noise_largeroom1_1.wav" not in rooms
    assert len(names(root, "rir", only=["simulated"])) == 30
    assert names(root, "noise") == {f"{real}noise_largeroom1_1.wav", "pointsource_noises/noise-free-sound-0000.wav"}
    held_out = {name.split("/")[2] for name in names(root, "rir", split="test", only=["simulated"])}
    others = {name.split("/")[2] for name in names(root, "rir", split="train", only=["simulated"])}
    assert held_out and others and not held_out & others
    (root / "real_rirs_isotropic_noises" / "rir_list").unlink()
    (root / "real_rirs_isotropic_noises" / "noise_list").unlink()
    assert names(root, "rir") == rooms  # by the names of the files


ROOM = "real_rirs_isotropic_noises/RVB2014_type1_rir_largeroom1_far_angla.wav"


@pytest.mark.parametrize("beside", [True, False])
def test_rooms_are_rooms_from_the_root_a_part_and_above(plant, tmp_path, beside):
    """The isotropic noises beside the measured responses are no rooms, wherever one points."""
    root = plant("openslr28", "slr28/RIRS_NOISES")
    if beside:
        plant("musan", "musan")
    part = root / "real_rirs_isotropic_noises"
    assert names(part, "rir") == {Path(ROOM).name}
    everywhere = {path: corpus_pieces(path, "rir") for path in (root, root.parent, tmp_path)}
    for path, found in everywhere.items():
        assert {Path(one.file).resolve() for one in found} == {
            root / name for name in TREES["openslr28"] if name.startswith("simulated") and name.endswith("wav")
        } | {root / ROOM}
        assert {one.name for one in found} == {Path(one.file).relative_to(path).as_posix() for one in found}
    assert names(part, "noise") == {"RVB2014_type1_noise_largeroom1_1.wav"}
    noise = names(tmp_path, "noise")
    assert ("musan/noise/free-sound/noise-free-sound-0000.wav" in noise) == beside
    assert not any("speech" in name or "_rir_" in name or "simulated" in name for name in noise)


def test_but_reverbdb_rooms_are_whole_and_retransmitted_speech_is_neither_room_nor_noise(plant):
    root = plant("but_reverbdb")
    rooms, noise = names(root, "rir"), names(root, "noise")
    assert len(rooms) == len(noise) == 12
    assert all(name.split("/")[-2] == "RIR" for name in rooms) and all("/silence/" in name for name in noise)
    for purpose in ("rir", "noise"):
        held_out = {name.split("/")[0] for name in names(root, purpose, split="test")}
        assert held_out == {"VUT_FIT_L212"}
        others = {name.split("/")[0] for name in names(root, purpose, split="train")}
        assert others == {"VUT_FIT_L207", "Hotel_SkalskyDvur_Room112"}
    assert len(names(root, "rir", only=["VUT_FIT_L207"])) == 4 and names(root, "rir", only=["measured"]) == rooms
    # From one room, one loudspeaker and one microphone.
    one = root / "VUT_FIT_L212"
    assert len(names(one, "rir", split="test")) == 4
    assert len(names(one / "MicID01" / "SpkID02_20170906_S", "rir", split="test")) == 2
    assert len(names(one / "MicID01" / "SpkID02_20170906_S" / "31", "rir", split="test")) == 1
    assert len(names(one, "rir", kind="but_reverbdb", only=["VUT_FIT_L212"])) == 4
    with pytest.raises(ValueError, match=r"\(but_reverbdb\) has nothing that serves as speech"):
        corpus_pieces(root, "speech")


def test_isotropic_noises_that_no_list_has_are_no_rooms(plant):
    root = plant("openslr28")
    (root / "real_rirs_isotropic_noises" / "noise_list").unlink()
    noise = "real_rirs_isotropic_noises/RVB2014_type1_noise_largeroom1_1.wav"
    assert noise in names(root, "noise") and noise not in names(root, "rir")


def test_dns_rooms_and_noise(plant, tmp_path):
    root = plant("dns")
    assert len(names(root, "rir")) == 3
    assert names(root, "rir", only=["SLR26"]) == {"SLR26/simulated_rirs_48k/largeroom/Room001/Room001-00001.wav"}
    with pytest.raises(ValueError, match="holds nothing that serves as noise in the layout of 'dns'"):
        corpus_pieces(root)
    (tmp_path / "noise_fullband").mkdir()
    (tmp_path / "noise_fullband" / "freesound_1.wav").touch()
    assert names(root) == {"noise_fullband/freesound_1.wav"}
