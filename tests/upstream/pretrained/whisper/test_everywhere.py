"""Whisper by name: inspect, extract, load and the upstream take it; what needs a student says that it is none."""

import json

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.upstream import (
    ENTRIES,
    CheckpointError,
    UpstreamExpert,
    checkpoint_digest,
    export_checkpoint,
    load,
    load_encoder,
    mini_teacher,
    read_model,
)
from robustdistiller.upstream.model.cost import encoder_cost
from robustdistiller.upstream.pretrained.hub import hub_folder
from robustdistiller.upstream.pretrained.models import inspect_model, padding_factor
from robustdistiller.upstream.pretrained.whisper.config import WhisperConfig
from robustdistiller.upstream.pretrained.whisper.encoder import WhisperEncoder
from robustdistiller.upstream.s3prl.whisper_expert import WhisperExpert

KINDS = ["folder", "openai_file", "ctranslate2_folder"]


@pytest.fixture(params=KINDS)
def path(request):
    """The model in each format."""
    return request.getfixturevalue(request.param)


def noise(*lengths):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(length, generator=generator) * 0.1 for length in lengths]


def run(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_inspect(path):
    result = run("inspect", path)
    assert result.exit_code == 0
    words = " ".join(result.output.split())
    assert "log-mel of 80 bins, 2 conv layers, 3 pre-norm layers 24 wide" in words
    assert "3, hidden size 24" in words and "feed-forward 96" in words
    assert "no student" in words and "pad_to_30_s, as in Whisper's training, takes" in words
    assert "robustdistiller extract" in words and "convert" not in words
    found = json.loads(run("inspect", path, "--json").output)
    encoder = read_model(path).build()
    assert found["readable"] and found["safe"] and found["parameters"] == encoder.count_parameters()
    assert found["heads"] == [4, 4, 4] and found["config"]["max_frames"] == 1500 and found["size_bytes"] > 100_000


def test_inspect_says_what_is_wrong(folder, ctranslate2_folder, tmp_path):
    whole = (ctranslate2_folder / "model.bin").read_bytes()
    (tmp_path / "model.bin").write_bytes(whole[:-100])
    result = run("inspect", tmp_path)
    assert result.exit_code == 1 and "is the download complete?" in " ".join(result.output.split())
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "d_model": 7}))
    (tmp_path / "model.bin").unlink()
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    found = inspect_model(tmp_path)
    assert "embed_dim is 7" in found.error and found.looked_for == ()
    assert inspect_model(mini_teacher()).format == "robustdistiller"
    assert "found nothing there" in inspect_model(tmp_path / "nowhere.pt").error


def test_the_cost_of_padding_is_counted():
    config = WhisperConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32)
    assert padding_factor(config, 30.0) == pytest.approx(1.0)
    assert padding_factor(config, 3.0) > 9.9  # attention's part grows with the square


def test_cost(folder):
    cost = encoder_cost(read_model(folder).build(), duration_s=1.0)
    frames, layers = 50, 3
    convolutions = 80 * 24 * 3 * 100 + 24 * 24 * 3 * frames + 201 * 80 * 100
    assert cost.macs == convolutions + layers * (frames * 24 * (4 * 24 + 2 * 96) + 2 * frames * frames * 24)
    assert cost.parameters_used == cost.parameters_stored == read_model(folder).build().count_parameters()


def test_extract(path, tmp_path):
    (tmp_path / "speech").mkdir()
    for name, samples in zip("abc", noise(16000, 8160, 200)):
        soundfile.write(tmp_path / "speech" / f"{name}.wav", samples.numpy(), 16000, "FLOAT")
    out = tmp_path / "out"
    assert run("extract", path, tmp_path / "speech", "--out", out).exit_code == 0
    encoder = read_model(path).build()
    with torch.no_grad():
        for name, samples in zip("ab", noise(16000, 8160)):
            states = torch.cat(encoder(samples[None]).hidden_states).numpy()
            np.testing.assert_allclose(np.load(out / f"{name}.npy"), states, rtol=1e-5, atol=1e-5)
    assert np.load(out / "c.npy").shape == (4, 1, 24)  # padded to one frame
    assert json.loads((out / "extraction.json").read_text())["checkpoint_sha256"] == checkpoint_digest(path)
    single = run("extract", path, tmp_path / "speech", "--layer", "layer_2", "--out", tmp_path / "second")
    assert single.exit_code == 0
    np.testing.assert_allclose(np.load(tmp_path / "second" / "a.npy"), np.load(out / "a.npy")[2], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_upstream(path):
    upstream = ENTRIES["robustdistiller_local"](ckpt=str(path)).eval()
    waves = noise(16000, 8000, 8159, 8160, 300)
    result = upstream(waves)
    assert result["names"] == ("layer_input", "layer_1", "layer_2", "layer_3")
    assert upstream.get_downsample_rates("hidden_states") == 320
    assert torch.equal(result["paper"], result["hidden_state_3"])
    for row, wave in enumerate(waves):
        frames = round(len(wave) / 320)
        for together, alone in zip(result["hidden_states"], upstream([wave])["hidden_states"], strict=True):
            torch.testing.assert_close(together[row, :frames], alone[0, :frames], rtol=1e-5, atol=1e-5)
    own = upstream.encoder(waves[0][None]).hidden_states[2][0]
    torch.testing.assert_close(result["hidden_states"][2][0, :50], own, rtol=1e-5, atol=1e-5)


def test_the_upstream_in_s3prl(folder):
    """As s3prl's runner opens it: by its hub, with the features' number of layers and width."""
    pytest.importorskip("s3prl")
    from robustdistiller.upstream import register

    register()
    from s3prl.nn import S3PRLUpstream

    upstream = S3PRLUpstream("robustdistiller_local", str(folder)).eval()
    assert upstream.num_layers == 4 and set(upstream.hidden_sizes) == {24}
    assert set(upstream.downsample_rates) == {320}
    with torch.no_grad():
        states, lengths = upstream(
            torch.nn.utils.rnn.pad_sequence(noise(16000, 8000), batch_first=True), torch.tensor([16000, 8000])
        )
    assert len(states) == 4 and states[0].shape[2] == 24 and lengths[0].tolist() == [50, 25]


def test_the_upstream_can_be_fine_tuned_and_padded(folder, tmp_path):
    upstream = ENTRIES["robustdistiller_local"](ckpt=folder).train()
    upstream(noise(4000, 3000))["paper"].square().sum().backward()
    assert all(weight.grad is not None for weight in upstream.parameters())
    (tmp_path / "options.yaml").write_text("pad_to_30_s: true\n")
    padded = ENTRIES["robustdistiller_local"](ckpt=folder, model_config=tmp_path / "options.yaml").eval()
    assert padded.encoder.config.pad_to_30_s and not upstream.encoder.config.pad_to_30_s
    with pytest.raises(ValueError, match="unknown option of Whisper as an upstream 'padding'"):
        ENTRIES["robustdistiller_local"](ckpt=folder, padding="reference")
    with pytest.raises(ValueError, match="is no Whisper model"):
        WhisperExpert(mini_teacher())


def test_load_by_name(path):
    encoder = load(path, pad_to_30_s=True)
    assert isinstance(encoder, WhisperEncoder) and encoder.config.pad_to_30_s and not encoder.training
    with pytest.raises(
        ValueError, match="unknown option of Whisper's encoder 'pad_to_30s'; did you mean 'pad_to_30_s'"
    ):
        load(path, pad_to_30s=True)


def test_what_needs_a_student_says_that_it_is_none(path, tmp_path):
    for read in (
        load_encoder,
        UpstreamExpert,
        lambda name: export_checkpoint(name, tmp_path / "a.pt", "s3prl"),
    ):
        with pytest.raises(CheckpointError, match=r"is a Whisper encoder, which can be a teacher .* but no student"):
            read(path)


def test_a_folder_of_ctranslate2_has_an_identity(ctranslate2_folder, tmp_path):
    first = checkpoint_digest(ctranslate2_folder)
    for file in ctranslate2_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert checkpoint_digest(tmp_path) == first
    (tmp_path / "model.bin").write_bytes((tmp_path / "model.bin").read_bytes() + b"\0")
    assert checkpoint_digest(tmp_path) != first


def test_by_its_name_on_the_hub(monkeypatch, folder, ctranslate2_folder, tmp_path):
    """Only what is read is asked for, in an order in which weights come last."""
    import huggingface_hub

    from robustdistiller.upstream.pretrained import hub

    asked = []

    def download(repository, file, **_):
        asked.append(file)
        place = {"openai/whisper-base": folder, "me/faster-whisper": ctranslate2_folder}[repository] / file
        if not place.is_file():
            raise huggingface_hub.errors.EntryNotFoundError(file)
        return str(place)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert hub.hub_folder("openai/whisper-base") == hub_folder("openai/whisper-base") == folder
    assert asked[-1] == "model.safetensors"
    assert read_model(hub_folder("me/faster-whisper")).format == "whisper_ctranslate2" and asked[-1] == "model.bin"
