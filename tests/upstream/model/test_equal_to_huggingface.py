"""Checkpoints that transformers itself saves: read without it, and the same hidden states, single and padded."""

import json
import subprocess
import sys

import pytest
import torch

from robustdistiller.upstream import load_encoder, read_checkpoint

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 36, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 50}
SMALL |= {"conv_dim": (24,) * 7, "num_conv_pos_embedding_groups": 4}
ODD = {"num_conv_pos_embeddings": 17, "num_buckets": 32, "max_bucket_distance": 40}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
SAME_WIDTH = {"conv_dim": (24,) * 6 + (36,)}
CASES = {
    "wav2vec2": ("Wav2Vec2", ODD),
    "wav2vec2-large": ("Wav2Vec2", ODD | LARGE),
    "wav2vec2-same-width": ("Wav2Vec2", ODD | SAME_WIDTH),
    "hubert": ("Hubert", ODD),
    "hubert-large": ("Hubert", ODD | LARGE),
    "hubert-distilled": ("Hubert", ODD | {"feat_proj_layer_norm": False, "num_hidden_layers": 2}),
    "hubert-tanh": ("Hubert", ODD | {"hidden_act": "gelu_new"}),
    "hubert-batch-norm": ("Hubert", ODD | {"conv_pos_batch_norm": True}),
    "wavlm": ("WavLM", ODD),
    "wavlm-large": ("WavLM", ODD | LARGE),
    "data2vec": ("Data2VecAudio", {"conv_pos_kernel_size": 7, "num_conv_pos_embeddings": 4}),
    "data2vec-even": ("Data2VecAudio", {"conv_pos_kernel_size": 8, "conv_bias": True}),
}


def build(kind, options, folder, equality, head="Model", **how):
    config = getattr(transformers, f"{kind}Config")(**{**SMALL, **options})
    model = equality.randomise(getattr(transformers, f"{kind}{head}")(config))
    model.save_pretrained(folder, **how)
    return model


@torch.no_grad()
def states(model, waveforms, lengths):
    mask = (torch.arange(waveforms.shape[1]) < lengths[:, None]).long()
    return states_of(model(waveforms, attention_mask=mask, output_hidden_states=True))


def states_of(output):
    """Versions of transformers differ in whether the last of the hidden states is layer-normed in Large models."""
    return (*output.hidden_states[:-1], output.last_hidden_state)


@torch.no_grad()
def error(model, encoder, lengths, equality):
    waveforms, lengths = equality.batch(lengths), torch.tensor(lengths)
    ours = encoder(waveforms, lengths).hidden_states
    return equality.worst_error(ours, states(model, waveforms, lengths), encoder.num_frames(lengths).tolist())


@pytest.mark.parametrize("name", CASES)
def test_equal_on_single_and_padded(name, tmp_path, equality):
    model = build(*CASES[name], tmp_path, equality)
    large = CASES[name][1].get("do_stable_layer_norm") or name.startswith("data2vec")
    encoder = load_encoder(tmp_path, padding="reference", normalize_waveform=False)
    assert read_checkpoint(tmp_path).config.normalize_waveform == bool(large)
    single, padded = (error(model, encoder, part, equality) for part in (equality.LENGTHS[:1], equality.LENGTHS))
    print(f"huggingface {name}: single {single:.1e}, padded {padded:.1e}, {encoder.count_parameters()} parameters")
    assert single <= equality.TOLERANCE and padded <= equality.TOLERANCE
    masked = load_encoder(tmp_path, normalize_waveform=False)
    for length in equality.LENGTHS[1:]:
        assert error(model, masked, (length,), equality) <= equality.TOLERANCE


@pytest.mark.parametrize("name", ["wav2vec2", "hubert-large", "hubert-batch-norm", "wavlm", "data2vec"])
def test_every_weight_matters_to_the_comparison(name, tmp_path, equality):
    model = build(*CASES[name], tmp_path, equality)
    encoder = load_encoder(tmp_path, padding="reference", normalize_waveform=False)
    waveforms, lengths = equality.batch((4000, 2400)), torch.tensor((4000, 2400))
    theirs, frames = states(model, waveforms, lengths), encoder.num_frames(lengths).tolist()

    def error():
        return equality.worst_error(encoder(waveforms, lengths).hidden_states, theirs, frames)

    assert error() <= equality.TOLERANCE
    assert equality.unnoticed_mutations(encoder, error) == []


@pytest.mark.parametrize(
    "kind", ["Wav2Vec2ForCTC", "Wav2Vec2ForPreTraining", "WavLMForXVector", "HubertForSequenceClassification"]
)
def test_task_heads_are_left_out(kind, tmp_path, equality):
    kind, _, head = kind.partition("For")
    model = build(kind, ODD, tmp_path, equality, head=f"For{head}")
    encoder = load_encoder(tmp_path, padding="reference")
    assert error(model.base_model, encoder, equality.LENGTHS, equality) <= equality.TOLERANCE


def test_folder_file_shards_and_old_spelling(tmp_path, equality):
    whole, shards = tmp_path / "whole", tmp_path / "shards"
    model = build("Hubert", ODD, whole, equality)
    model.save_pretrained(shards, max_shard_size="20KB")
    assert len(list(shards.glob("model-*.safetensors"))) > 1
    reference = load_encoder(whole).state_dict()
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.json").write_text((whole / "config.json").read_text())
    weights = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for name, value in model.state_dict().items()
    }
    torch.save(weights, old / "pytorch_model.bin")
    for path in (whole / "model.safetensors", shards, old, old / "pytorch_model.bin"):
        found = load_encoder(path).state_dict()
        assert found.keys() == reference.keys()
        assert all(torch.equal(found[name], reference[name]) for name in reference), path


def test_input_normalisation_is_that_of_the_feature_extractor(tmp_path, equality):
    model = build("Wav2Vec2", ODD | LARGE, tmp_path, equality)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    extractor.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path, padding="reference")
    assert encoder.config.normalize_waveform
    waveforms = 5 + 3 * equality.batch(equality.LENGTHS)
    lengths = torch.tensor(equality.LENGTHS)
    rows = [row[:length].numpy() for row, length in zip(waveforms, equality.LENGTHS)]
    inputs = extractor(rows, sampling_rate=16000, return_tensors="pt", padding=True)
    with torch.no_grad():
        theirs = states_of(model(**inputs, output_hidden_states=True))
        ours = encoder(waveforms, lengths).hidden_states
    # The extractor divides by sqrt(variance + 1e-7), a layer norm by sqrt(variance + 1e-5).
    assert equality.worst_error(ours, theirs, encoder.num_frames(lengths).tolist()) <= equality.TOLERANCE
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False)
    extractor.save_pretrained(tmp_path)
    assert not load_encoder(tmp_path).config.normalize_waveform


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        (
            "model_type",
            "bert",
            "model_type is 'bert'; this package reads wav2vec2, hubert, wavlm, data2vec-audio",
        ),
        ("hidden_act", "silu", "hidden_act is 'silu'; this encoder knows gelu"),
        ("add_adapter", True, "add_adapter is True; this encoder knows only False"),
        ("layer_norm_eps", 1e-3, "layer_norm_eps is 0.001"),
        ("num_attention_heads", 5, "embed_dim 36 is not divisible by num_heads"),
        ("hidden_size", "many", "an option has the wrong type"),
        ("hidden_size", 48, r"the weights do not fit .*encoder.layer_norm.bias has shape \(36,\), expected \(48,\)"),
        ("num_hidden_layers", 2, "unknown: encoder.layers.2.attention.k_proj.bias"),
        ("num_hidden_layers", 4, "missing: encoder.layers.3.attention.k_proj.bias"),
        ("conv_dim", [24], "conv_dim, conv_kernel, conv_stride have different lengths"),
    ],
)
def test_what_does_not_fit_is_named(option, value, message, tmp_path, equality):
    build("Hubert", ODD, tmp_path, equality)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, option: value}))
    with pytest.raises(ValueError, match=message) as caught:
        read_checkpoint(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_incomplete_folders(tmp_path, equality):
    build("Hubert", ODD, tmp_path, equality)
    (tmp_path / "model.safetensors").rename(tmp_path / "kept")
    with pytest.raises(
        ValueError, match=r"has a config.json but no weights; expected model.safetensors or pytorch_model"
    ):
        read_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "kept").read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model.safetensors cannot be read as safetensors; is the download complete"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "kept").rename(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"config.json is not JSON"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"without its config.json"):
        read_checkpoint(tmp_path / "model.safetensors")


def test_weights_that_are_not_numbers(tmp_path, equality):
    model = build("Hubert", ODD, tmp_path, equality)
    with torch.no_grad():
        model.encoder.layers[1].feed_forward.output_dense.bias[3] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"not finite numbers, in encoder.layers.1.feed_forward.output_dense.bias$"):
        read_checkpoint(tmp_path)


def test_transformers_is_not_imported(tmp_path, equality):
    build("WavLM", ODD, tmp_path, equality)
    program = "import sys; from robustdistiller.upstream import load_encoder; load_encoder(sys.argv[1]); "
    program += "sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 0
