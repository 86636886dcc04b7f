"""Features on disk: the same whatever is computed together, resumed without loss, failures listed."""

import argparse
import json

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from robustdistiller.acoustics import audio_info, load_audio
from robustdistiller.acoustics.audio.listing import name_recordings
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, UpstreamExpert, checkpoint_digest, save_checkpoint
from robustdistiller.upstream.checkpoints.export import export_checkpoint
from robustdistiller.upstream.features import extraction
from robustdistiller.upstream.features.extraction import AudioReader
from robustdistiller.upstream.features.folder import FeatureFolder, write_features
from robustdistiller.upstream.features.layers import choose_layers

SHAPE = {"embed_dim": 24, "num_layers": 2, "num_heads": 2, "ffn_dim": 32, "position_kernel": 9, "position_groups": 4}
SHAPE |= {"conv_layers": ((16, 10, 5), *((16, 3, 2),) * 4, *((16, 2, 2),) * 2)}
LENGTHS = {"a": 16000, "b": 7000, "deep/c": 12345, "deep/er/d": 900, "e": 300}
ROUNDING = 2e-6  # of float32, relative to the largest value
NAMES = ("projected", "layer_1", "layer_2", "prediction_4", "prediction_8")


def extract(upstream, audio, out_dir, **options):
    return extraction.extract(upstream, name_recordings(audio), out_dir, AudioReader(audio_info, load_audio), **options)


@pytest.fixture
def student(tmp_path):
    torch.manual_seed(6)
    encoder = SpeechEncoder(EncoderConfig(**SHAPE, feature_norm=False, prediction_layers=(4, 8)))
    with torch.no_grad():
        for value in encoder.parameters():
            value.add_(torch.randn(value.shape) * 0.1)
    save_checkpoint(tmp_path / "student.ckpt", encoder, {})
    return tmp_path / "student.ckpt"


@pytest.fixture
def speech(tmp_path):
    generator = np.random.default_rng(0)
    for name, length in LENGTHS.items():
        path = tmp_path / "speech" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, generator.normal(0, 0.1, length), 16000, subtype="FLOAT")
    (tmp_path / "speech" / "notes.txt").write_text("no audio")
    return tmp_path / "speech"


def entries(folder):
    return {entry["name"]: entry for entry in map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())}


def error(found, expected):
    """Largest difference, relative to the largest value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


@torch.no_grad()
def alone(student, path):
    """Hidden states of one recording, computed by itself."""
    upstream = UpstreamExpert(student).eval()
    result = upstream([load_audio(path)])
    frames = int(result["frame_lengths"][0])
    return dict(zip(result["names"], [state[0, :frames] for state in result["hidden_states"]]))


@pytest.mark.parametrize("batch_s", [0.01, 2.0, 60.0])
def test_features_do_not_depend_on_the_batch(student, speech, tmp_path, batch_s):
    report = extract(student, [speech], tmp_path / "out", batch_s=batch_s)
    assert (report.written, report.skipped, report.failed, report.resampled) == (5, 0, [], {})
    for name in LENGTHS:
        expected = torch.stack(list(alone(student, speech / f"{name}.wav").values()))
        found = torch.from_numpy(np.load(tmp_path / "out" / f"{name}.npy"))
        assert found.dtype == torch.float32
        assert found.shape == expected.shape
        for layer, (value, reference) in enumerate(zip(found, expected)):
            assert error(value, reference) <= ROUNDING, (name, NAMES[layer])


@pytest.mark.parametrize("masked", [True, False])
def test_the_comparison_above_can_fail(student, speech, tmp_path, masked, monkeypatch):
    """Group norm over the padding, as the replaced implementations have it, makes features depend on the batch."""
    if not masked:
        monkeypatch.setattr(
            extraction, "open_entry", lambda _, path: UpstreamExpert(path, padding="reference"), raising=True
        )
    extract(student, [speech], tmp_path / "out", layer="2")
    worst = error(torch.from_numpy(np.load(tmp_path / "out" / "b.npy")), alone(student, speech / "b.wav")["layer_2"])
    assert (worst <= ROUNDING) == masked


def test_manifest(student, speech, tmp_path):
    extract(student, [speech], tmp_path / "out", layer="1")
    found = entries(tmp_path / "out")
    assert list(found) == sorted(LENGTHS)
    entry = found["deep/c"]
    assert entry["output"] == "deep/c.npy" and entry["audio"] == str(speech / "deep" / "c.wav")
    assert (entry["frames"], entry["dim"], entry["samples"]) == (38, 24, 12345)
    assert (entry["sample_rate_hz"], entry["source_sample_rate_hz"]) == (16000, 16000)
    assert entry["layers"] == ["layer_1"] and entry["checkpoint_sha256"] == checkpoint_digest(student)
    for name, entry in found.items():
        assert np.load(tmp_path / "out" / entry["output"]).shape == (entry["frames"], 24), name
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *["a.npy", "b.npy", "deep", "e.npy"],
        *["extraction.json", "manifest.jsonl"],
    ]


@pytest.mark.parametrize("layer", ["0", "1", "2", "4", "prediction_4"])
def test_one_layer(student, speech, tmp_path, layer):
    extract(student, [speech], tmp_path / "out", layer=layer)
    name = NAMES[int(layer)] if layer.isdecimal() else layer
    assert entries(tmp_path / "out")["a"]["layers"] == [name]
    expected = alone(student, speech / "a.wav")
    found = torch.from_numpy(np.load(tmp_path / "out" / "a.npy"))
    assert error(found, expected[name]) <= ROUNDING
    assert all(error(found, value) > 1e-3 for other, value in expected.items() if other != name)


def test_a_layer_below_the_last_stops_there(student, speech, tmp_path, monkeypatch):
    depths = []
    forward = SpeechEncoder.forward
    monkeypatch.setattr(SpeechEncoder, "forward", lambda self, *a: depths.append((a[2], a[3])) or forward(self, *a))
    extract(student, [speech], tmp_path / "out", layer="1")
    assert set(depths) == {((1,), False)}


def test_safetensors_and_half_precision(student, speech, tmp_path):
    extract(student, [speech], tmp_path / "out", format_="safetensors", dtype="float16")
    found, expected = load_file(tmp_path / "out" / "b.safetensors"), alone(student, speech / "b.wav")
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value.dtype == torch.float16
        torch.testing.assert_close(value.float(), expected[name], rtol=1e-3, atol=1e-3)


def test_any_readable_checkpoint_is_an_upstream(student, speech, tmp_path):
    folder = export_checkpoint(student, tmp_path / "hf", "huggingface").path
    extract(student, [speech / "a.wav"], tmp_path / "one", layer="2")
    extract(folder, [speech / "a.wav"], tmp_path / "two", layer="2")
    assert np.array_equal(np.load(tmp_path / "one" / "a.npy"), np.load(tmp_path / "two" / "a.npy"))
    assert entries(tmp_path / "two")["a"]["checkpoint_sha256"] == checkpoint_digest(folder)
    report = extract("robustdistiller_mini", [speech / "a.wav"], tmp_path / "mini", layer="1")
    assert report.written == 1


def computed(monkeypatch):
    """Names of the recordings that the network sees from now on, by their length."""
    seen = []
    call = extraction.LayerReader.__call__
    monkeypatch.setattr(
        extraction.LayerReader, "__call__", lambda self, waves: seen.extend(map(len, waves)) or call(self, waves)
    )
    return seen


def test_finished_recordings_are_skipped_and_changed_ones_are_not(student, speech, tmp_path, monkeypatch):
    out = tmp_path / "out"
    extract(student, [speech], out, layer="1")
    before = {name: np.load(out / f"{name}.npy") for name in LENGTHS}
    seen = computed(monkeypatch)
    assert extract(student, [speech], out, layer="1").skipped == 5
    assert seen == []
    (out / "a.npy").write_bytes((out / "a.npy").read_bytes()[:-1] + b"x")  # a flipped byte
    (out / "b.npy").unlink()
    soundfile.write(speech / "e.wav", np.ones(500), 16000)  # another recording
    report = extract(student, [speech], out, layer="1")
    assert sorted(seen) == [500, 7000, 16000] and (report.written, report.skipped) == (3, 2)
    for name in "ab":  # in another batch than before: equal but for rounding
        assert np.allclose(np.load(out / f"{name}.npy"), before[name], rtol=1e-4, atol=1e-5)
    assert list(entries(out)) == sorted(LENGTHS)


def test_a_killed_run_is_continued(student, speech, tmp_path, monkeypatch):
    out = tmp_path / "out"
    write = extraction.write_features

    def die(path, *rest):
        if path.name == "b.npy":
            raise KeyboardInterrupt
        write(path, *rest)

    monkeypatch.setattr(extraction, "write_features", die)
    with pytest.raises(KeyboardInterrupt):
        extract(student, [speech], out, layer="1", batch_s=0.01)
    monkeypatch.undo()
    with (out / "manifest.jsonl").open("a") as file:
        file.write('{"name": "b", "outp')  # cut off in the middle of a line
    seen = computed(monkeypatch)
    report = extract(student, [speech], out, layer="1")
    assert report.skipped == 2 and sorted(seen) == [300, 900, 7000]  # the longest two were done
    assert list(entries(out)) == sorted(LENGTHS)
    assert not list(out.rglob(".*"))


def test_two_commands_at_once_keep_the_lines_of_both(speech, tmp_path):
    recording = next(speech.rglob("*.wav"))
    folders = {name: FeatureFolder(tmp_path, {"layer": "1"}) for name in "ab"}
    for name, folder in folders.items():
        write_features(tmp_path / f"{name}.npy", {"layer_1": torch.zeros(2, 3)}, "npy", "float32")
        folder.add([{"name": name, "audio": str(recording), "output": f"{name}.npy"}])
    for folder in folders.values():
        folder.finish()
    assert list(entries(tmp_path)) == ["a", "b"]


def test_other_settings_are_not_mixed(student, speech, tmp_path):
    out = tmp_path / "out"
    extract(student, [speech / "a.wav"], out, layer="1")
    with pytest.raises(ValueError, match=r"holds features with layers \['layer_1'\], now \['layer_2'\].*--overwrite"):
        extract(student, [speech / "a.wav"], out, layer="2")
    torch.manual_seed(8)
    other = SpeechEncoder(EncoderConfig(**SHAPE))
    save_checkpoint(tmp_path / "other.ckpt", other, {})
    with pytest.raises(ValueError, match="holds features with checkpoint_sha256"):
        extract(tmp_path / "other.ckpt", [speech / "a.wav"], out, layer="1")
    assert extract(student, [speech / "b.wav"], out, layer="2", overwrite=True).written == 1
    assert list(entries(out)) == ["b"]


def broken_files(folder):
    (folder / "empty.wav").touch()
    (folder / "text.flac").write_text("no audio at all")
    soundfile.write(folder / "silent.wav", np.zeros(0), 16000)
    soundfile.write(folder / "nan.wav", np.array([0.0, np.nan] * 900), 16000, subtype="FLOAT")
    soundfile.write(folder / "cut.flac", np.random.default_rng(1).normal(0, 0.1, 20000), 16000)
    (folder / "cut.flac").write_bytes((folder / "cut.flac").read_bytes()[:9000])
    (folder / "phone.m4a").write_bytes(b"\x00\x00\x00 ftypM4A ")
    return ["cut.flac", "empty.wav", "nan.wav", "phone.m4a", "silent.wav", "text.flac"]


def test_what_cannot_be_read_is_listed_and_the_rest_is_done(student, speech, tmp_path):
    broken = broken_files(speech)
    report = extract(student, [speech], tmp_path / "out", layer="1")
    assert report.written == 5 and sorted(path.name for path, _ in report.failed) == broken
    reasons = {path.name: reason for path, reason in report.failed}
    assert "0 bytes" in reasons["empty.wav"] and "NaN" in reasons["nan.wav"]
    assert "length is zero" in reasons["silent.wav"] and "ffmpeg" in reasons["phone.m4a"]
    assert list(entries(tmp_path / "out")) == sorted(LENGTHS)


def test_features_that_are_not_finite_are_a_failure(student, speech, tmp_path, monkeypatch):
    call = extraction.LayerReader.__call__

    def overflow(self, waves):
        return [{name: value * 1e6 for name, value in one.items()} for one in call(self, waves)]

    monkeypatch.setattr(extraction.LayerReader, "__call__", overflow)
    report = extract(student, [speech / "a.wav"], tmp_path / "out", layer="1", dtype="float16")
    assert report.written == 0 and "not finite as float16" in report.failed[0][1]
    assert not (tmp_path / "out" / "a.npy").exists()


def test_a_lack_of_memory_ends_no_run(student, speech, tmp_path, monkeypatch):
    call = extraction.LayerReader.__call__

    def small(self, waves):
        if len(waves) > 1 or len(waves[0]) > 12345:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return call(self, waves)

    monkeypatch.setattr(extraction.LayerReader, "__call__", small)
    report = extract(student, [speech], tmp_path / "out", layer="1")
    assert report.written == 4
    assert [(path.name, "too long for the device's memory" in reason) for path, reason in report.failed] == [
        ("a.wav", True)
    ]


def test_other_rates_are_resampled_and_said_once(student, speech, tmp_path, caplog):
    for name in ("x", "y"):
        soundfile.write(speech / f"{name}.wav", np.random.default_rng(2).normal(0, 0.1, 8000), 8000)
    report = extract(student, [speech], tmp_path / "out", layer="1")
    assert report.resampled == {8000: 2}
    assert len([record for record in caplog.records if "resampled to 16000 Hz" in record.message]) == 1
    entry = entries(tmp_path / "out")["x"]
    assert (entry["source_sample_rate_hz"], entry["samples"], entry["frames"]) == (8000, 16000, 49)


def head_file(path, weights, **arguments):
    state = {"Featurizer": {"weights": torch.tensor(weights)} if weights else {}, "Downstream": {}, "Step": 10}
    arguments = {"upstream_feature_selection": "hidden_states", "upstream_trainable": False, **arguments}
    torch.save({**state, "Args": argparse.Namespace(**arguments)}, path)
    return path


@pytest.mark.parametrize("normalize", [False, True])
def test_weighted_is_what_s3prls_featurizer_computes(student, speech, tmp_path, normalize):
    from s3prl.upstream.interfaces import Featurizer

    weights = [0.5, -1.0, 2.0, 0.0, 0.3]
    head = head_file(tmp_path / "dev-best.ckpt", weights, upstream_feature_normalize=normalize)
    extract(student, [speech], tmp_path / "out", layer="weighted", head=head)
    upstream = UpstreamExpert(student).eval()
    featurizer = Featurizer(upstream, "hidden_states", upstream_device="cpu", normalize=normalize)
    featurizer.load_state_dict({"weights": torch.tensor(weights)})
    wav = load_audio(speech / "deep" / "c.wav")
    with torch.no_grad():
        (expected,) = featurizer([wav], upstream([wav]))
    found = torch.from_numpy(np.load(tmp_path / "out" / "deep" / "c.npy"))
    torch.testing.assert_close(found, expected[: len(found)], rtol=1e-5, atol=1e-5)
    settings = json.loads((tmp_path / "out" / "extraction.json").read_text())
    assert sum(settings["weights"]) == pytest.approx(1) and settings["weights"][2] == max(settings["weights"])


def test_heads_that_do_not_fit(tmp_path):
    def choose(path):
        return choose_layers("weighted", NAMES, path)

    assert choose(head_file(tmp_path / "a.ckpt", [0.0] * 3)).needed == NAMES[:3]  # trained with no_pred
    with pytest.raises(ValueError, match="weighs 4 hidden states, but the upstream has 5"):
        choose(head_file(tmp_path / "b.ckpt", [0.0] * 4))
    with pytest.raises(ValueError, match=r"holds no layer weights .it was trained on 'paper'"):
        choose(head_file(tmp_path / "c.ckpt", None, upstream_feature_selection="paper"))
    with pytest.raises(ValueError, match="fine-tuned upstream"):
        choose(head_file(tmp_path / "d.ckpt", [0.0] * 5, upstream_trainable=True))
    with pytest.raises(FileNotFoundError, match=r"head .*absent: no such file"):
        choose(tmp_path / "absent")
    with pytest.raises(ValueError, match="needs the head that learned the weights: give --head"):
        choose(None)
    with pytest.raises(ValueError, match="layer '1' uses none"):
        choose_layers("1", NAMES, tmp_path / "a.ckpt")


def test_states_of_different_width(speech, tmp_path):
    encoder = SpeechEncoder(EncoderConfig(**SHAPE, prediction_layers=(4,), prediction_dim=20))
    save_checkpoint(tmp_path / "wide.ckpt", encoder, {})
    with pytest.raises(ValueError, match=r"24 wide, the predictions 20.*choose the format safetensors"):
        extract(tmp_path / "wide.ckpt", [speech], tmp_path / "out")
    with pytest.raises(ValueError, match="there is no sum"):
        head = head_file(tmp_path / "head.ckpt", [0.0] * 4)
        extract(tmp_path / "wide.ckpt", [speech], tmp_path / "out", layer="weighted", head=head)
    assert extract(tmp_path / "wide.ckpt", [speech], tmp_path / "out", format_="safetensors").written == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "9"}, "expected 0 to 4, a name"),
        ({"layer": "-1"}, "expected 0 to 4"),
        ({"format_": "pt"}, "format 'pt': expected one of npy, safetensors"),
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"batch_s": 0.0}, "batch_s is 0.0"),
        ({"device": "gpu7"}, "device 'gpu7' cannot be used"),
        ({"upstream": "wavlm_base"}, "model 'wavlm_base': found neither a file nor a known name"),
        ({"upstream": "robustdistiller_local"}, "expected a path, a URL, org/name"),
    ],
)
def test_bad_options_are_one_sentence(student, speech, tmp_path, options, message):
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        extract(**{"upstream": student, "audio": [speech], "out_dir": tmp_path / "out", **options})
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
