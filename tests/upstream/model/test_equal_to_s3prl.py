"""Our one encoder computes what the four implementations it replaces compute.

Each s3prl module is built with random weights, saved in its own file format, read back by ours, and compared on a
single utterance and on a padded batch (valid frames of every hidden state).
"""

import argparse
import contextlib
import io

import pytest
import torch

from robustdistiller.upstream import load_encoder

CONV = "[(24,10,5)] + [(24,3,2)] * 4 + [(24,2,2)] * 2"
SMALL = {"encoder_layers": 3, "encoder_embed_dim": 36, "encoder_ffn_embed_dim": 50, "encoder_attention_heads": 3}
SMALL |= {"conv_pos": 17, "conv_pos_groups": 4, "conv_feature_layers": CONV}
LARGE_STYLE = {"extractor_mode": "layer_norm", "layer_norm_first": True, "conv_bias": True}
RELATIVE = {"relative_position_embedding": True, "gru_rel_pos": True, "num_buckets": 32, "max_distance": 40}
HEADLESS = {"task_emb_type": "self-hidden", "out_layer_type": "self-hidden"}
LENGTHS = (24077, 16000, 9311)
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomise(model):
    """Give every parameter a say: initialisation leaves norms at 1, biases at 0, frames alike, attention uniform."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() == 1 or "grep" in name or "relative" in name:
                value.add_(torch.randn(value.shape, generator=generator) * 0.3)
            elif "self_attn" in name:
                value.mul_(1.5 / (value.std() * value.shape[1] ** 0.5))
            elif "post_extract_proj" in name:
                value.mul_(10)
    return model.eval()


def build_wavlm(path, **options):
    from s3prl.upstream.wavlm.WavLM import WavLM, WavLMConfig

    cfg = {**WavLMConfig().__dict__, **SMALL, **RELATIVE, **options}
    model = randomise(WavLM(WavLMConfig(cfg)))
    torch.save({"cfg": cfg, "model": model.state_dict()}, path)
    return model


def build_hubert(path, **options):
    from s3prl.upstream.hubert.hubert_model import HubertConfig, HubertModel, HubertPretrainingConfig

    cfg, task, symbols = {"label_rate": 50.0, **SMALL, **options}, {"normalize": False}, [["a", "b", "c"]]
    model = randomise(HubertModel(HubertConfig(**cfg), HubertPretrainingConfig(**task), symbols))
    state = {"task_cfg": task, "model_cfg": cfg, "model_weight": model.state_dict(), "dictionaries_symbols": symbols}
    torch.save(state, path)
    return model


def build_wav2vec2(path, **options):
    from s3prl.upstream.wav2vec2.wav2vec2_model import Wav2Vec2Config, Wav2Vec2Model

    cfg = {**SMALL, "quantize_targets": True, "latent_dim": 32, "final_dim": 32, **options}
    model = randomise(Wav2Vec2Model(Wav2Vec2Config(**cfg)))
    torch.save({"task_cfg": {"normalize": False}, "model_cfg": cfg, "model_weight": model.state_dict()}, path)
    return model


def build_data2vec(path, **options):
    from s3prl.upstream.data2vec.data2vec_model import Data2VecAudioConfig, Data2VecAudioModel

    # The real ones have 5 convolutions of width 95 // 5; these have 3 of an even width.
    cfg = {**SMALL, "extractor_mode": "layer_norm", "pos_conv_depth": 3, "conv_pos": 24, **options}
    model = Data2VecAudioModel(Data2VecAudioConfig(**cfg))
    model.remove_pretraining_modules()
    weights = {**randomise(model).state_dict(), "_ema": {"encoder.layers.0.fc1.bias": torch.zeros(50)}}
    torch.save({"task_cfg": {"normalize": False}, "model_cfg": cfg, "model_weight": weights}, path)
    return model


def build_distiller(path, heads=(4, 8, 12), final_dim=44, **options):
    from s3prl.upstream.distiller.model import DistillerConfig, DistillerModel

    cfg = {**SMALL, "encoder_layers": 2, "final_dim": final_dim, "n_tasks": len(heads), "pred_layer_id": list(heads)}
    cfg |= options
    cfg["extractor_conv_feature_layers"] = cfg.pop("conv_feature_layers")
    with contextlib.redirect_stdout(io.StringIO()):
        model = randomise(DistillerModel(DistillerConfig(cfg)))
    state = {
        "Distiller": model.state_dict(),
        "Config": {"distiller": cfg, "teacher": {"model": "wavlm"}, "enhancement_head": {"lambda": 2}},
        "Args": argparse.Namespace(upstream="robust_distiller", seed=1337),
        "Optimizer": torch.optim.AdamW(model.parameters()).state_dict(),
        "Step": 200000,
    }
    torch.save(state, path)
    return model


def padding_mask(lengths):
    return torch.arange(max(lengths))[None] >= torch.tensor(lengths)[:, None]


def fairseq_states(model, waveforms, lengths):
    """Hidden states as s3prl's experts collect them: the input of each layer, then the encoder's output."""
    states, hooks = [], []
    for layer in model.encoder.layers:
        hooks.append(layer.register_forward_pre_hook(lambda _, args: states.append(args[0].transpose(0, 1))))
    hooks.append(model.encoder.register_forward_hook(lambda _, args, output: states.append(output[0])))
    model.extract_features(waveforms, padding_mask(lengths), mask=False)
    for hook in hooks:
        hook.remove()
    return states


def distiller_states(model, waveforms, lengths):
    """Hidden states in the order of s3prl's Distiller expert."""
    mask = (~padding_mask(lengths)).float()
    _, projected, predictions, _, layers = model(waveforms, mask, get_hidden=True)
    predictions = [] if model.output_layer is None else predictions.unbind(1)
    return [projected, *layers, *predictions]


def batch(lengths, seed=7):
    generator = torch.Generator().manual_seed(seed)
    waveforms = torch.randn(len(lengths), max(lengths), generator=generator) * 0.3
    return waveforms.masked_fill(padding_mask(lengths), 0.0)


@torch.no_grad()
def max_relative_error(model, encoder, lengths):
    """Largest difference over the valid frames of all hidden states, relative to the largest value of each."""
    waveforms = batch(lengths)
    ours = encoder(waveforms, torch.tensor(lengths))
    distiller = hasattr(model, "output_layer")
    theirs = (distiller_states if distiller else fairseq_states)(model, waveforms, lengths)
    states = [ours.projected, *ours.hidden_states[1:], *ours.predictions] if distiller else ours.hidden_states
    assert len(states) == len(theirs)
    worst = 0.0
    for state, reference in zip(states, theirs):
        for row, frames in enumerate(encoder.num_frames(torch.tensor(lengths)).tolist()):
            a, b = state[row, :frames], reference[row, :frames]
            assert a.shape == b.shape and a.isfinite().all() and b.isfinite().all()
            worst = max(worst, ((a - b).abs().max() / b.abs().max()).item())
    return worst


CASES = {
    "wavlm": (build_wavlm, {}),
    "wavlm-large-style": (build_wavlm, LARGE_STYLE),
    "wavlm-ungated": (build_wavlm, {"gru_rel_pos": False}),
    "wavlm-no-bias": (build_wavlm, {"relative_position_embedding": False}),
    "hubert": (build_hubert, {}),
    "hubert-large-style": (build_hubert, LARGE_STYLE),
    "hubert-no-projection": (build_hubert, {"encoder_embed_dim": 24, "encoder_attention_heads": 4}),
    "hubert-tanh-gelu": (build_hubert, {"activation_fn": "gelu_accurate"}),
    "wav2vec2": (build_wav2vec2, {}),
    "wav2vec2-large-style": (build_wav2vec2, LARGE_STYLE),
    "data2vec": (build_data2vec, {}),
    "data2vec-large": (build_data2vec, {"layer_norm_first": True, "conv_bias": True}),
    "distiller": (build_distiller, {}),
    "distiller-headless": (build_distiller, {"heads": (0, 1, 2), **HEADLESS}),
    "distiller-one-head": (build_distiller, {"heads": (12,)}),
    "distiller-narrow-heads": (build_distiller, {"heads": (1, 5), "out_layer_inter_dim": 20}),
}
BASE = {
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "conv_feature_layers": "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
}
BASE_CASES = {
    "wavlm": (build_wavlm, BASE | {"encoder_layers": 12, "num_buckets": 320, "max_distance": 800}),
    "hubert": (build_hubert, BASE | {"encoder_layers": 12, "final_dim": 256}),
    "wav2vec2": (build_wav2vec2, BASE | {"encoder_layers": 12, "final_dim": 256, "latent_dim": 256}),
    "distiller": (build_distiller, BASE | {"encoder_layers": 2, "final_dim": 768}),
}


@pytest.mark.parametrize("name", CASES)
def test_equal_on_single_and_padded(name, tmp_path, record_property):
    build, options = CASES[name]
    model = build(tmp_path / "model.pt", **options)
    encoder = load_encoder(tmp_path / "model.pt", padding="reference")
    single = max_relative_error(model, encoder, LENGTHS[:1])
    padded = max_relative_error(model, encoder, LENGTHS)
    print(f"{name}: single {single:.1e}, padded {padded:.1e}")
    record_property("single", single)
    record_property("padded", padded)
    assert single <= TOLERANCE and padded <= TOLERANCE


@pytest.mark.parametrize("name", BASE_CASES)
def test_equal_at_base_size(name, tmp_path):
    build, options = BASE_CASES[name]
    model = build(tmp_path / "model.pt", **options)
    encoder = load_encoder(tmp_path / "model.pt", padding="reference")
    single = max_relative_error(model, encoder, (16000,))
    padded = max_relative_error(model, encoder, (16000, 9311))
    print(f"{name} at Base size: single {single:.1e}, padded {padded:.1e}")
    assert single <= TOLERANCE and padded <= TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_masked_mode_equals_each_utterance_alone(name, tmp_path):
    build, options = CASES[name]
    model = build(tmp_path / "model.pt", **options)
    encoder = load_encoder(tmp_path / "model.pt")
    for length in LENGTHS:
        assert max_relative_error(model, encoder, (length,)) <= TOLERANCE


@pytest.mark.parametrize("name", ["wavlm", "hubert", "wav2vec2", "data2vec", "distiller"])
def test_every_weight_matters_to_the_comparison(name, tmp_path):
    """Change one weight after another: the comparison must notice each."""
    build, options = CASES[name]
    model = build(tmp_path / "model.pt", **options)
    encoder = load_encoder(tmp_path / "model.pt", padding="reference")
    unnoticed = []
    for parameter_name, parameter in encoder.named_parameters():
        if parameter_name.endswith("k_proj.bias"):
            continue  # a bias on the keys moves all logits of a query alike
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.view(-1)[0] += 0.1
        if max_relative_error(model, encoder, (8000, 6000)) <= TOLERANCE:
            unnoticed.append(parameter_name)
        with torch.no_grad():
            parameter.copy_(kept)
    assert unnoticed == []


def test_reference_and_masked_modes_differ_on_padding(tmp_path):
    """The group norm of the replaced implementations sees the padding; ours does not. So the modes are two things."""
    model = build_hubert(tmp_path / "model.pt")
    assert max_relative_error(model, load_encoder(tmp_path / "model.pt"), LENGTHS) > 1e-3


def test_waveform_normalisation(tmp_path):
    from s3prl.upstream.hubert.expert import UpstreamExpert

    build_hubert(tmp_path / "model.pt", **LARGE_STYLE)
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    state["task_cfg"]["normalize"] = True
    torch.save(state, tmp_path / "model.pt")
    expert = UpstreamExpert(str(tmp_path / "model.pt")).eval()
    encoder = load_encoder(tmp_path / "model.pt", padding="reference")
    assert encoder.config.normalize_waveform
    waveforms = 5 + batch(LENGTHS)
    with torch.no_grad():
        theirs = expert([row[:length] for row, length in zip(waveforms, LENGTHS)])["hidden_states"]
        ours = encoder(waveforms, torch.tensor(LENGTHS)).hidden_states
    for a, b in zip(ours, theirs, strict=True):
        for row, frames in enumerate(encoder.num_frames(torch.tensor(LENGTHS)).tolist()):
            assert ((a[row, :frames] - b[row, :frames]).abs().max() / b.abs().max()).item() <= TOLERANCE
