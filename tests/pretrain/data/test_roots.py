"""Options of data roots: weights, lengths, and noise in which there is nothing to hear."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from robustdistiller.acoustics import Corruptor
from robustdistiller.pretrain import SettingsError
from robustdistiller.pretrain.data.dataset import SpeechBatches, make_loader
from robustdistiller.pretrain.data.roots import check_data, open_sources
from robustdistiller.pretrain.data.sampler import BatchStream
from robustdistiller.pretrain.data.unreadable import UnreadableAudio, UnreadableAudioError

HISS = 0.1 * np.random.default_rng(0).standard_normal(8000)


def write(folder: Path, count: int, samples=HISS) -> Path:
    folder.mkdir()
    for index in range(count):
        soundfile.write(folder / f"{index}.wav", samples, 16000, subtype="FLOAT")
    return folder


@pytest.mark.parametrize("kind", ["noise", "rir"])
def test_folders_of_noise_and_rooms_have_their_shares(make_config, tmp_path: Path, kind: str) -> None:
    few, many = write(tmp_path / "few", 2), write(tmp_path / "many", 18)

    def drawn(*roots: str) -> float:
        config = make_config(tmp_path / "run", f"data.{kind}=[{', '.join(repr(str(root)) for root in roots)}]")
        source = open_sources(config, [kind])[0][kind]
        rng = np.random.default_rng(0)
        draw = (lambda: source.pick(rng)[0]) if kind == "rir" else (lambda: source.draw(rng, 100)[0][0])
        return sum(draw().startswith("few/") for _ in range(2000)) / 2000

    assert drawn(few, many) == pytest.approx(0.1, abs=0.03)
    assert drawn(f"{few},weight=1", f"{many},weight=1") == pytest.approx(0.5, abs=0.04)
    assert drawn(f"{few},weight=3", f"{many},weight=1") == pytest.approx(0.75, abs=0.04)
    with pytest.raises(SettingsError, match=rf"data\.{kind}: .*few has no weight and others beside it have one"):
        drawn(few, f"{many},weight=1")


def test_weights_of_noise_are_in_what_identifies_it(make_config, tmp_path: Path) -> None:
    few, many = write(tmp_path / "few", 2), write(tmp_path / "many", 3)
    found = set()
    for options in ("", ",weight=1", ",weight=2"):
        other = ",weight=1" if options else ""
        config = make_config(tmp_path / "run", f"data.noise=['{few}{options}', '{many}{other}']")
        found.add(str(check_data(config, tmp_path / "run")[1].describe()))
    assert len(found) == 3


def test_speech_by_weight(make_config, corpus, tmp_path: Path) -> None:
    few = write(tmp_path / "few", 2)
    cuts, _ = check_data(make_config(tmp_path, f"data.speech=['{few},weight=1', '{corpus.speech},weight=1']"), tmp_path)
    epoch = [cut.id for _, cut in cuts.epoch(0, 0)]
    assert len(epoch) == len(cuts) == 28 and sum(name.startswith("few/") for name in epoch) == 14
    with pytest.raises(SettingsError, match=r"data\.speech: .*speech has no weight and others beside it have one"):
        check_data(make_config(tmp_path, f"data.speech=['{few},weight=1', '{corpus.speech}']"), tmp_path)
    with pytest.raises(SettingsError, match="chooses among recordings; expected PATH or PATH,weight=W"):
        check_data(make_config(tmp_path, f"data.speech=['{few},split=train']"), tmp_path)


def test_long_files_can_be_left_out(make_config, tmp_path: Path, caplog) -> None:
    speech = write(tmp_path / "speech", 3)
    for index, length in enumerate((16_000, 16_001, 90_000)):
        soundfile.write(speech / f"long{index}.wav", np.resize(HISS, length), 16000)
    options = (f"data.speech={speech}", "data.max_samples=16000", "data.long_files=drop")
    with caplog.at_level("INFO"):
        cuts, _ = check_data(make_config(tmp_path / "run", *options), tmp_path / "run")
    assert sorted(cut.num_samples for cut in cuts) == [8000] * 3 + [16000]
    assert "speech: 4 files" in caplog.text and "left out: 2 longer than 1 s (data.long_files=drop)" in caplog.text
    with pytest.raises(SettingsError, match=r"no usable speech: 6 longer than 0\.25 s"):
        check_data(make_config(tmp_path, *options, "data.max_samples=4000"), tmp_path)


BAD = {
    "silent": (np.zeros(8000), "silent or constant"),
    "one": ([0.5], "1 samples, less than 25 ms"),
    "constant": (np.full(8000, 0.3), "silent or constant"),
    "loud": (1e20 * HISS, "above 1e+15 times full scale"),
    "nan": (np.where(np.arange(8000) == 99, np.nan, HISS), "samples that are NaN"),
    "broken": (HISS, "cannot be read as audio|is cut short"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_noise_in_which_nothing_is_heard_is_named_and_counted(
    make_config, corpus, tmp_path: Path, kind: str, num_workers: int
) -> None:
    """No utterance stays clean while its record says a signal-to-noise ratio."""
    samples, message = BAD[kind]
    noise = write(tmp_path / "noise", 3)
    bad = noise / "bad.wav"
    soundfile.write(bad, np.asarray(samples, np.float32), 16000, subtype="FLOAT")
    options = (f"data.noise={noise}", 'corruption.tables=[{"noise:snr_db=0..10": 1}]', "data.rir=[]")
    config = make_config(tmp_path / "run", *options)
    cuts, corruptor = check_data(config, tmp_path / "run")
    if kind == "broken":  # after its header was read
        bad.write_bytes(bad.read_bytes()[:9000])

    def read(unreadable: UnreadableAudio) -> list:
        stream = BatchStream(cuts, 24_000, batch_size=5, seed=1)
        return list(islice(make_loader(stream, SpeechBatches(corruptor), num_workers, unreadable=unreadable), 12))

    unreadable = UnreadableAudio(budget=1, list_path=tmp_path / "unreadable.txt")
    for batch in read(unreadable):
        assert torch.isfinite(batch.corrupted.snr_db).all()
        for row, length in enumerate(batch.lengths.tolist()):
            speech, heard = batch.waveforms[row, :length], batch.corrupted.waveforms[row, :length]
            snr_db = 10 * torch.log10(speech.square().sum() / (heard - speech).square().sum())
            assert snr_db == pytest.approx(batch.corrupted.snr_db[row].item(), abs=0.1)
            assert (heard - speech).std() > 0.9 * (heard - speech).square().mean().sqrt()  # no mere offset
    (line,) = (tmp_path / "unreadable.txt").read_text().splitlines()
    assert str(bad) in line and any(part in line for part in message.split("|"))
    with pytest.raises(UnreadableAudioError, match=r"bad\.wav"):
        read(UnreadableAudio(budget=0))


def test_nothing_but_silence_is_refused_by_name(make_config, tmp_path: Path) -> None:
    noise = write(tmp_path / "noise", 2, np.zeros(8000))
    config = make_config(tmp_path / "run", f"data.noise={noise}")
    source = open_sources(config, ["noise"])[0]["noise"]
    with pytest.raises(ValueError, match=r"none can be used; first: '.\.wav' .*silent or constant"):
        Corruptor("noise:snr_db=5", source).draw("utt", 16000)
