"""Suites: shipped and user-made, based on each other, with their sources."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest
import soundfile

from robustdistiller.acoustics import Condition
from robustdistiller.eval.conditions.sources import Sources
from robustdistiller.eval.conditions.suite import SuiteError, load_suite, load_suites, suite_names


def write(path, text):
    path.write_text(textwrap.dedent(text))
    return path


def noise(folder, *names):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, 0.1 * np.random.default_rng(number).standard_normal(1600), 16000)
    return folder


def test_shipped_suites_are_what_the_papers_tested():
    assert suite_names() == ["clean", "correlation", "line", "robustdistiller", "srb"]
    robust = load_suite("robustdistiller")
    for kind in ("noise", "noise+reverb"):
        assert [c["snr_db"].low for c in robust.conditions if c.kind == kind] == [20, 15, 10, 5, 0, -5]
    bands = [(c["rt60_s"].low, c["rt60_s"].high) for c in robust.conditions if c.kind == "reverb"]
    assert bands == [(0.25, 0.5), (0.5, 0.75), (0.75, 1.25)]
    assert robust.sources.corpora["urbansound8k"].without == ("children_playing", "street_music")
    assert {spec.split for spec in robust.sources.corpora.values()} == {"test"}
    ranges = {(c["snr_db"].low, c["snr_db"].high) for c in load_suite("correlation").conditions if c.kind != "clean"}
    assert ranges == {(10, 20), (10, 19)}


def test_the_shipped_suite_runs_on_the_shipped_noise_and_rooms():
    suite = load_suite("robustdistiller")
    found = suite.sources.corruptors(suite.conditions)
    assert len(found) == 16
    for condition, corruptor in found.items():
        if corruptor is not None:
            drawn = corruptor.draw("utt-1", 1600)
            assert ("snr_db" in drawn) == ("snr_db" in condition) and ("rir" in drawn) == ("rir" in condition.needs)
            assert "snr_db" not in drawn or drawn["snr_db"] == condition["snr_db"].low


def test_the_line_suite_needs_no_recordings_and_changes_every_utterance():
    suite = load_suite("line")
    wave = (0.1 * np.random.default_rng(0).standard_normal(16000)).astype(np.float32)
    for condition, corruptor in suite.sources.corruptors(suite.conditions).items():
        assert condition.needs <= {"noise"}  # in the call from a noisy room, and some of it is shipped
        if corruptor is not None:
            corrupted = corruptor.apply(wave, corruptor.draw("utt-1", len(wave)))
            assert corrupted.shape == wave.shape and np.abs(corrupted - wave).max() > 1e-3


def test_every_condition_of_the_srb_suite_is_drawn_in_four_severities(tmp_path):
    suite = load_suite("srb")
    voice = (0.1 * np.random.default_rng(0).standard_normal(32000)).astype(np.float32)
    given = suite.sources.with_given({"music": [str(noise(tmp_path / "music", "song.wav"))]})
    assert {spec.split for spec in given.corpora.values()} == {"test"}
    changes = {}
    for condition, corruptor in given.corruptors(suite.conditions).items():
        if corruptor is not None:
            corrupted = corruptor.apply(voice, corruptor.draw("utt-1", len(voice)))
            assert corrupted.shape == voice.shape and np.isfinite(corrupted).all()
            group = condition.effects.keys(), condition.get("noise"), str(condition.get("pitch_cents"))[0] == "-"
            changes.setdefault(str(group), []).append(np.abs(corrupted - voice).max())
    assert {len(found) for found in changes.values()} == {4} and len(changes) == 13
    assert min(min(found) for found in changes.values()) > 1e-3
    for kind, key in (("noise", "snr_db"), ("music", "music_snr_db"), ("talker", "sir_db")):
        levels = [c[key].low for c in suite.conditions if c.kind == kind]
        assert levels == [30, 20, 10, 0] * (1 + (kind == "noise"))
    with pytest.raises(ValueError, match="give music=PATH in it"):
        suite.sources.corruptors(suite.conditions)


def test_what_is_given_is_cut_down_to_its_held_out_part(tmp_path):
    root = noise(tmp_path / "wham", "tr/a.wav", "cv/b.wav", "tt/c.wav")
    suite = load_suite("robustdistiller")
    condition = Condition.parse("noise:snr_db=5")
    given = suite.sources.with_given({"noise": [str(root)]})
    assert given.corruptors([condition])[condition].source("noise").names == ("tt/c.wav",)
    assert given.describe(condition, given.corruptors([condition])[condition])["noise"]["name"] == "wham (split=test)"
    typed = suite.sources.with_given({"noise": [f"{root},split=train"]})
    assert typed.corruptors([condition])[condition].source("noise").names == ("tr/a.wav",)


def test_of_several_corpora_in_one_folder_nothing_but_test_parts_is_taken(tmp_path):
    """A folder of corpora would be drawn from as a whole, with what students are trained with."""
    noise(tmp_path / "wham", "tr/a.wav", "tt/c.wav")
    sources, condition = load_suite("robustdistiller").sources, Condition.parse("noise:snr_db=5")
    noise(tmp_path / "LibriSpeech", "test-clean/d.wav")  # serves no noise

    def heard(*given):
        return sources.with_given({"noise": given}).corruptors([condition])[condition].source("noise").names

    assert heard(str(tmp_path)) == ("wham/tt/c.wav",)
    noise(tmp_path / "demand", "DKITCHEN/ch01.wav", "TBUS/ch01.wav")
    with pytest.raises(ValueError, match=r"holds demand and wham, of which the suite takes test parts; give"):
        heard(str(tmp_path))
    apart = ("demand/TBUS/ch01.wav", "wham/tt/c.wav")
    assert set(heard(f"{tmp_path},split=test")) == set(apart)
    assert heard(str(tmp_path / "demand"), str(tmp_path / "wham")) == apart


def test_a_part_of_a_corpus_is_cut_down_too(tmp_path):
    names = [f"noise/free-sound/noise-free-sound-{n:04d}.wav" for n in range(12)]
    root = noise(tmp_path / "musan", *names, "music/a.wav", "speech/b.wav")
    condition = Condition.parse("noise:snr_db=5")
    names = []
    for path in (root, root / "noise"):
        given = load_suite("robustdistiller").sources.with_given({"noise": [str(path)]})
        names.append([name.split("/")[-1] for name in given.corruptors([condition])[condition].source("noise").names])
    assert names[0] == names[1] and 0 < len(names[0]) < 12


def test_a_suite_of_ones_own_is_a_few_lines(tmp_path):
    noise(tmp_path / "street", "car.wav")
    noise(tmp_path / "home", "fan.wav")
    path = write(
        tmp_path / "mine.yaml",
        """
        noise:
          street: street
          home: {path: home, split: all}
        conditions: [clean, "noise:snr_db=5,noise=street", "noise:snr_db=5,noise=home"]
        """,
    )
    suite = load_suite(path)
    found = suite.sources.corruptors(suite.conditions)
    names = {c.label: corruptor.source("noise").names for c, corruptor in found.items() if corruptor}
    assert names == {"noise:snr_db=5,noise=street": ("car.wav",), "noise:snr_db=5,noise=home": ("fan.wav",)}
    names = [suite.sources.describe(c, k)["noise"]["name"] for c, k in found.items() if k]
    assert names == ["street: street", "home: home"]


def test_a_base_gives_conditions_and_sources_that_may_be_changed(tmp_path):
    noise(tmp_path / "chime", "BGD_150203_010_BUS.CH1.wav", "BGD_150203_010_BUS.CH2.wav")
    write(
        tmp_path / "base.yaml",
        "base: correlation\nnoise: {chime: chime}\nconditions: ['noise:snr_db=10..20,noise=chime']",
    )
    suite = load_suite(write(tmp_path / "mine.yaml", "base: ./base.yaml\nabout: mine\n"))
    (condition,) = suite.conditions
    assert str(condition) == "noise:snr_db=10..20,noise=chime"
    corruptor = suite.sources.corruptors([condition])[condition]
    assert corruptor.source("noise").names == ("BGD_150203_010_BUS.CH1.wav",)  # the base's kind, this suite's path
    assert 10 <= corruptor.draw("utt", 100)["snr_db"] <= 20


def test_suites_may_be_listed_among_conditions_and_joined(tmp_path):
    both = load_suite(write(tmp_path / "both.yaml", "conditions: [reverb, robustdistiller, clean]"))
    assert [str(c) for c in both.conditions[:2]] == ["reverb", "clean"] and len(both.conditions) == 17
    assert both.sources.corpora["musan"].split == "test"
    joined = load_suites(["clean", "robustdistiller"])
    assert joined.conditions == load_suite("robustdistiller").conditions


def test_a_source_that_is_left_to_the_user_is_asked_for():
    suite = load_suite("correlation")
    with pytest.raises(ValueError, match=r"give --noise chime=FOLDER \(chime\), .*--rir dns_rooms=FOLDER \(dns\)"):
        suite.sources.corruptors(suite.conditions)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conditons: [clean]", "unknown key 'conditons' in the suite; did you mean 'conditions'"),
        ("conditions: [noize]", "unknown condition 'noize'"),
        ("conditions: ['noise:snr=5']", "unknown key 'snr' .*did you mean 'snr_db'"),
        ("conditions: []", "conditions must be a list"),
        ("about: x", "has no conditions"),
        ("base: nothere\nconditions: [clean]", "no suite 'nothere'"),
        ("base: ./nothere.yaml", "no suite at"),
        ("base: ./mine.yaml", "based on each other: mine.yaml -> mine.yaml"),
        ("conditions: [clean]\nnoise: {paht: /data}", "noise.paht: did you mean 'path'"),
        ("conditions: [clean]\nnoise: {path: /d, splt: test}", "unknown key 'splt' in noise.*did you mean 'split'"),
        ("conditions: [clean]\nnoise: {white: /d}", "'white' is a noise of its own"),
        (
            "conditions: [clean]\ncorpora: {muzan: {split: test}}",
            "unknown key 'muzan' in corpora.*did you mean 'musan'",
        ),
        ("- clean", "must be a mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_wrong_suite_is_refused_in_one_sentence(text, message, tmp_path):
    with pytest.raises(SuiteError, match=message):
        load_suite(write(tmp_path / "mine.yaml", text))


def test_options_of_sources_are_refused_where_they_are_typed():
    with pytest.raises(ValueError, match=r"^unknown option 'splt' in .*; did you mean 'split'"):
        Sources().with_given({"noise": ["/data/musan,splt=test"]})


def test_a_path_in_the_place_of_a_list_is_refused():
    with pytest.raises(ValueError, match="sources of noise: expected a list, found '/data/musan'"):
        Sources(noise="/data/musan")
    with pytest.raises(ValueError, match="sources of rir: expected a list, found '/data/rooms'"):
        Sources().with_given({"rir": "/data/rooms"})


def test_corpora_of_a_suite_are_drawn_from_by_their_weights(tmp_path):
    few = noise(tmp_path / "few", "0.wav")
    many = noise(tmp_path / "many", *(f"{index}.wav" for index in range(9)))

    def share(*options):
        given = tuple(f"{folder}{option}" for folder, option in zip((few, many), options))
        (corruptor,) = Sources(noise=given).corruptors([Condition.parse("noise:snr_db=5")]).values()
        drawn = [corruptor.draw(f"utt-{index}", 1000)["noise"]["names"][0] for index in range(800)]
        return sum(name.startswith("few/") for name in drawn) / len(drawn)

    assert share("", "") == pytest.approx(0.1, abs=0.04)
    assert share(",weight=1", ",weight=1") == pytest.approx(0.5, abs=0.06)
    with pytest.raises(ValueError, match="has no weight and others beside it have one"):
        share("", ",weight=1")
