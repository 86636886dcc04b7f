"""Corpora in their official layouts: found by themselves, held-out parts kept apart."""

from pathlib import Path

import pytest

from robustdistiller.acoustics import corpus_pieces, detect_layout, split_of
from robustdistiller.acoustics.corpora import PURPOSES

from .conftest import TREES, names


@pytest.mark.parametrize("kind", TREES)
def test_layouts_are_recognised(kind, plant):
    assert detect_layout(plant(kind)) == kind


@pytest.mark.parametrize(
    ("kind", "purpose"), [(k, {"dns": "rir", "librispeech": "speech"}.get(k, "noise")) for k in TREES]
)
def test_parts_are_disjoint_and_make_up_the_whole(kind, purpose, plant):
    root = plant(kind)
    found = {}
    for split in ("train", "dev", "test"):
        try:
            found[split] = names(root, purpose, split=split)
        except ValueError as error:  # the smallest trees have no dev part
            assert "is left with split=" in str(error)
    whole = [name for part in found.values() for name in part]
    assert len(whole) == len(set(whole))
    assert set(whole) == names(root, purpose) and whole
    assert all((root / name).is_file() for name in whole)


def test_musan_gives_what_serves_the_purpose(plant):
    root = plant("musan")
    assert {name.split("/")[0] for name in names(root)} == {"noise"}
    assert names(root, "speech") == {"speech/librivox/speech-librivox-0000.wav"}
    assert names(root, only=["music"]) == names(root, "music") == {"music/fma/music-fma-0000.wav"}
    # The folder of noise alone is divided the same way.
    below = {f"noise/{name}" for name in names(root / "noise", split="test")}
    assert below == names(root, split="test") and 0 < len(below) < 12
    for purpose in ("speech", "music"):  # noise is no babble
        with pytest.raises(ValueError, match=f"holds nothing that serves as {purpose} in the layout of 'musan'"):
            corpus_pieces(root / "noise", purpose)


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Train", "TEST")])
def test_recordings_of_ones_own_sorted_like_musan_keep_their_parts(train, test, tmp_path):
    for name in (*(f"noise/{test}/{n}.wav" for n in range(10)), f"noise/{train}/a.wav", "music/b.wav", "speech/c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert detect_layout(tmp_path) == detect_layout(tmp_path / "noise") == "folder"
    assert names(tmp_path / "noise", split="training") == {f"{train}/a.wav"}
    assert len(names(tmp_path / "noise", split="test")) == 10


def test_urbansound8k_has_folds_and_classes(plant):
    root = plant("urbansound8k")
    assert names(root, split="test") == {"audio/fold10/100795-3-0-0.wav", "audio/fold10/162134-9-1-0.wav"}
    assert names(root, split="test", without=["street_music", "children_playing"]) == {"audio/fold10/100795-3-0-0.wav"}
    assert names(root, only=["gun_shot"]) == {"audio/fold1/7061-6-0-0.wav"}
    with pytest.raises(ValueError, match=r"no label 'dog'.*did you mean 'dog_bark'"):
        corpus_pieces(root, only=["dog"])


def test_official_parts_of_the_others(plant, tmp_path):
    assert names(plant("esc50"), split="test") == {"audio/5-103415-A-2.wav"}
    assert names(tmp_path, only=["rain"]) == {"audio/4-1-A-10.wav"}


def test_fsd50k_evaluation_set_and_labels(plant):
    root = plant("fsd50k")
    assert names(root, split="test", without=["Human_voice"]) == {"FSD50K.eval_audio/37199.wav"}
    assert names(root, split="dev") == {"FSD50K.dev_audio/64.wav"}
    (root / "FSD50K.ground_truth" / "eval.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"eval\.csv is missing; it is part of the corpus"):
        corpus_pieces(root)


def test_demand_and_chime_give_one_channel_of_each_recording(plant, tmp_path):
    assert names(plant("demand")) == {"DKITCHEN/ch01.wav", "TBUS/ch01.wav", "PRESTO/ch01.wav"}
    assert names(tmp_path, split="test") == {"TBUS/ch01.wav"}


def test_chime_environments(plant):
    root = plant("chime")
    assert names(root) == {f"BGD_150203_{n:03d}_{place}.CH1.wav" for n in range(6) for place in ("BUS", "CAF")}
    assert len(names(root, only=["BUS"])) == 6


@pytest.mark.parametrize("given", [".", "data", "data/audio", "data/audio/16kHz", "data/audio/16kHz/backgrounds"])
def test_speech_of_chime_is_no_noise_from_its_root(given, plant, tmp_path):
    inside = plant("chime", "CHiME4/data/audio/16kHz/backgrounds")
    (inside.parent / "isolated" / "dt05_bus_real").mkdir(parents=True)
    (inside.parent / "isolated" / "dt05_bus_real" / "F01_22GC010A_BUS.CH1.wav").touch()
    found = corpus_pieces(tmp_path / "CHiME4" / given)
    assert len(found) == 12 and all(Path(piece.file).name.startswith("BGD_") for piece in found)
    assert detect_layout(tmp_path / "CHiME4" / given) == "chime"


def test_corpora_side_by_side_are_all_found_and_many_speakers_hide_none(plant, tmp_path):
    """RIRS_NOISES and MUSAN in one folder, beside the speech of more speakers than a collection has corpora."""
    plant("openslr28", "RIRS_NOISES")
    plant("musan", "musan")
    plant("wham", "noise/wham_noise")
    for speaker in range(1001):
        (tmp_path / "LibriSpeech" / "train" / str(speaker)).mkdir(parents=True)
    noise = names(tmp_path)
    assert {name.split("/")[0] for name in noise} == {"RIRS_NOISES", "musan", "noise"} and len(noise) == 17
    assert {name.split("/")[0] for name in names(tmp_path, "rir")} == {"RIRS_NOISES"}
    assert detect_layout(tmp_path) == "folder"  # of several kinds
    assert detect_layout(tmp_path / "noise") == "wham"


def test_what_lies_beside_a_corpus_serves_and_is_pointed_out(plant, tmp_path, caplog):
    """Somebody's own rooms may lie beside RIRS_NOISES, but so may voices, which are no rooms."""
    plant("openslr28", "RIRS_NOISES")
    names(tmp_path, "rir")
    assert not caplog.text
    (tmp_path / "voices").mkdir()
    (tmp_path / "voices" / "a.wav").touch()
    assert "voices/a.wav" in names(tmp_path, "rir")
    assert "of 32 recordings that serve as rir, 1 lie beside its corpora (voices/a.wav, ...)" in caplog.text


@pytest.mark.parametrize("link", [False, True])
def test_a_part_is_known_for_what_it_is(link, plant, tmp_path):
    """Which part of a corpus is used by default depends on its kind, from a part of it too, and through a link."""
    part = plant("musan", "musan") / "noise"
    (tmp_path / "mine").mkdir()
    if link:
        (tmp_path / "linked").symlink_to(part)
        part = tmp_path / "linked"
    assert detect_layout(part) == "musan"
    assert names(part, split="test") == {n.removeprefix("noise/") for n in names(tmp_path / "musan", split="test")}
    assert detect_layout(tmp_path / "mine") == "folder"


@pytest.mark.parametrize("kind", [kind for kind in TREES if kind != "folder"])
def test_a_folder_beside_a_corpus_is_no_part_of_it(kind, plant, tmp_path):
    plant(kind)
    for table in (tmp_path / "FSD50K.ground_truth").glob("*.csv"):
        table.unlink()  # its tables are nothing to a folder beside it
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "rain.wav").touch()
    assert names(tmp_path / "mine") == {"rain.wav"} == names(tmp_path / "mine", "speech")


@pytest.mark.parametrize(
    ("kind", "part", "split", "expected"),
    [
        ("urbansound8k", "audio/fold10", "test", {"100795-3-0-0.wav", "162134-9-1-0.wav"}),
        ("urbansound8k", "audio/fold10", "train", set()),
        ("esc50", "audio", "dev", {"4-1-A-10.wav"}),
        ("fsd50k", "FSD50K.dev_audio", "train", {"63.wav"}),
        ("demand", "TBUS", "test", {"ch01.wav"}),
        ("demand", "TBUS", "train", set()),
        ("wham", "tt", "test", {"03cc.wav"}),
        ("wham", "tt", "train", set()),
        ("musan", "music", "all", {"fma/music-fma-0000.wav"}),
        ("wham", "cv", "training", set()),
        ("dns", "SLR28", "all", {"RIRS_NOISES/real_rirs_isotropic_noises/RVB2014_type1_noise_largeroom1_1.wav"}),
    ],
)
def test_a_part_of_a_corpus_stays_what_it_is(kind, part, split, expected, plant):
    path = plant(kind, "somewhere") / part
    if expected:
        assert names(path, split=split) == expected
    else:
        with pytest.raises(ValueError, match="is left with split=train"):
            names(path, split=split)


def test_the_voices_of_librispeech_that_are_tested_with_are_not_trained_with(plant, tmp_path):
    root = plant("librispeech", "LibriSpeech")
    training = {f"train-clean-100/{speaker}/7/{speaker}-7-0000.flac" for speaker in (19, 26)}
    assert names(root, "speech", split="training") == training == names(root, "speech", only=["train-clean-100"])
    assert names(root, "speech", split="dev") == {"dev-clean/84/1/84-1-0000.flac"}
    assert names(root / "test-other", "speech", split="test") == {"367/2/367-2-0000.flac"}
    assert len(names(root, "speech")) == 4
    with pytest.raises(
        ValueError, match=r"\(librispeech\) has nothing that serves as noise, it has speech; kind=folder"
    ):
        corpus_pieces(root)
    plant("musan", "musan")  # speech is no noise, where one points at both, either
    assert {name.split("/")[0] for name in names(tmp_path)} == {"musan"}


def test_the_speech_of_wham_mixtures_is_no_noise(tmp_path):
    for part in ("tr", "cv", "tt"):
        for what in ("mix_both", "s1", "s2", "noise"):
            (tmp_path / part / what).mkdir(parents=True)
            (tmp_path / part / what / "a.wav").touch()
    assert names(tmp_path) == {"tr/noise/a.wav", "cv/noise/a.wav", "tt/noise/a.wav"}
    assert names(tmp_path, split="training") == {"tr/noise/a.wav"}


def test_a_plain_folder_may_have_parts_of_its_own(plant, tmp_path):
    root = plant("folder")
    assert names(root) == {"rain/1.wav", "rain/2.flac", "wind.wav"}
    (root / "test").mkdir()
    (root / "test" / "storm.wav").touch()
    assert names(root, split="test") == {"test/storm.wav"}
    assert names(root, split="train") == {"rain/1.wav", "rain/2.flac", "wind.wav"}
    with pytest.raises(ValueError, match=r"nothing of the 4 recordings .* is left with split=dev"):
        names(root, split="dev")
    (root / "train").mkdir()
    (root / "train" / "sea.wav").touch()
    assert names(root, split="train") == {"train/sea.wav"} and names(root, split="test") == {"test/storm.wav"}
    assert len(names(root)) == 5


@pytest.mark.parametrize("name", [str, str.upper, str.title])
@pytest.mark.parametrize("part", ["train", "dev", "test"])
@pytest.mark.parametrize("purpose", PURPOSES)
def test_nothing_of_one_part_enters_another(part, purpose, name, tmp_path):
    """Ten recordings that a user has set apart, beside others: by their names some would be of another part."""
    for folder in (name(part), "rain"):
        (tmp_path / folder).mkdir()
        for number in range(10):
            (tmp_path / folder / f"{number}.wav").touch()
    apart = {f"{name(part)}/{number}.wav" for number in range(10)}
    found = {}
    for split in ("train", "dev", "test"):
        try:
            found[split] = {piece.name for piece in corpus_pieces(tmp_path, purpose, split=split)}
        except ValueError:
            found[split] = set()
    assert found[part] == apart
    assert not any(found[other] & apart for other in found if other != part)


@pytest.mark.parametrize(
    ("kind", "purpose"),
    [
        ("musan", "rir"),
        *((kind, p) for kind in ("urbansound8k", "esc50", "demand", "wham") for p in ("rir", "speech", "music")),
    ],
)
def test_a_corpus_that_does_not_serve_the_purpose_is_refused(kind, purpose, plant):
    with pytest.raises(ValueError, match=rf"\({kind}\) has nothing that serves as {purpose}, it has noise"):
        corpus_pieces(plant(kind), purpose)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "muzan"}, "unknown kind of corpus 'muzan'.*did you mean 'musan'"),
        ({"purpose": "speach"}, "unknown purpose 'speach'.*did you mean 'speech'"),
        ({"split": "tset"}, "unknown split 'tset'.*did you mean 'test'"),
        ({"kind": "wham"}, "holds nothing that serves as noise in the layout of 'wham'"),
    ],
)
def test_wrong_options_are_named(options, message, plant):
    with pytest.raises(ValueError, match=message):
        corpus_pieces(plant("folder"), **options)


def test_the_division_is_the_same_everywhere():
    assert [split_of(name) for name in ("noise-free-sound-0003", "Room001", "a")] == ["dev", "test", "train"]


def test_training_never_hears_what_suites_test_with(tmp_path):
    """Of a corpus without official parts, too; a plain folder is taken as a whole."""
    for corpus, files in (
        (
            "musan",
            [f"noise/free-sound/noise-free-sound-{n:04d}.wav" for n in range(40)] + ["music/a.wav", "speech/b.wav"],
        ),
        ("RIRS_NOISES", [f"simulated_rirs/smallroom/Room{n:03d}/Room{n:03d}-00001.wav" for n in range(40)]),
        ("own", [f"{n}.wav" for n in range(40)]),
    ):
        for name in files:
            (tmp_path / corpus / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / corpus / name).touch()
    for corpus, purpose in (("musan", "noise"), ("musan/noise", "noise"), ("RIRS_NOISES", "rir")):
        parts = {
            split: {piece.name for piece in corpus_pieces(tmp_path / corpus, purpose, split=split)}
            for split in ("training", "train", "dev", "test", "all")
        }
        assert parts["training"] == parts["train"] and not parts["train"] & (parts["test"] | parts["dev"])
        assert parts["train"] | parts["dev"] | parts["test"] == parts["all"] and len(parts["all"]) == 40
    assert len(corpus_pieces(tmp_path / "own", split="training")) == 40
