"""An upstream that would break a head is found with two short noises, and the sentence says where."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint
from robustdistiller.upstream.checkpoints.export import export_checkpoint
from robustdistiller.upstream.contract import ContractError, check_upstream, examine, require

pytestmark = pytest.mark.usefixtures("bridge")


class Upstream(nn.Module):
    """Mean level and energy of each 20 ms, as two hidden states; each argument breaks one rule."""

    def __init__(self, **broken) -> None:
        super().__init__()
        self.broken = broken

    def get_downsample_rates(self, key):
        return self.broken.get("rate", 320)

    def forward(self, waveforms):
        padded = nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
        if padded.shape[1] <= 800 and self.broken.get("long_only"):
            raise RuntimeError("kernel size can't be greater than input size")
        frames = padded[:, : padded.shape[1] // 320 * 320].unflatten(1, (-1, 320))
        level = torch.stack([frames.abs().mean(-1), frames.square().mean(-1)], dim=-1)
        change = self.broken.get("output")
        return change(level) if change else {"hidden_states": [level, 2 * level]}


def of(change):
    return {"output": lambda level: {"hidden_states": change(level)}}


def test_a_sound_upstream_has_nothing_to_complain_of():
    findings = examine(Upstream())
    assert [f.name for f in findings] == ["rate", "output", "repeats", "batch", "50 ms", "silence"]
    assert all(f.ok for f in findings)
    assert findings[1].found == "2 hidden states of 2 features, 50 frames a second"
    require(findings)
    assert all(f.ok for f in examine(Upstream(rate=np.prod([5, 2, 2, 2, 2, 2, 2])))), "numbers of numpy are numbers"


@pytest.mark.parametrize(
    ("broken", "name", "message"),
    [
        ({"rate": "320"}, "rate", "gives '320'; expected samples per frame"),
        ({"rate": float("inf")}, "rate", "gives inf; expected samples per frame"),
        ({"rate": 160}, "frames", "50 frames for 16000 samples; expected 100, as its rate of 160"),
        ({"output": lambda x: x}, "types", "forward gives a Tensor; expected a dict with hidden_states"),
        ({"output": lambda x: {"feats": x}}, "types", r"a dict with keys \['feats'\]"),
        ({"output": lambda x: {"feats": x, 1: x}}, "types", r"a dict with keys \['1', 'feats'\]"),
        (of(lambda x: []), "types", "hidden_states is a list without entries"),
        (of(lambda x: [(x,)]), "types", r"hidden_states\[0\] is a tuple; expected a floating-point tensor"),
        (of(lambda x: [x.long()]), "types", "a tensor of torch.int64"),
        (of(lambda x: [x.transpose(0, 1)]), "shapes", r"has shape \(50, 2, 2\); expected \(2, frames, features\)"),
        (of(lambda x: [x, x[..., :1]]), "shapes", "expected equal ones"),
        (of(lambda x: [x * float("nan")]), "values", "not finite"),
        (of(lambda x: [x + torch.rand_like(x)]), "repeats", "is dropout on"),
        (of(lambda x: [x.flip(0)]), "batch", "are utterances mixed up"),
        ({"long_only": True}, "50 ms", "RuntimeError: kernel size can't be greater"),
    ],
)
def test_each_broken_rule_has_its_sentence(broken, name, message):
    findings = examine(Upstream(**broken))
    assert findings[-1].name == name and not findings[-1].ok
    with pytest.raises(ContractError, match=message):
        require(findings)


def test_padding_that_leaks_is_advice_and_no_obstacle():
    findings = examine(Upstream(**of(lambda x: [x + 0.05 * x.mean((1, 2), keepdim=True)])))
    (batch,) = [f for f in findings if f.name == "batch"]
    assert not batch.ok and not batch.required and "scores depend on the batch size" in batch.found
    require(findings)


def test_silence_that_gives_no_numbers_is_advice_and_no_obstacle():
    findings = examine(Upstream(**of(lambda x: [x / x.amax((1, 2), keepdim=True)])))
    assert findings[-1].name == "silence" and not findings[-1].ok and "digital silence" in findings[-1].found
    assert all(one.ok for one in findings[:-1])
    require(findings)


def test_a_real_student_and_entries_that_are_none(toy_student):
    assert all(f.ok for f in check_upstream("robustdistiller_local", str(toy_student)))
    (finding,) = check_upstream("robustdistiler_local")
    assert "did you mean 'robustdistiller_local'" in finding.found
    (finding,) = check_upstream("robustdistiller_local", "nowhere.ckpt")
    assert finding.found.startswith("checkpoint nowhere.ckpt: expected a file or folder, found nothing there")
    (finding,) = check_upstream("robustdistiller_local")
    assert "robustdistiller_local needs a model: give -k NAME" in finding.found


SHAPE = {"embed_dim": 24, "num_layers": 2, "num_heads": 2, "ffn_dim": 32, "position_kernel": 8, "position_groups": 4}
SHAPE |= {"conv_layers": ((16, 10, 5), *((16, 3, 2),) * 4, *((16, 2, 2),) * 2), "reference_mask": "block"}


@pytest.mark.parametrize(
    ("entry", "target", "name"),
    [
        ("robustdistiller_local", "huggingface", "student-v1.2"),  # a folder whose name looks like a file's
        ("robustdistiller_local", "huggingface", "run 3/lr=0.01,step=8"),
        ("hubert_local", "s3prl", "hubert.v2.pt"),  # s3prl's own, whose hidden states come from hooks
    ],
)
def test_checkpoints_of_any_name_and_upstreams_of_hooks(entry, target, name, tmp_path):
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "own.ckpt", SpeechEncoder(EncoderConfig(**SHAPE)), {})
    path = export_checkpoint(tmp_path / "own.ckpt", tmp_path / name, target).path
    findings = check_upstream(entry, str(path))
    require(findings)
    assert [one.name for one in findings] == ["rate", "output", "repeats", "batch", "50 ms", "silence"]
    assert findings[1].found.startswith("3 hidden states of 24 features")
