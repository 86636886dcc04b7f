"""FitHuBERT's and SEW's files: the same hidden states as other implementations of what their papers and code say."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustdistiller.upstream import load_encoder, read_checkpoint
from robustdistiller.upstream.checkpoints.export import export_checkpoint
from robustdistiller.upstream.checkpoints.formats.base import NotExportable

#: An odd and an even number of frames, each with padded rows of both kinds.
BATCHES = ((16_000,), (16_320,), (24_077, 16_000, 9_311), (24_400, 9_631))


class FitHuBERT(nn.Module):
    """Squeezed extractor, norm, projection, position, norm, a convolution that halves time, post-norm layers."""

    conv_layers = ((12, 10, 5), (20, 1, 1), *((20, 3, 2),) * 4, (28, 1, 1), *((28, 2, 2),) * 2)

    def __init__(self, dim=36, heads=3, layers=2, position=16):
        super().__init__()
        self.heads = heads
        inputs, blocks = 1, []
        for number, (channels, kernel, stride) in enumerate(self.conv_layers):
            conv = nn.Conv1d(inputs, channels, kernel, stride, bias=False)
            norm = [nn.Dropout(0.0), nn.GroupNorm(channels, channels)] if number == 0 else []
            blocks.append(nn.Sequential(conv, *norm))
            inputs = channels
        self.feature_extractor = nn.Module()
        self.feature_extractor.conv_layers = nn.ModuleList(blocks)
        self.layer_norm, self.post_extract_proj = nn.LayerNorm(28), nn.Linear(28, dim)
        self.encoder = nn.Module()
        conv = nn.Conv1d(dim, dim, position, padding=position // 2, groups=4)
        self.encoder.pos_conv = nn.Sequential(nn.utils.parametrizations.weight_norm(conv, dim=2))
        self.encoder.layer_norm = nn.LayerNorm(dim)
        self.encoder.layers = nn.ModuleList(
            [nn.Conv1d(dim, dim, 2, stride=2), *(self.layer(dim) for _ in range(layers))]
        )

    @staticmethod
    def layer(dim):
        layer = nn.Module()
        layer.self_attn = nn.ModuleDict({f"{part}_proj": nn.Linear(dim, dim) for part in ("q", "k", "v", "out")})
        layer.self_attn_layer_norm, layer.final_layer_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        layer.fc1, layer.fc2 = nn.Linear(dim, 40), nn.Linear(40, dim)
        return layer

    def forward(self, waveforms, lengths):
        x = waveforms[:, None]
        for block in self.feature_extractor.conv_layers:
            x = F.gelu(block(x))
        x = self.post_extract_proj(self.layer_norm(x.transpose(1, 2)))
        hidden = torch.arange(x.shape[1]) >= ((lengths - 400) // 320 + 1)[:, None]
        x = x.masked_fill(hidden[..., None], 0.0)
        x = x + F.gelu(self.encoder.pos_conv(x.transpose(1, 2))[..., :-1]).transpose(1, 2)
        x = self.encoder.layer_norm(x)
        joins, *layers = self.encoder.layers
        x = joins(x.transpose(1, 2)).transpose(1, 2)
        pairs = hidden[:, : x.shape[1] * 2].unflatten(1, (-1, 2)).any(-1)
        states = []
        for layer in layers:
            q, k, v = (
                layer.self_attn[f"{part}_proj"](x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in "qkv"
            )
            logits = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
            weights = logits.masked_fill(pairs[:, None, None], float("-inf")).softmax(-1)
            x = layer.self_attn_layer_norm(x + layer.self_attn["out_proj"]((weights @ v).transpose(1, 2).flatten(2)))
            x = layer.final_layer_norm(x + layer.fc2(F.gelu(layer.fc1(x))))
            states.append(x)
        return states


@torch.no_grad()
@pytest.mark.parametrize("lengths", BATCHES)
def test_fithubert(tmp_path, equality, lengths):
    model = equality.randomise(FitHuBERT())
    weights = {f"student_model.{name}": value for name, value in model.state_dict().items()}
    maps = {"proj_head.0.upsampler.weight": (36, 36, 2), "proj_head.0.lin_proj.weight": (40, 36)}
    maps |= {"upsampler.weight": (36, 36, 2), "upsampler.bias": (36,)}
    weights |= {f"student_model.{name}": torch.zeros(shape) for name, shape in maps.items()}
    torch.save({"state_dict": weights, "epoch": 99}, tmp_path / "student.ckpt")
    checkpoint = read_checkpoint(tmp_path / "student.ckpt", num_heads=3)
    assert checkpoint.is_student and checkpoint.config.squeeze == 2 and checkpoint.config.num_layers == 2
    encoder = load_encoder(tmp_path / "student.ckpt", padding="reference", num_heads=3)
    waveforms, lengths = equality.batch(lengths), torch.tensor(lengths)
    output = encoder(waveforms, lengths)
    expected = model(waveforms, lengths)
    assert output.hidden_states[1].shape[1] == (max(lengths) - 400) // 320 + 1
    pairs = [int(frames) // 2 for frames in output.frame_lengths]
    for first in (0, 1):
        found = [state[:, first::2] for state in output.hidden_states[1:]]
        assert equality.worst_error(found, expected, pairs) <= equality.TOLERANCE
    for row, frames in enumerate(output.frame_lengths.tolist()):  # in our own mode a batch changes nothing
        alone = load_encoder(tmp_path / "student.ckpt", num_heads=3)(waveforms[row : row + 1, : lengths[row]])
        if frames % 2 == 0:
            error = (alone.hidden_states[-1][0] - output.hidden_states[-1][row, :frames]).abs().max()
            assert len(lengths) > 1 or error < 1e-4  # the released way normalises over padding


@torch.no_grad()
@pytest.mark.parametrize("lengths", BATCHES)
@pytest.mark.parametrize("options", [{}, {"hidden_size": 24}, {"feat_extract_norm": "layer", "squeeze_factor": 3}])
def test_sew(tmp_path, equality, lengths, options):
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 36, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 50}
    small |= {"conv_dim": (8, *(12,) * 4, *(16,) * 4, *(24,) * 4), "num_conv_pos_embedding_groups": 4}
    small |= {"num_conv_pos_embeddings": 16}
    model = equality.randomise(transformers.SEWModel(transformers.SEWConfig(**{**small, **options})))
    model.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path, padding="reference", normalize_waveform=False)
    assert encoder.config.squeeze == options.get("squeeze_factor", 2)
    waveforms, lengths = equality.batch(lengths), torch.tensor(lengths)
    mask = (torch.arange(waveforms.shape[1]) < lengths[:, None]).long()
    expected = model(waveforms, attention_mask=mask).last_hidden_state
    output = encoder(waveforms, lengths)
    frames = output.frame_lengths.tolist()
    assert equality.worst_error(output.hidden_states[-1:], [expected], frames) <= equality.TOLERANCE
    if len(lengths) == 1 and frames[0] % encoder.config.squeeze == 0:
        ours = load_encoder(tmp_path, normalize_waveform=False)(waveforms)
        assert equality.worst_error(ours.hidden_states[-1:], [expected], frames) <= equality.TOLERANCE


def test_they_are_not_written_as_what_they_are_not(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.SEWConfig(hidden_size=36, num_hidden_layers=1, num_attention_heads=3, intermediate_size=50,
                                    num_conv_pos_embedding_groups=4)  # fmt: skip
    transformers.SEWModel(config).save_pretrained(tmp_path / "sew")
    for to in ("s3prl", "huggingface", "torchaudio", "dphubert"):
        with pytest.raises(NotExportable, match="joins 2 frames to one"):
            export_checkpoint(tmp_path / "sew", tmp_path / "out", to)
