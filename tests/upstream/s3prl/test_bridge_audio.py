"""Audio on current torchaudio: loading, info, and sox effects, by the program or in its stead."""

from __future__ import annotations

import io
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from robustdistiller.eval.check.toy_corpora import voice, write
from robustdistiller.upstream.s3prl import bridge
from robustdistiller.upstream.s3prl.bridge import audio, sox_effects

KS_CHAIN = [["channels", "1"], ["rate", "16000"], ["gain", "-3.0"]]
ASV_CHAIN = [*KS_CHAIN, ["silence", "1", "0.1", "0.1%", "-1", "0.1", "0.1%"]]
needs_sox = pytest.mark.skipif(bridge.sox_path() is None, reason="needs the program sox")


def test_audio_shims_leave_a_complete_torchaudio_alone(monkeypatch: pytest.MonkeyPatch):
    for name in ("set_audio_backend", "load", "info"):
        monkeypatch.setattr(torchaudio, name, f"real {name}", raising=False)
    for apply in (audio.bridge_audio_backend, audio.bridge_audio_load, audio.bridge_audio_info):
        report = apply()
        assert not report.applied, report
        assert getattr(torchaudio, report.name.removeprefix("torchaudio.")) == f"real {report.name.split('.')[1]}"


def test_audio_shims_fill_the_gaps_of_torchaudio_2_9(monkeypatch: pytest.MonkeyPatch):
    for name in ("set_audio_backend", "info"):
        monkeypatch.setattr(torchaudio, name, None, raising=False)
        monkeypatch.delattr(torchaudio, name)
    monkeypatch.setattr(torchaudio, "load", None)
    monkeypatch.setattr(audio, "working_import", lambda name: (True, f"{name} is installed"))
    assert not audio.bridge_audio_load().applied, "TorchCodec is used where it works"
    monkeypatch.setattr(audio, "working_import", lambda name: (False, f"{name} is not installed"))
    assert audio.bridge_audio_load().applied and torchaudio.load is audio.load
    assert audio.bridge_audio_backend().applied and torchaudio.set_audio_backend("sox_io") is None
    assert audio.bridge_audio_info().applied and torchaudio.info is audio.info
    monkeypatch.undo()


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_load_and_info_read_what_was_written(suffix, tmp_path: Path):
    samples = np.stack([voice("left", 0.1), voice("right", 0.1)], axis=1) / 4
    path = tmp_path / f"stereo{suffix}"
    soundfile.write(path, samples, 16000, subtype="PCM_16")
    waveform, rate = audio.load(path)
    assert rate == 16000 and waveform.dtype == torch.float32 and waveform.shape == (2, 1600)
    written = np.round(samples * 32768).clip(-32768, 32767) / 32768
    assert np.abs(waveform.numpy().T - written).max() <= 1 / 32768
    assert torch.equal(audio.load(io.BytesIO(path.read_bytes()))[0], waveform)
    part, _ = audio.load(str(path), frame_offset=100, num_frames=50, channels_first=False)
    assert torch.equal(part, waveform[:, 100:150].t())
    meta = audio.info(path)
    assert meta[:4] == (16000, 1600, 2, 16)
    assert meta.encoding == {".wav": "PCM_S", ".flac": "FLAC"}[suffix]
    with pytest.raises(ValueError, match="normalize=False"):
        audio.load(path, normalize=False)
    # where torchaudio itself still reads audio, the two must be the same bits
    if hasattr(torchaudio, "info") and torchaudio.info is not audio.info:
        native, native_rate = torchaudio.load(path)
        assert native_rate == rate and torch.equal(native, waveform)
        assert tuple(vars(torchaudio.info(path)).values()) == tuple(meta)


@needs_sox
def test_sox_chain_by_the_program(tmp_path: Path):
    path = tmp_path / "speech.wav"
    write(path, 1.0)
    original, _ = audio.load(path)
    quiet, rate = sox_effects.apply_effects_file(path, KS_CHAIN)
    assert rate == 16000 and quiet.shape == original.shape
    assert (quiet - original * 10 ** (-3 / 20)).abs().max() < 1e-7
    assert torch.equal(sox_effects.apply_effects_tensor(original, 16000, KS_CHAIN)[0], quiet)

    pad = torch.zeros(1, 16000)
    soundfile.write(tmp_path / "padded.wav", torch.cat([pad, original, pad], dim=1)[0].numpy(), 16000, subtype="PCM_16")
    trimmed, _ = sox_effects.apply_effects_file(tmp_path / "padded.wav", ASV_CHAIN)
    untrimmed, _ = sox_effects.apply_effects_file(tmp_path / "padded.wav", KS_CHAIN)
    assert untrimmed.shape[1] == 48000 and 12000 < trimmed.shape[1] < 20000

    write(tmp_path / "narrow.wav", 1.0, 8000)
    wide, rate = sox_effects.apply_effects_file(tmp_path / "narrow.wav", KS_CHAIN, channels_first=False)
    assert rate == 16000 and wide.shape == (16000, 1)
    with pytest.raises(RuntimeError, match=r"sox failed with exit code \d+ on .*no_such_effect"):
        sox_effects.apply_effects_file(path, [["no_such_effect"]])


def test_without_sox_exact_chains_work_and_others_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "wide.wav", 0.5)
    write(tmp_path / "narrow.wav", 0.5, 8000)
    by_program = sox_effects.apply_effects_file(tmp_path / "wide.wav", KS_CHAIN) if sox_effects.sox_path() else None
    monkeypatch.setattr(sox_effects.shutil, "which", lambda _name: None)
    exact, rate = sox_effects.apply_effects_file(tmp_path / "wide.wav", KS_CHAIN)
    assert rate == 16000
    if by_program:
        assert (exact - by_program[0]).abs().max() < 1e-7
    with pytest.raises(
        RuntimeError, match=r"effect 'rate 16000' on .*narrow\.wav \(8000 Hz\) needs .*apt-get install sox"
    ):
        sox_effects.apply_effects_file(tmp_path / "narrow.wav", KS_CHAIN)
    with pytest.raises(RuntimeError, match=r"effect 'silence 1 0.1 0.1% -1 0.1 0.1%' on .* needs the program sox"):
        sox_effects.apply_effects_file(tmp_path / "wide.wav", ASV_CHAIN)
    with pytest.raises(FileNotFoundError, match=r"absent\.wav"):
        sox_effects.apply_effects_file(tmp_path / "absent.wav", KS_CHAIN)
    with pytest.raises(ValueError, match="normalize=False"):
        sox_effects.apply_effects_file(tmp_path / "wide.wav", KS_CHAIN, normalize=False)


def test_sox_effects_are_bridged_only_where_they_fail(module_table, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_args):
        raise OSError("libsox.so: cannot open shared object file")

    working = types.ModuleType("torchaudio.sox_effects")
    working.apply_effects_tensor = lambda waveform, rate, _effects: (waveform, rate)
    working.apply_effects_file = "real"
    broken = types.ModuleType("torchaudio.sox_effects")
    broken.apply_effects_tensor = refuse
    for module, applied in ((working, False), (broken, True)):
        module_table["torchaudio.sox_effects"] = module
        monkeypatch.setattr(torchaudio, "sox_effects", module, raising=False)
        report = sox_effects.bridge_sox_effects()
        assert report.applied is applied, report
    assert working.apply_effects_file == "real" and broken.apply_effects_file is sox_effects.apply_effects_file
    assert "libsox.so" in report.reason

    monkeypatch.delattr(torchaudio, "sox_effects")
    module_table["torchaudio.sox_effects"] = None  # how Python marks a module that cannot be imported
    assert sox_effects.bridge_sox_effects().applied
    from torchaudio.sox_effects import apply_effects_file

    assert apply_effects_file is sox_effects.apply_effects_file
