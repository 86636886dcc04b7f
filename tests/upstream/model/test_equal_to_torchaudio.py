"""State dicts of torchaudio's factory models, and pruned models in DPHuBERT's layout built from its modules."""

from functools import partial

import pytest
import torch
from torch import nn
from torchaudio.models import hubert_pretrain_model, wav2vec2_model, wavlm_model

from robustdistiller.upstream import load_encoder, read_checkpoint

CONV = [(24, 10, 5), *[(24, 3, 2)] * 4, *[(24, 2, 2)] * 2]
SMALL = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": CONV,
    "extractor_conv_bias": False,
    "encoder_embed_dim": 36,
    "encoder_projection_dropout": 0.1,
    "encoder_pos_conv_kernel": 17,
    "encoder_pos_conv_groups": 4,
    "encoder_num_layers": 3,
    "encoder_num_heads": 3,
    "encoder_attention_dropout": 0.1,
    "encoder_ff_interm_features": 50,
    "encoder_ff_interm_dropout": 0.1,
    "encoder_dropout": 0.1,
    "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.05,
    "aux_num_out": None,
}
LARGE = {"extractor_mode": "layer_norm", "extractor_conv_bias": True, "encoder_layer_norm_first": True}
RELATIVE = {"encoder_num_buckets": 32, "encoder_max_distance": 800}
SAME_WIDTH = {"extractor_conv_layer_config": [*CONV[:-1], (36, 2, 2)]}
CASES = {
    "wav2vec2": (wav2vec2_model, {}),
    "wav2vec2-large": (wav2vec2_model, LARGE),
    "wav2vec2-ctc": (wav2vec2_model, {"aux_num_out": 29}),
    "wav2vec2-same-width": (wav2vec2_model, SAME_WIDTH),
    "wav2vec2-even-kernel": (wav2vec2_model, {"encoder_pos_conv_kernel": 16}),
    "wavlm": (wavlm_model, RELATIVE),
    "wavlm-large": (wavlm_model, RELATIVE | LARGE),
}


def build(name, equality):
    factory, options = CASES[name]
    return equality.randomise(factory(**{**SMALL, **options}))


@torch.no_grad()
def states(model, waveforms, lengths):
    """The input of the first layer, every layer, the last one layer-normed in Large models (as in fairseq)."""
    inputs = []
    layer = model.encoder.transformer.layers[0]
    hook = layer.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    found = model.extract_features(waveforms, lengths)[0]
    hook.remove()
    if not model.encoder.transformer.layer_norm_first:
        found = [*found[:-1], model.encoder.transformer.layer_norm(found[-1])]
    return [inputs[0], *found]


@torch.no_grad()
def error(model, encoder, lengths, equality):
    waveforms, lengths = equality.batch(lengths), torch.tensor(lengths)
    ours = encoder(waveforms, lengths).hidden_states
    single = len(lengths) == 1  # torchaudio's WavLM has no padding mask
    return equality.worst_error(
        ours, states(model, waveforms, None if single else lengths), encoder.num_frames(lengths).tolist()
    )


def check(model, path, equality, label, **overrides):
    encoder = load_encoder(path, padding="reference", normalize_waveform=False, **overrides)
    single = error(model, encoder, equality.LENGTHS[:1], equality)
    masks = not encoder.config.relative_position
    padded = error(model, encoder, equality.LENGTHS, equality) if masks else None
    print(f"{label}: single {single:.1e}, padded {padded}, {encoder.count_parameters()} parameters")
    assert single <= equality.TOLERANCE and (padded is None or padded <= equality.TOLERANCE)
    alone = load_encoder(path, normalize_waveform=False, **overrides)
    waveforms, lengths = equality.batch(equality.LENGTHS), torch.tensor(equality.LENGTHS)
    with torch.no_grad():
        together = alone(waveforms, lengths).hidden_states
    for row, length in enumerate(equality.LENGTHS):  # padded: each row is what the original makes of it alone
        theirs = states(model, waveforms[row : row + 1, :length], None)
        ours = [state[row : row + 1] for state in together]
        assert equality.worst_error(ours, theirs, [alone.num_frames(length)]) <= equality.TOLERANCE
    return encoder


@pytest.mark.parametrize("name", CASES)
def test_bare_state_dict(name, tmp_path, equality):
    model = build(name, equality)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    encoder = check(model, tmp_path / "model.pt", equality, f"torchaudio {name}", num_heads=3)
    found = read_checkpoint(tmp_path / "model.pt", num_heads=3)
    large = "large" in name
    assert (found.format, found.config.norm_first, found.config.normalize_waveform) == ("torchaudio", large, large)
    assert encoder.config.position_kernel == model.encoder.transformer.pos_conv_embed.kernel_size
    if "ctc" not in name:
        assert encoder.count_parameters() == sum(parameter.numel() for parameter in model.parameters())


def test_pretraining_model(tmp_path, equality):
    options = {**SMALL, "mask_prob": 0.8, "mask_selection": "static", "mask_other": 0.0, "mask_length": 10}
    options |= {"no_mask_overlap": False, "mask_min_space": 1, "mask_channel_prob": 0.0, "final_dim": 8}
    options |= {"mask_channel_selection": "static", "mask_channel_other": 0.0, "mask_channel_length": 10}
    options |= {"no_mask_channel_overlap": False, "mask_channel_min_space": 1, "skip_masked": False}
    options |= {"skip_nomask": False, "num_classes": 5, "feature_grad_mult": 0.1}
    options.pop("aux_num_out")
    model = equality.randomise(hubert_pretrain_model(**options))
    torch.save(model.state_dict(), tmp_path / "model.pt")
    check(model.wav2vec2, tmp_path / "model.pt", equality, "torchaudio hubert pre-training", num_heads=3)


def test_heads_that_the_file_does_not_tell(tmp_path, equality):
    torch.save(build("wav2vec2", equality).state_dict(), tmp_path / "model.pt")
    with pytest.raises(
        ValueError, match=r"model.pt: the file does not say how many attention heads a width of 36 has: give num"
    ):
        read_checkpoint(tmp_path / "model.pt")
    wide = {"encoder_embed_dim": 128, "encoder_num_heads": 2}
    model = equality.randomise(wav2vec2_model(**{**SMALL, **wide}))
    torch.save(model.state_dict(), tmp_path / "wide.pt")
    assert load_encoder(tmp_path / "wide.pt").config.heads == (2, 2, 2)
    assert error(model, load_encoder(tmp_path / "wide.pt", padding="reference"), (9311, 8000), equality) <= 1e-5
    torch.save(build("wavlm", equality).state_dict(), tmp_path / "wavlm.pt")
    assert load_encoder(tmp_path / "wavlm.pt").config.heads == (3, 3, 3)  # the gate's width tells


@pytest.mark.parametrize("name", ["wav2vec2-large", "wavlm"])
def test_every_weight_matters_to_the_comparison(name, tmp_path, equality):
    model = build(name, equality)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    encoder = load_encoder(tmp_path / "model.pt", num_heads=3, normalize_waveform=False, padding="reference")
    waveforms = equality.batch((4000,))
    theirs = states(model, waveforms, None)

    def error():
        return equality.worst_error(encoder(waveforms).hidden_states, theirs, [12])

    assert error() <= equality.TOLERANCE
    assert equality.unnoticed_mutations(encoder, error) == []


def shrink(attention, heads, head_dim, dim):
    """Give torchaudio's attention another number of heads of the same width."""
    attention.num_heads, attention.head_dim, attention.scaling = heads, head_dim, head_dim**-0.5
    for name in ("q_proj", "k_proj", "v_proj"):
        setattr(attention, name, nn.Linear(dim, heads * head_dim))
    attention.out_proj = nn.Linear(heads * head_dim, dim)


class Nothing(nn.Module):
    """A part that was pruned away. DPHuBERT then keeps the layer's norms and residuals."""

    def forward(self, x, *_, **__):
        return torch.zeros_like(x), None


class Scaled(nn.Module):
    """DPHuBERT's extractor: one factor per channel on the output."""

    def __init__(self, extractor):
        super().__init__()
        self.conv_layers = extractor.conv_layers
        self.dummy_weight = nn.Parameter(torch.ones(extractor.conv_layers[-1].conv.out_channels))
        self.extract = [extractor]

    def forward(self, x, length):
        x, length = self.extract[0](x, length)
        return x * self.dummy_weight, length


PRUNED_CONV = [(9, 10, 5), (13, 3, 2), (24, 3, 2), (7, 3, 2), (11, 3, 2), (8, 2, 2), (15, 2, 2)]
PRUNED = {
    "encoder_num_heads": [2, 0, 1],
    "encoder_use_attention": [True, False, True],
    "encoder_use_feed_forward": [True, True, False],
    "encoder_ff_interm_features": [31, 5, 0],
}


def pruned_hubert(equality, **options):
    """torchaudio's modules at pruned sizes, and the file that DPHuBERT would write."""
    cfg = {**SMALL, **options, "extractor_conv_layer_config": PRUNED_CONV}
    model = wav2vec2_model(**cfg)
    for index, layer in enumerate(model.encoder.transformer.layers):
        shrink(layer.attention, PRUNED["encoder_num_heads"][index] or 1, 12, 36)
        feed, width = layer.feed_forward, PRUNED["encoder_ff_interm_features"][index] or 1
        feed.intermediate_dense, feed.output_dense = nn.Linear(36, width), nn.Linear(width, 36)
    model.feature_extractor = Scaled(model.feature_extractor)
    model = equality.randomise(model)
    layers = model.encoder.transformer.layers
    layers[1].attention = Nothing()
    layers[2].feed_forward = type("Nothing", (nn.Module,), {"forward": lambda self, x: torch.zeros_like(x)})()
    gates = ("extractor_prune_conv_channels", "encoder_prune_attention_heads", "encoder_prune_attention_layer")
    cfg |= {**PRUNED, "encoder_head_dim": 12, "normalize_waveform": False, **dict.fromkeys(gates, False)}
    projections = {"0.weight": torch.eye(36), "0.bias": torch.zeros(36)}
    return model, {"state_dict": model.state_dict(), "config": cfg, "distill_linear_projs": projections}


@pytest.mark.parametrize("options", [{}, LARGE], ids=["base", "large"])
def test_dphubert(options, tmp_path, equality):
    model, content = pruned_hubert(equality, **options)
    torch.save(content, tmp_path / "pruned.pth")
    encoder = check(model, tmp_path / "pruned.pth", equality, "dphubert")
    assert encoder.config.heads == (2, 0, 1) and encoder.config.ffn_dims == (31, 5, 0)
    assert encoder.count_parameters() == sum(value.numel() for value in content["state_dict"].values())
    assert encoder.config.starts_projected
    with torch.no_grad():
        encoder.extractor.scale[0] += 0.1
    assert error(model, encoder, (8000,), equality) > equality.TOLERANCE


REMAINING = [[0, 2], [], [1]]


def pruned_wavlm(equality):
    """A whole torchaudio WavLM whose pruned heads say nothing, and the DPWavLM file of what remains."""
    model = equality.randomise(wavlm_model(**{**SMALL, **RELATIVE}))
    weights = {}
    with torch.no_grad():
        for index, layer in enumerate(model.encoder.transformer.layers):
            out = layer.attention.attention.out_proj
            silent = [c for head in range(3) if head not in REMAINING[index] for c in range(head * 12, head * 12 + 12)]
            out.weight[:, silent] = 0
            if not REMAINING[index]:
                out.bias.zero_()
    for name, value in model.state_dict().items():
        weights[name] = value.clone()
    for index, heads in enumerate(REMAINING):
        prefix = f"encoder.transformer.layers.{index}.attention."
        kept = [c for head in heads for c in range(head * 12, head * 12 + 12)]
        for kind in ("weight", "bias"):
            parts = weights.pop(f"{prefix}attention.in_proj_{kind}").chunk(3)
            weights |= {f"{prefix}{name}_proj.{kind}": part[kept] for name, part in zip("qkv", parts)}
        weights[f"{prefix}out_proj.weight"] = weights.pop(f"{prefix}attention.out_proj.weight")[:, kept]
        weights[f"{prefix}out_proj.bias"] = weights.pop(f"{prefix}attention.out_proj.bias")
        if not heads:
            weights = {name: value for name, value in weights.items() if not name.startswith(prefix)}
    weights["feature_extractor.dummy_weight"] = torch.ones(24)
    cfg = {**SMALL, **RELATIVE, "encoder_total_num_heads": [3, 3, 3], "encoder_remaining_heads": REMAINING}
    cfg |= {"encoder_use_attention": [True, False, True], "encoder_use_feed_forward": [True] * 3}
    cfg |= {"encoder_ff_interm_features": [50] * 3, "normalize_waveform": False}
    cfg.pop("encoder_num_heads")
    return model, {"state_dict": weights, "config": cfg}


def test_dpwavlm(tmp_path, equality):
    model, content = pruned_wavlm(equality)
    torch.save(content, tmp_path / "pruned.pth")
    encoder = check(model, tmp_path / "pruned.pth", equality, "dpwavlm")
    assert encoder.config.heads == (2, 0, 1) and encoder.config.bias_columns == ((0, 2), (), (1,))
    assert encoder.count_parameters() == sum(value.numel() for value in content["state_dict"].values())
    with torch.no_grad():
        encoder.transformer.layers[2].attention.gate.scale[0, 1] += 0.3
    assert error(model, encoder, (8000,), equality) > equality.TOLERANCE


def test_the_factors_on_the_features_are_counted():
    """The unpruned layout of DPHuBERT's code counts what torchaudio counts, plus 512 factors on the features."""
    from robustdistiller.upstream import EncoderConfig, SpeechEncoder

    with torch.device("meta"):
        base = SpeechEncoder(EncoderConfig(feature_scale=True)).count_parameters()
    assert base == 94_371_712 - 768 + 512


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["config"].pop("encoder_num_heads"), "the checkpoint lacks 'encoder_num_heads'"),
        (
            lambda c: c["config"].update(encoder_prune_attention_heads=True),
            "not pruned yet .encoder_prune_attention_heads",
        ),
        (lambda c: c["config"].update(encoder_num_heads=None), "an option has the wrong type"),
        (
            lambda c: c["config"].update(encoder_ff_interm_features=[31, 5, 9], encoder_use_feed_forward=[True] * 3),
            "missing: ",
        ),
        (
            lambda c: c["config"].update(encoder_num_heads=[2, 0, 2]),
            r"attention.k_proj.bias has shape \(12,\), expected \(24,\)",
        ),
        (lambda c: c["state_dict"].update(surprise=torch.ones(1)), "unknown: surprise"),
        (lambda c: c.update(config=None), "'config' should be a dictionary of options, found NoneType"),
    ],
)
def test_what_does_not_fit_is_named(change, message, tmp_path, equality):
    _, content = pruned_hubert(equality)
    change(content)
    torch.save(content, tmp_path / "pruned.pth")
    with pytest.raises(ValueError, match=message) as caught:
        read_checkpoint(tmp_path / "pruned.pth")
    assert "pruned.pth: " in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("bundle", ["WAV2VEC2_BASE", "HUBERT_LARGE", "WAVLM_BASE_PLUS", "WAVLM_LARGE"])
def test_shapes_of_the_published_models(bundle, tmp_path, equality):
    """Heads and norms of torchaudio's own bundles are inferred from the weights alone (random weights, full size)."""
    import torchaudio

    bundle = getattr(torchaudio.pipelines, bundle)
    build = wavlm_model if "encoder_num_buckets" in bundle._params else wav2vec2_model
    model = equality.randomise(build(**bundle._params))
    torch.save(model.state_dict(), tmp_path / "model.pt")
    assert read_checkpoint(tmp_path / "model.pt").config.normalize_waveform == bundle._normalize_waveform
    encoder = load_encoder(tmp_path / "model.pt", padding="reference", normalize_waveform=False)
    check = partial(error, model, encoder, equality=equality)
    assert check((8000,)) <= 1e-5
