"""The cache takes any frozen upstream of s3prl, and notices when it is another one: hooks, padding, code, precision."""

from __future__ import annotations

import importlib.util
import random
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from robustdistiller.eval.results.files import read_records
from robustdistiller.eval.run.cache.dependence import BATCH, PADDING, UTTERANCE, find_dependence
from robustdistiller.eval.run.cache.plan import CachePlan
from robustdistiller.eval.run.cache.pooling import reads_means_only
from robustdistiller.eval.run.head_checkpoint import read_checkpoint
from robustdistiller.eval.run.launcher import main
from robustdistiller.eval.run.run_info import identify_weights, upstream_code

pytestmark = pytest.mark.usefixtures("bridge")

CONV = "[(24,10,5)] + [(24,3,2)] * 4 + [(24,2,2)] * 2"
TINY = {"encoder_layers": 2, "encoder_embed_dim": 24, "encoder_ffn_embed_dim": 32, "encoder_attention_heads": 2}
TINY |= {"conv_pos": 16, "conv_pos_groups": 4, "conv_feature_layers": CONV}
RUNNER = {"config.runner.total_steps": 6, **{f"config.runner.{key}": 3 for key in ("eval_step", "save_step")}}


def hubert(path) -> None:
    from s3prl.upstream.hubert.hubert_model import HubertConfig, HubertModel, HubertPretrainingConfig

    config, task, symbols = {"label_rate": 50.0, **TINY}, {"normalize": False}, [["a", "b", "c"]]
    model = HubertModel(HubertConfig(**config), HubertPretrainingConfig(**task), symbols)
    about = {"task_cfg": task, "model_cfg": config, "dictionaries_symbols": symbols}
    torch.save({**about, "model_weight": model.state_dict()}, path)


def wav2vec2(path) -> None:
    from s3prl.upstream.wav2vec2.wav2vec2_model import Wav2Vec2Config, Wav2Vec2Model

    config = {**TINY, "extractor_mode": "layer_norm", "layer_norm_first": True}
    model = Wav2Vec2Model(Wav2Vec2Config(**config))
    torch.save({"task_cfg": {"normalize": True}, "model_cfg": config, "model_weight": model.state_dict()}, path)


def wavlm(path) -> None:
    from s3prl.upstream.wavlm.WavLM import WavLM, WavLMConfig

    config = {**WavLMConfig().__dict__, **TINY, "relative_position_embedding": True, "gru_rel_pos": True}
    torch.save({"cfg": config, "model": WavLM(WavLMConfig(config)).state_dict()}, path)


@pytest.mark.parametrize(
    ("build", "name", "code"),
    [
        (hubert, "hubert_custom", "IC"),
        (hubert, "hubert_custom", "ASR"),
        (wav2vec2, "wav2vec2_custom", "IC"),
        (wavlm, "wavlm_local", "ASR"),
    ],
)
def test_s3prls_own_upstreams_get_equal_heads_and_scores(build, name, code, toy_corpora, tmp_path, caplog) -> None:
    caplog.set_level("INFO")
    torch.manual_seed(0)
    build(tmp_path / "model.pt")
    settings = {**toy_corpora.build(code, tmp_path / "data"), **RUNNER}
    workers = toy_corpora.as_option({key: value for key, value in settings.items() if "num_workers" in key})
    options = ["--feature-cache", str(tmp_path / "cache")]
    states, scores, computed = {}, {}, {}
    for run, kept in {"stock": [], "cold": options, "warm": options}.items():
        folder = tmp_path / run
        new = ["-u", name, "-k", str(tmp_path / "model.pt"), "-d", code, "-p", str(folder)]
        assert main(["-m", "train", *new, "-o", toy_corpora.as_option(settings), *kept]) == 0
        caplog.clear()
        conditions = ["--condition", "clean", "--condition", "noise:snr_db=0,noise=white"]
        head = ["-e", str(folder / "states-6.ckpt"), "-o", workers]
        assert main(["-m", "evaluate", *head, *conditions, *kept]) == 0
        computed[run] = re.findall(r"features of (\d+) utterances computed for (\d+)", caplog.text)
        states[run] = read_checkpoint(folder / "states-6.ckpt")
        found = read_records(folder / "records")
        scores[run] = {record.condition: [metric.value for metric in record.metrics] for record in found}
        assert {record.status for record in found} == {"ok"} and len(found) == 2
    assert scores["cold"] == scores["warm"] == scores["stock"]
    for run in ("cold", "warm"):
        for part in ("Featurizer", "Downstream"):
            for key, value in states["stock"][part].items():
                assert torch.allclose(states[run][part][key].float(), value.float(), rtol=1e-4, atol=1e-5), key
    assert computed["stock"] == []
    ((again, asked),) = computed["warm"]
    assert int(asked) == 2 * int(again) > 0  # the clean half is known


class Hooked:
    """s3prl's way: what `forward` returns is nothing, hooks give the hidden states."""

    def __new__(cls, scale: float = 1.0) -> nn.Module:
        from s3prl.upstream.interfaces import UpstreamBase

        class HookedUpstream(UpstreamBase):
            def __init__(self) -> None:
                super().__init__()
                torch.manual_seed(0)
                self.layers = nn.ModuleList([nn.Linear(320, 8), nn.Linear(8, 8)])
                for index in range(2):
                    self.add_hook(f"self.layers[{index}]", lambda _, output: scale * output)

            def get_downsample_rates(self, key: str) -> int:
                return 320

            def forward(self, wavs):
                frames = nn.utils.rnn.pad_sequence([wav[: len(wav) // 320 * 320].view(-1, 320) for wav in wavs], True)
                self.layers[1](self.layers[0](frames))

        return HookedUpstream().eval()


class Plain(nn.Module):
    """Frames of 320 samples, after something that may look at more than the utterance."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change = change

    def get_downsample_rates(self, key: str) -> int:
        return 320

    def forward(self, wavs):
        wavs = [wav[: len(wav) // 320 * 320] for wav in wavs]
        return {"hidden_states": [self.change(nn.utils.rnn.pad_sequence(wavs, True)).unflatten(1, (-1, 320))]}


def opened(upstream, folder, plan=None, **options):
    from s3prl.upstream.interfaces import Featurizer

    featurizer = Featurizer(upstream, upstream_device="cpu")
    plan = plan or CachePlan(str(folder))
    return plan.open(upstream, featurizer, SimpleNamespace(), {"upstream": "toy"}, "cpu", **options), featurizer


def noise(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, generator=generator) for length in lengths]


def test_hooks_fire(tmp_path) -> None:
    upstream = Hooked()
    wavs = noise(6400, 3200)
    cached, featurizer = opened(upstream, tmp_path)
    wanted = featurizer(wavs, upstream(wavs))
    for _ in range(2):
        found = featurizer(wavs, cached(wavs))
        assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    assert (cached.computed, cached.found) == (2, 2)


@pytest.mark.parametrize(
    ("change", "depends_on"),
    [
        (lambda batch: batch * 2, UTTERANCE),
        (lambda batch: batch / batch.shape[1] ** 0.5, PADDING),
        (lambda batch: batch / batch.std(), BATCH),
    ],
)
def test_features_are_exact_whatever_they_depend_on(change, depends_on, tmp_path) -> None:
    upstream = Plain(change)
    cached, featurizer = opened(upstream, tmp_path)
    assert cached.depends_on == depends_on
    one, two, three = noise(6400, 3200, 3200)
    for batch in ([one, two], [two, three], [one, three], [two], [three, one], [one, two]):
        wanted = featurizer(batch, upstream(batch))
        for found in (featurizer(batch, cached(batch)), featurizer(batch, cached(batch))):
            assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(found, wanted, strict=True))
    assert cached.found > cached.computed


@pytest.mark.parametrize(("padded", "depends_on"), [(0.0, UTTERANCE), (0.01, PADDING)])
def test_rounding_of_large_values_is_no_dependence(padded, depends_on) -> None:
    """As in Whisper, some of whose features are hundreds of times larger than the others."""

    def compute(wavs):
        found = [
            torch.randn(1, len(wav) // 320, 512, generator=torch.Generator().manual_seed(len(wav))) for wav in wavs
        ]
        for features, wav in zip(found, wavs):
            features[0, 3, 7] = 200 * (1 + 2e-6 * len(wavs))
            features[0, -1] *= 1 + padded * (len(wav) < max(map(len, wavs)))
        return found

    assert find_dependence(compute, "cpu") == depends_on


def test_a_featurizer_that_is_trained_on_several_gpus_is_looked_into(tmp_path) -> None:
    from s3prl.upstream.interfaces import Featurizer

    upstream, wavs = Hooked(), noise(6400, 3200)
    featurizer = Featurizer(upstream, upstream_device="cpu")
    spread = SimpleNamespace(module=featurizer)  # as DistributedDataParallel keeps it
    cached = CachePlan(str(tmp_path)).open(upstream, spread, SimpleNamespace(module=None), {"upstream": "toy"}, "cpu")
    assert torch.equal(cached(wavs)["hidden_states"][1][0], upstream(wavs)["hidden_states"][1][0])


def test_chance_is_not_cached(tmp_path, caplog) -> None:
    cached, _ = opened(Plain(lambda batch: batch + 0.1 * torch.randn(batch.shape)), tmp_path)
    assert cached is None and "differ by" in caplog.text and not list(tmp_path.iterdir())


def test_features_of_a_changed_forward_are_not_given(tmp_path, caplog) -> None:
    """Name, weights, options and versions are equal; what is computed is not."""
    wavs = noise(3200)
    before, _ = opened(Hooked(), tmp_path)
    old = before(wavs)["hidden_states"][1]
    after, _ = opened(Hooked(scale=1.01), tmp_path)
    assert torch.allclose(after(wavs)["hidden_states"][1], 1.01 * old)
    assert after.computed == 1 and "does not compute any more" in caplog.text
    again, _ = opened(Hooked(), tmp_path)  # and those of the old one are still there
    assert torch.equal(again(wavs)["hidden_states"][1], old) and again.computed == 0


def test_the_source_file_of_a_users_upstream_counts(tmp_path) -> None:
    def load(body: str):
        path = tmp_path / "own_upstream.py"
        path.write_text(f"import torch\nclass Own(torch.nn.Module):\n    def forward(self, wavs):\n        {body}\n")
        spec = importlib.util.spec_from_file_location("own_upstream", path)
        module = importlib.util.module_from_spec(spec)
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        spec.loader.exec_module(module)
        sys.dont_write_bytecode = before
        return module.Own()

    first = upstream_code(load("return {}"))
    assert len(first) == 64 and first == upstream_code(load("return {}"))
    assert first != upstream_code(load("return {'hidden_states': []}"))
    assert upstream_code(nn.Linear(2, 2)) == ""


def test_what_is_typed_into_a_notebook_counts() -> None:
    def typed(body: str, cell: int = 1):
        code = f"import torch\nclass Own(torch.nn.Module):\n    def forward(self, wavs):\n        {body}\n"
        names = {"__name__": "__main__"}
        exec(compile(code, f"/tmp/ipykernel_{cell}/{cell}.py", "exec"), names)
        return names["Own"]()

    first = upstream_code(typed("return [wavs, 'a' in {'a', 'b', 'c'}, lambda: 1]"))
    assert len(first) == 64 and first == upstream_code(
        typed("return [wavs, 'a' in {'c', 'b', 'a'}, lambda: 1]", cell=2)
    )
    for other in ("return [wavs, 'a' in {'a', 'b'}, lambda: 1]", "return [wavs, 'a' in {'a', 'b', 'c'}, lambda: 2]"):
        assert upstream_code(typed(other)) != first


@pytest.mark.parametrize("kind", ["buffers", "int8", "further state"])
def test_weights_of_any_kind_tell_systems_apart(kind) -> None:
    class Stated(nn.Module):
        def __init__(self, number: float) -> None:
            super().__init__()
            self.number = number

        def get_extra_state(self) -> dict[str, float]:
            return {"number": self.number}

    def model(number: float) -> nn.Module:
        if kind == "further state":
            return Stated(number)
        linear = nn.Linear(4, 4, bias=False)
        nn.init.constant_(linear.weight, number)
        if kind == "int8":
            return torch.ao.quantization.quantize_dynamic(nn.Sequential(linear), {nn.Linear})
        module = nn.Module()
        module.register_buffer("weight", linear.weight.detach())
        return module

    (one, how), (same, _), (other, _) = (identify_weights(model(number), None) for number in (0.5, 0.5, 0.7))
    assert one == same != other and how == "tensors"
    assert identify_weights(nn.ReLU(), None) == ("none", "none")


def test_features_of_half_precision_are_not_given_to_full_precision(tmp_path) -> None:
    cached, _ = opened(Hooked(), tmp_path)
    wavs = noise(3200)
    with torch.autocast("cpu", torch.bfloat16):
        half = cached(wavs)["hidden_states"][1]
    full = cached(wavs)["hidden_states"][1]
    assert cached.computed == 2 and not torch.equal(half, full)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cached(wavs)["hidden_states"][1], half)
    assert torch.equal(cached(wavs)["hidden_states"][1], full) and cached.computed == 2


def test_features_are_computed_without_tf32(tmp_path, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)

    def change(batch):
        seen.append((torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()))
        return batch

    cached, _ = opened(Plain(change), tmp_path)
    cached(noise(3200))
    assert seen[-1] == (False, "highest") and torch.backends.cudnn.allow_tf32


def test_generators_do_not_depend_on_what_is_known(tmp_path) -> None:
    """fairseq's encoders draw for layer drop in evaluation too; s3prl's data sets crop with the same generators."""

    def change(batch):
        np.random.random()
        torch.rand(1)
        random.random()
        return batch

    def numbers():
        return np.random.random(), float(torch.rand(1)), random.random()

    upstream, wavs, seen = Plain(change), noise(3200), []
    for _ in range(2):  # computed, then known
        for seed in (np.random.seed, torch.manual_seed, random.seed):
            seed(7)
        cached, _ = opened(upstream, tmp_path)
        opening = numbers()
        cached(wavs)
        seen.append((opening, numbers()))
    for seed in (np.random.seed, torch.manual_seed, random.seed):
        seed(7)
    torch.randn(16000)  # s3prl's featurizer looks at the upstream when it is made
    change(None)
    assert seen == [(numbers(), numbers())] * 2 and cached.computed == 0


class Pooled(nn.Module):
    """A head of s3prl's kind with a say in what happens before and after the mean."""

    def __init__(self, before: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.before, self.after, self.linear = before, after, nn.Linear(8, 3)

    def forward(self, frames, lengths):
        frames = self.before(frames)
        return self.linear(self.after(torch.stack([one[:n].mean(0) for one, n in zip(frames, lengths)]))), None


@pytest.mark.parametrize(
    ("before", "after", "means"),
    [
        (nn.Identity(), nn.Identity(), True),
        (nn.Identity(), nn.Dropout(0.5), True),
        (nn.Dropout(0.5), nn.Identity(), False),
        (nn.ReLU(), nn.Identity(), False),
    ],
)
def test_dropout_of_frames_needs_frames(before, after, means) -> None:
    torch.manual_seed(0)
    expert = SimpleNamespace(projector=nn.Linear(4, 8), model=Pooled(before, after))
    state = torch.random.get_rng_state()
    assert reads_means_only(expert, 4) is means
    assert torch.equal(torch.random.get_rng_state(), state) and expert.model.training


def test_what_is_read_only_is_not_kept(tmp_path) -> None:
    cached, _ = opened(Hooked(), tmp_path)
    clean, corrupted = noise(3200, 3200)
    cached([clean])
    cached.keeps = False
    cached([corrupted])
    cached([corrupted])
    cached([clean])
    assert (cached.computed, cached.found, len(cached.store)) == (3, 1, 1)


def test_lengths_that_no_longer_come_again_in_training_wait_for_the_second_time(tmp_path) -> None:
    cached, _ = opened(Plain(lambda batch: batch / batch.shape[1] ** 0.5), tmp_path, training=True)
    wavs = noise(6400, 3200)
    for kept in (0, 2, 2):
        cached(wavs)
        assert len(cached.store) == kept
    assert np.isfinite(cached(wavs)["hidden_states"][0]).all()
