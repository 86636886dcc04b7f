"""Each shim does its work where something is missing and keeps its hands off where the real thing works."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import types
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import torchaudio

from robustdistiller.eval.check.toy_corpora import text
from robustdistiller.upstream.s3prl import bridge
from robustdistiller.upstream.s3prl.bridge import experts, packages, separation, shim


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)


# ---------------------------------------------------------------------------------------------------- the whole


def test_s3prl_imports_in_a_fresh_process_and_isinstance_survives(tmp_path: Path):
    done = run_python(
        "import builtins, sys\n"
        "before = builtins.isinstance\n"
        "from robustdistiller.upstream.s3prl import bridge\n"
        f"bridge.install({str(tmp_path)!r})\n"
        "assert 's3prl' not in sys.modules, 'install must not import s3prl'\n"
        "import s3prl.hub, s3prl.run_downstream\n"
        "assert 'transformers' not in sys.modules, 'it takes two seconds'\n"
        "s3prl.run_downstream.hack_isinstance()\n"
        "assert builtins.isinstance is before\n"
        "import s3prl.downstream.speech_commands.expert as ks, s3prl.downstream.sv_voxceleb1.dataset as asv\n"
        "import s3prl.downstream.separation_stft.expert as ss, s3prl.downstream.separation_stft.loss\n"
        "assert ks.DistributedSamplerWrapper and asv.Transformer and ss.get_metrics\n"
        "left = [name for name in ('sox', 'catalyst', 'asteroid') if name in sys.modules]\n"
        "assert not any('Stand-in' in str(sys.modules[name].__doc__) for name in left), 'others would find stand-ins'\n"
        "print('fbank' in dir(s3prl.hub))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "True"


def test_without_the_bridge_s3prl_does_not_start():
    """On torch 2.8 the import works and the replaced isinstance shows; if neither happens the bridge can shrink."""
    done = run_python(
        "import builtins\nbefore = builtins.isinstance\nimport s3prl.run_downstream as entry\n"
        "entry.hack_isinstance()\nassert builtins.isinstance is before, 'isinstance replaced'"
    )
    assert done.returncode != 0
    assert "set_audio_backend" in done.stderr or "isinstance replaced" in done.stderr


def test_install_is_idempotent_and_reports_every_shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = bridge.install(tmp_path / "a")
    load = torchaudio.load
    assert bridge.install() == first
    assert experts.Caches.root == tmp_path / "a", "a call without a folder keeps the last one"
    assert bridge.install(tmp_path / "b") == first
    assert experts.Caches.root == tmp_path / "b"
    assert torchaudio.load is load
    names = [report.name for report in first]
    assert len(names) == len(set(names)) and all(report.reason for report in first)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert experts.default_cache_dir() == tmp_path / "robustdistiller" / "s3prl"


# ------------------------------------------------------------------------------------------- checkpoints, packages


def test_checkpoints_with_a_namespace_load_and_nothing_else_is_let_in(tmp_path: Path):
    packages.bridge_checkpoint_loading()
    torch.save({"Args": argparse.Namespace(mode="train"), "Step": 2}, tmp_path / "states-2.ckpt")
    assert torch.load(tmp_path / "states-2.ckpt")["Args"].mode == "train"
    torch.save({"Args": Fraction(1, 2)}, tmp_path / "other.ckpt")
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "other.ckpt")


def test_huggingface_names(monkeypatch: pytest.MonkeyPatch):
    hub = types.ModuleType("huggingface_hub")
    hub.HfFolder, hub.Repository = "real folder", "real repository"
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert not packages.bridge_huggingface_names().applied
    assert hub.HfFolder == "real folder"

    del hub.HfFolder
    report = packages.bridge_huggingface_names()
    assert report.applied and "HfFolder" in report.reason and "Repository" not in report.reason
    assert hub.Repository == "real repository"
    for call in (hub.HfFolder.get_token, hub.HfFolder):
        with pytest.raises(RuntimeError, match=r"huggingface_hub\.HfFolder, which is gone .* pip install"):
            call("token")


DOWNSTREAM = "s3prl.downstream"
STAND_INS = [  # the last: a module of s3prl that imports it
    ("sox", packages.bridge_pysox, "Transformer", f"{DOWNSTREAM}.sv_voxceleb1.dataset"),
    (
        "catalyst.data.sampler",
        packages.bridge_catalyst,
        "DistributedSamplerWrapper",
        f"{DOWNSTREAM}.speech_commands.expert",
    ),
    ("asteroid.metrics", separation.bridge_asteroid, "get_metrics", f"{DOWNSTREAM}.enhancement_stft.expert"),
]


@pytest.mark.parametrize(("name", "bridge", "attribute", "importer"), STAND_INS)
def test_installed_packages_are_used_and_broken_or_absent_ones_replaced(
    name, bridge, attribute, importer, module_table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    top = name.partition(".")[0]

    def forget() -> None:
        for key in [key for key in module_table if key.partition(".")[0] == top]:
            del module_table[key]
        importlib.invalidate_caches()

    def provide(root: Path, code: str) -> None:
        folder = root.joinpath(*name.split("."))
        folder.mkdir(parents=True)
        for parent in [folder, *folder.parents[: name.count(".")]]:
            (parent / "__init__.py").write_text(code if parent == folder else "")

    forget()
    provide(tmp_path / "good", f"{attribute} = 'real'")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path / "good")
        report = bridge()
        assert (report.applied, getattr(importlib.import_module(name), attribute)) == (False, "real")

    forget()
    provide(tmp_path / "broken", "from collections import MutableMapping")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path / "broken")
        report = bridge()
        assert report.applied and "does not import: ImportError" in report.reason
        with shim.stand_ins_present(importer):
            assert callable(getattr(importlib.import_module(name), attribute))

    forget()
    report = bridge()
    assert report.applied and "is not installed" in report.reason
    with shim.stand_ins_present(importer):
        assert callable(getattr(importlib.import_module(name), attribute))
        assert importlib.util.find_spec(name) is not None, "other packages may probe the stand-in"
    assert importlib.util.find_spec(top) is None


def test_transformers_is_imported_when_a_model_is_asked_for(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    small |= {"conv_dim": (8,) * 7, "num_conv_pos_embedding_groups": 4}
    for kind in ("Hubert", "Wav2Vec2"):
        model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**small)).eval()
        model.save_pretrained(tmp_path / kind)
        transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / kind)
    done = run_python(
        "import sys, torch\n"
        "from robustdistiller.upstream.s3prl import bridge\n"
        "bridge.install()\n"
        "import s3prl.hub as hub\n"
        f"for entry, kind in ((hub.hf_hubert_custom, 'Hubert'), (hub.hf_wav2vec2_custom, 'Wav2Vec2')):\n"
        f"    upstream = entry({str(tmp_path)!r} + '/' + kind)\n"
        "    print(type(upstream.model).__name__, upstream([torch.randn(4000)])['hidden_states'][0].shape[-1])\n"
        "import transformers; print(transformers.HubertModel.__name__)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-5:] == ["HubertModel", "12", "Wav2Vec2Model", "12", "HubertModel"]


def test_distutils(module_table, monkeypatch: pytest.MonkeyPatch):
    assert packages.bridge_distutils().applied is False
    real = importlib.import_module("distutils.util").strtobool
    words = ("y", "Yes", "t", "true", "ON", "1", "n", "no", "F", "false", "off", "0")
    assert [packages.strtobool(word) for word in words] == [real(word) for word in words]
    with pytest.raises(ValueError, match="'maybe'; expected one of"):
        packages.strtobool("maybe")

    monkeypatch.setattr(packages, "working_import", lambda name: (False, f"{name} is not installed"))
    assert packages.bridge_distutils().applied
    with shim.stand_ins_present("s3prl.upstream.distiller.builder"):
        assert module_table["distutils.util"].strtobool is packages.strtobool


def test_sampler_wrapper_splits_what_the_inner_sampler_draws():
    drawn = torch.utils.data.WeightedRandomSampler([1.0] * 10, 10)
    shares = []
    for rank in range(2):
        torch.manual_seed(0)
        shares.append(list(packages.DistributedSamplerWrapper(drawn, num_replicas=2, rank=rank)))
    torch.manual_seed(0)
    assert sorted(shares[0] + shares[1]) == sorted(drawn)
    with pytest.raises(RuntimeError, match="pip install sox"):
        packages._UnusedTransformer()


# ------------------------------------------------------------------------------------------- patches in s3prl's code


def test_a_module_is_patched_when_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module_table):
    monkeypatch.setattr(shim._FINDER, "patches", dict(shim._FINDER.patches))
    text(tmp_path / "late_module.py", "value = 1")
    text(tmp_path / "early_module.py", "value = 1")
    monkeypatch.syspath_prepend(tmp_path)
    import early_module

    for name in ("late_module", "early_module"):
        shim.patch_after_import(name, lambda module: vars(module).update(value=module.value + 1))
    assert "late_module" not in module_table, "registering a patch must not import"
    import late_module

    assert (late_module.value, early_module.value) == (2, 2)
    shim.patch_after_import("late_module", lambda module: vars(module).update(value=10))
    assert late_module.value == 2, "an imported and patched module is not patched twice"
    assert "value = 1" in importlib.import_module("inspect").getsource(late_module)


def test_asv_mask_stays_on_the_cpu_only_during_its_forward():
    class Expert:
        def forward(self, mode, features, scale, records=None):
            return (features[0] * scale).cuda() if mode == "test" else None

    module = types.ModuleType("expert")
    module.DownstreamExpert = Expert
    cuda = torch.Tensor.cuda
    experts._patch_verification_expert(module)
    assert torch.equal(Expert().forward("test", [torch.ones(2)], 3, records={}), torch.full((2,), 3.0))
    assert torch.Tensor.cuda is cuda


def test_stock_unk_weight_can_be_evaluated_and_math_is_left_alone_where_present():
    module = types.ModuleType("expert")
    experts._patch_recognition_expert(module)
    assert eval("-math.inf", vars(module)) == -float("inf")
    module.math = "real"
    experts._patch_recognition_expert(module)
    assert module.math == "real"
