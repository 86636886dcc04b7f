"""The files that `convert` writes: where they go, what the Hugging Face folder and its model card say."""

import json
import subprocess
import sys

import pytest
import torch

from robustdistiller.pretrain.student.merge import merge_checkpoints
from robustdistiller.upstream import (
    EncoderConfig,
    SpeechEncoder,
    checkpoint_digest,
    export_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from robustdistiller.upstream.checkpoints.formats import huggingface
from robustdistiller.upstream.checkpoints.formats.base import Card

SHAPE = {"embed_dim": 36, "num_layers": 2, "num_heads": 3, "ffn_dim": 50, "position_kernel": 17, "position_groups": 4}
SHAPE |= {"conv_layers": ((24, 10, 5), *((24, 3, 2),) * 4, *((24, 2, 2),) * 2)}
STUDENT = {"feature_norm": False, "prediction_layers": (4, 8), "prediction_dim": 44}
LARGE = {"conv_norm": "layer", "conv_bias": True, "norm_first": True, "normalize_waveform": True}


def build(options, seed=3):
    torch.manual_seed(seed)
    return SpeechEncoder(EncoderConfig(**{**SHAPE, **options}))


def write(encoder, tmp_path, to):
    save_checkpoint(tmp_path / "model.ckpt", encoder, {"teacher": "none"})
    return export_checkpoint(tmp_path / "model.ckpt", tmp_path / "out", to, overwrite=True)


def test_places(tmp_path):
    encoder = build(STUDENT)
    source = tmp_path / "model.ckpt"
    save_checkpoint(source, encoder, {})
    before = source.read_bytes()
    with pytest.raises(ValueError, match="is the checkpoint to convert"):
        export_checkpoint(source, source, "native", overwrite=True)
    with pytest.raises(ValueError, match="'onnx' is no format to convert to; there are native, s3prl"):
        export_checkpoint(source, tmp_path / "a", "onnx")
    (tmp_path / "there").write_text("keep me")
    with pytest.raises(FileExistsError, match=r"exists already.*--overwrite"):
        export_checkpoint(source, tmp_path / "there", "native")
    with pytest.raises(FileExistsError, match="is a file; expected the name of a folder"):
        export_checkpoint(source, tmp_path / "there", "huggingface", overwrite=True)
    with pytest.raises(FileExistsError, match="is a folder; expected the name of a file"):
        export_checkpoint(source, tmp_path, "native", overwrite=True)
    assert (tmp_path / "there").read_text() == "keep me" and source.read_bytes() == before


def test_a_failed_export_leaves_the_old_one(tmp_path, monkeypatch):
    exported = write(build(STUDENT), tmp_path, "huggingface")
    before = {file.name: file.read_bytes() for file in exported.path.iterdir()}

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(huggingface, "model_card", fail)
    with pytest.raises(OSError, match="disk full"):
        write(build(STUDENT, seed=5), tmp_path, "huggingface")
    assert {file.name: file.read_bytes() for file in exported.path.iterdir()} == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.ckpt", "out"]
    monkeypatch.undo()
    write(build(STUDENT, seed=5), tmp_path, "huggingface")
    assert (exported.path / "model.safetensors").read_bytes() != before["model.safetensors"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.ckpt", "out"]


def test_model_card_says_where_it_comes_from(tmp_path):
    teacher = {"file": "wavlm.pt", "format": "wavlm", "sha256": "ab" * 32, "metadata": {}}
    metadata = {
        "teacher": teacher,
        "recipe": "robustdistiller",
        "corruption": {"snr_db": [0, 20]},
        "license": "cc-by-4.0",
    }
    metadata |= {"step": 200000, "audio_hours": 1234.56}
    metadata["config"] = {"data": {"speech": ["/home/someone/LibriSpeech/"], "noise": ["/data/musan"], "rir": None}}
    save_checkpoint(tmp_path / "student.ckpt", build(STUDENT), metadata)
    results = "| upstream | clean |\n| --- | --- |\n| student | 71.0 |"
    exported = export_checkpoint(
        tmp_path / "student.ckpt", tmp_path / "tiny-student", "huggingface", card=Card(results)
    )
    card = (exported.path / "README.md").read_text()
    expected = ["license: cc-by-4.0", "# tiny-student", "wavlm.pt", "ab" * 32, "robustdistiller", "200,000 steps"]
    expected += ["1234.6 hours", "LibriSpeech", "musan", "snr_db 0 to 20", "| student | 71.0 |", "prediction heads"]
    for part in expected:
        assert part in card, part
    assert "/home/someone" not in card
    again = export_checkpoint(tmp_path / "tiny-student", tmp_path / "again.ckpt", "native")
    origin = read_checkpoint(again.path).metadata["converted_from"]
    assert (origin["name"], origin["format"], len(origin["sha256"])) == ("tiny-student", "huggingface", 64)
    save_checkpoint(tmp_path / "bare.ckpt", build(STUDENT), {})
    bare = export_checkpoint(tmp_path / "bare.ckpt", tmp_path / "bare", "huggingface")
    text = (bare.path / "README.md").read_text()
    assert "Recipe: not recorded in the checkpoint" in text and "license:" not in text


@pytest.mark.parametrize(
    "metadata",
    [
        {"teacher": None, "corruption": None, "step": None},
        {"teacher": ["x"], "step": "many", "audio_hours": "?", "corruption": "noise\n# Not a title"},
        {
            "config": [1],
            "versions": "1",
            "license": ["a"],
            "converted_from": 3,
            "recipe": {"a": 1},
            "merged": {"sources": 1},
        },
        {"config": {"data": {"speech": 5, "noise": {}}}, "corruption": {"snr_db": [1, 2, 3]}, "audio_hours": None},
    ],
)
def test_model_card_of_odd_metadata(metadata, tmp_path):
    save_checkpoint(tmp_path / "odd.ckpt", build({}), metadata)
    path = export_checkpoint(tmp_path / "odd.ckpt", tmp_path / "odd", "huggingface").path
    assert [line for line in (path / "README.md").read_text().splitlines() if line.startswith("# ")] == ["# odd"]


@pytest.mark.parametrize("to", ["s3prl", "huggingface", "published", "torchaudio", "dphubert"])
def test_the_licence_survives_every_format(to, tmp_path):
    save_checkpoint(tmp_path / "teacher.ckpt", build({"projection": True, "reference_mask": "block"}), {})
    out = export_checkpoint(tmp_path / "teacher.ckpt", tmp_path / "out", to, license_="cc-by-4.0").path
    assert read_checkpoint(out).metadata["license"] == "cc-by-4.0"
    again = export_checkpoint(out, tmp_path / "again", "published").path
    assert "license: cc-by-4.0" in (again / "README.md").read_text().splitlines()


def test_the_card_of_a_merged_student_names_both(tmp_path):
    for seed, name in enumerate("ab"):
        save_checkpoint(tmp_path / f"{name}.ckpt", build(STUDENT, seed=seed), {"licence": "Apache-2.0 (weights)"})
    merged = merge_checkpoints(str(tmp_path / "a.ckpt"), str(tmp_path / "b.ckpt"), tmp_path / "c.ckpt", 0.25)
    card = (export_checkpoint(merged, tmp_path / "out", "published").path / "README.md").read_text()
    (line,) = [
        line for line in card.splitlines() if line.startswith("- Weighted mean of: a.ckpt (robustdistiller, SHA-")
    ]
    assert " and b.ckpt (robustdistiller, SHA-256 " in line and line.endswith("with 0.25 as the weight of the latter")
    assert "- Licence: Apache-2.0 (weights)" in card.splitlines()


def test_licence_and_heads_can_be_told(tmp_path):
    import torchaudio

    kwargs = {"extractor_mode": "group_norm", "extractor_conv_layer_config": SHAPE["conv_layers"], "aux_num_out": None}
    kwargs |= {"extractor_conv_bias": False, "encoder_embed_dim": 36, "encoder_projection_dropout": 0.0}
    kwargs |= {"encoder_pos_conv_kernel": 17, "encoder_pos_conv_groups": 4, "encoder_num_layers": 2}
    kwargs |= {"encoder_num_heads": 3, "encoder_attention_dropout": 0.1, "encoder_ff_interm_features": 50}
    kwargs |= {"encoder_ff_interm_dropout": 0.0, "encoder_dropout": 0.1, "encoder_layer_norm_first": False}
    model = torchaudio.models.wav2vec2_model(**kwargs, encoder_layer_drop=0.0)
    torch.save(model.state_dict(), tmp_path / "bare.pt")
    with pytest.raises(ValueError, match="give num_heads"):
        export_checkpoint(tmp_path / "bare.pt", tmp_path / "out", "huggingface")
    exported = export_checkpoint(
        tmp_path / "bare.pt", tmp_path / "out", "huggingface", license_="cc-by-4.0", num_heads=3
    )
    assert "license: cc-by-4.0" in (exported.path / "README.md").read_text()
    assert json.loads((exported.path / "config.json").read_text())["num_attention_heads"] == 3


def test_folder_of_transformers_is_complete(tmp_path):
    from transformers import AutoConfig, AutoFeatureExtractor

    path = write(build(LARGE), tmp_path, "huggingface").path
    assert sorted(file.name for file in path.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert len({file.stat().st_mode for file in path.iterdir()}) == 1  # all as readable as each other
    assert json.loads((path / "config.json").read_text())["architectures"] == ["Wav2Vec2Model"]
    assert AutoConfig.from_pretrained(path).do_stable_layer_norm
    extractor = AutoFeatureExtractor.from_pretrained(path)
    assert extractor.do_normalize and extractor.sampling_rate == 16000


def test_plain_distilhubert_shape_is_a_hubert_model_of_two_layers(tmp_path):
    from transformers import AutoModel

    student = SpeechEncoder(EncoderConfig(num_layers=2, feature_norm=False, prediction_layers=(4, 8, 12)))
    exported = write(student, tmp_path, "huggingface")
    model = AutoModel.from_pretrained(exported.path)
    assert type(model).__name__ == "HubertModel" and model.config.num_hidden_layers == 2
    assert sum(parameter.numel() for parameter in model.parameters()) == 23_491_200
    assert "23.49 M parameters: 2 transformer layers" in (exported.path / "README.md").read_text()


def test_transformers_is_not_needed_to_write():
    code = (
        "import sys; sys.modules['transformers'] = None; sys.modules['s3prl'] = None; import tempfile, torch\n"
        "from robustdistiller.upstream import *\n"
        "from robustdistiller.upstream.checkpoints.export import export_checkpoint\n"
        f"encoder = SpeechEncoder(EncoderConfig(**{ ({**SHAPE, 'feature_norm': False})!r}))\n"
        "folder = tempfile.mkdtemp(); save_checkpoint(folder + '/a.ckpt', encoder, {})\n"
        "export_checkpoint(folder + '/a.ckpt', folder + '/b', 'huggingface')\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_digest_of_a_folder_changes_with_its_weights_and_configuration(tmp_path):
    folder = write(build(STUDENT), tmp_path, "huggingface").path
    before = checkpoint_digest(folder)
    (folder / "README.md").write_text("changed")
    others = [folder / name for name in ("tokenizer.json", "trainer_state.json", "optimizer.bin", "pytorch_model.bin")]
    for other in others:
        other.write_text("not read, as model.safetensors is there")
    assert checkpoint_digest(folder) == before
    for other in others:
        other.unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_dropout": 0.3}))
    changed = checkpoint_digest(folder)
    write(build(STUDENT, seed=9), tmp_path, "huggingface")
    assert len({before, changed, checkpoint_digest(folder)}) == 3
    with pytest.raises(FileNotFoundError, match="expected a file, found a folder there"):
        checkpoint_digest(tmp_path)
