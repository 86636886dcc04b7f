"""The survey of a folder says what is taken of it, and which files are no use."""

import threading

import numpy as np
import pytest
import soundfile

from robustdistiller.acoustics import corpus_pieces
from robustdistiller.acoustics.corpora import PURPOSES
from robustdistiller.acoustics.corpora import survey as survey_module
from robustdistiller.acoustics.corpora.survey import survey

MEASURED = "RIRS_NOISES/real_rirs_isotropic_noises/RVB2014_type1_"


def write(path, seconds=1.0, rate_hz=16000, samples=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(0).normal(0, 0.1, int(seconds * rate_hz)) if samples is None else samples
    soundfile.write(path, samples, rate_hz, subtype="FLOAT" if path.suffix == ".wav" else None)
    return path


@pytest.fixture
def root(tmp_path):
    """MUSAN, RIRS_NOISES and WHAM side by side, and recordings of one's own."""
    for number in range(12):
        write(tmp_path / f"musan/noise/free-sound/noise-free-sound-{number:04d}.wav", 2)
    write(tmp_path / "musan/music/fma/music-fma-0000.wav", 3)
    write(tmp_path / "musan/speech/librivox/speech-librivox-0000.wav", 4)
    for number in range(1, 11):
        write(tmp_path / f"RIRS_NOISES/simulated_rirs/smallroom/Room{number:03d}/Room{number:03d}-00001.wav", 0.5)
    write(tmp_path / f"{MEASURED}rir_largeroom1_far_angla.wav")
    write(tmp_path / f"{MEASURED}noise_largeroom1_1.wav", 9)
    for part in ("tr", "cv", "tt"):
        write(tmp_path / "wham" / part / "a.wav", 5, 8000)
    write(tmp_path / "own" / "street.flac", 3, 48000)
    return tmp_path


def counted(found, purpose: str, part: str) -> int:
    services = [corpus.services[purpose] for corpus in found.corpora if purpose in corpus.services]
    return sum(service.parts[part].files for service in services if part in service.parts)


def taken(root, purpose: str, part: str) -> int:
    try:
        return len(corpus_pieces(root, purpose, split=part))
    except ValueError:
        return 0


def test_what_is_said_is_what_is_taken(root):
    for path in (root, root / "musan", root / "musan" / "noise", root / "wham" / "tr", root / "own"):
        found = survey(path)
        for purpose in PURPOSES:
            for part in ("train", "dev", "test", "training"):
                assert counted(found, purpose, part) == taken(path, purpose, part), (path, purpose, part)
    kinds = {corpus.kind: corpus for corpus in survey(root).corpora}
    assert kinds.keys() == {"musan", "openslr28", "wham", "folder"}
    assert kinds["musan"].files == 14 and kinds["musan"].hours == pytest.approx(31 / 3600)
    noise = kinds["musan"].services["noise"]
    assert noise.labels == {"noise": 12} and noise.on_request == {"music": 1, "speech": 1}
    assert noise.parts["training"] == noise.parts["train"] and 0 < noise.parts["train"].seconds < 24
    assert kinds["openslr28"].services["rir"].labels == {"simulated": 10, "real": 1}
    assert kinds["wham"].sample_rates_hz == {8000: 3} and kinds["folder"].sample_rates_hz == {48000: 1}


def test_useless_files_are_listed_with_the_reason(tmp_path):
    good = write(tmp_path / "good.wav")
    write(tmp_path / "short.wav", 0.0249)
    write(tmp_path / "frame.wav", 0.025)
    write(tmp_path / "no-samples.wav", 0)
    write(tmp_path / "silent.wav", samples=np.zeros(1600))
    write(tmp_path / "nan.wav", samples=np.array([0.1, np.nan] * 800))
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    flac = write(tmp_path / "cut.flac", 5)
    flac.write_bytes(flac.read_bytes()[: flac.stat().st_size // 2])
    found = survey(tmp_path)
    reasons = {
        "short.wav": "is 24.9 ms long, less than a frame of 25 ms",
        "no-samples.wav": "holds no audio samples",
        "empty.wav": "is an empty file",
        "text.wav": "cannot be read as audio",
        "gone.wav": "does not exist",
    }
    assert found.troubles.keys() == reasons.keys()
    assert all(reason in found.troubles[name] for name, reason in reasons.items())
    assert found.corpora[0].files == 6 and good.is_file()  # of no use, but readable by its header: short, silent, ...
    heard = survey(tmp_path, listen=True)
    assert heard.troubles.keys() == {*reasons, "silent.wav", "nan.wav", "cut.flac"}
    assert "is silent" in heard.troubles["silent.wav"] and "800 samples that are NaN" in heard.troubles["nan.wav"]


def test_long_files_are_listened_to_in_blocks_to_their_end(tmp_path, monkeypatch):
    monkeypatch.setattr(survey_module, "_BLOCK_S", 0.1)
    late = np.zeros(16000)
    late[-1] = 0.5
    write(tmp_path / "late.wav", samples=late)
    write(tmp_path / "never.wav", samples=np.zeros(16000))
    late[-1] = np.nan
    write(tmp_path / "nan.wav", samples=late)
    read, lengths = survey_module.read_audio, []

    def counting(*arguments, **options):
        lengths.append(options["num_frames"])
        return read(*arguments, **options)

    monkeypatch.setattr(survey_module, "read_audio", counting)
    assert survey(tmp_path, listen=True).troubles.keys() == {"never.wav", "nan.wav"}
    assert max(lengths) == 1600


def test_a_manifest_is_read_by_its_pieces(tmp_path):
    write(tmp_path / "all.wav", 1)
    rows = ["file\toffset_samples\tnum_samples\tname", "all.wav\t0\t4000\ta", "all.wav\t8000\t200\tb"]
    (tmp_path / "noise.tsv").write_text("\n".join([*rows, "all.wav\t15000\t2000\tc"]))
    found = survey(tmp_path / "noise.tsv")
    assert found.corpora[0].files == 2 and found.corpora[0].hours == pytest.approx(4200 / 16000 / 3600)
    assert found.troubles["b"].startswith("is 12.5 ms long") and "which has 16000" in found.troubles["c"]


def test_a_missing_table_of_a_corpus_is_a_problem_of_that_corpus(root):
    write(root / "FSD50K" / "FSD50K.dev_audio" / "63.wav")
    found = {corpus.kind: corpus for corpus in survey(root).corpora}
    assert "dev.csv is missing" in found["fsd50k"].problem and not found["fsd50k"].services
    assert found["musan"].services and not found["musan"].problem


def test_headers_of_many_files_wait_for_each_other(tmp_path, monkeypatch):
    """What was read and is not counted yet is bounded, however many files there are."""
    monkeypatch.setattr(survey_module, "_AT_ONCE", 10)
    for number in range(45):
        write(tmp_path / f"{number:02d}.wav", 0.05)
    started, most, lock = [0], [0], threading.Lock()
    header = survey_module.audio_info

    def counting(path):
        with lock:
            started[0] += 1
        return header(path)

    monkeypatch.setattr(survey_module, "audio_info", counting)
    looked_at = survey_module._looked_at(survey_module.list_pieces(tmp_path), listen=False)
    for done, _ in enumerate(looked_at):
        most[0] = max(most[0], started[0] - done)
    assert done == 44 and most[0] <= 10
