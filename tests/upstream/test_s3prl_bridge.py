"""Each shim does its work where something is missing and keeps its hands off where the real thing works."""

from __future__ import annotations

import argparse
import importlib
import io
import subprocess
import sys
import types
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from robustdistiller.upstream import s3prl_bridge
from robustdistiller.upstream.s3prl_bridge import audio, ctc_corpus, experts, packages, separation, shim, sox_effects
from tests.eval.toy_corpora import text, voice, write

KS_CHAIN = [["channels", "1"], ["rate", "16000"], ["gain", "-3.0"]]
ASV_CHAIN = [*KS_CHAIN, ["silence", "1", "0.1", "0.1%", "-1", "0.1", "0.1%"]]
needs_sox = pytest.mark.skipif(s3prl_bridge.sox_path() is None, reason="needs the program sox")


@pytest.fixture
def module_table() -> Iterator[dict[str, types.ModuleType]]:
    """sys.modules, put back afterwards: what a test registers is gone after it."""
    before = dict(sys.modules)
    yield sys.modules
    for name in set(sys.modules) - set(before):
        del sys.modules[name]
    sys.modules.update(before)


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)


# ---------------------------------------------------------------------------------------------------- the whole


def test_s3prl_imports_in_a_fresh_process_and_isinstance_survives(tmp_path: Path):
    done = run_python(
        "import builtins, sys\n"
        "before = builtins.isinstance\n"
        "from robustdistiller.upstream import s3prl_bridge\n"
        f"s3prl_bridge.install({str(tmp_path)!r})\n"
        "assert 's3prl' not in sys.modules, 'install must not import s3prl'\n"
        "import s3prl.hub, s3prl.run_downstream\n"
        "s3prl.run_downstream.hack_isinstance()\n"
        "assert builtins.isinstance is before\n"
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
    first = s3prl_bridge.install(tmp_path / "a")
    load = torchaudio.load
    assert s3prl_bridge.install() == first
    assert experts.Caches.root == tmp_path / "a", "a call without a folder keeps the last one"
    assert s3prl_bridge.install(tmp_path / "b") == first
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


STAND_INS = [
    ("sox", packages.bridge_pysox, "Transformer = 'real'", "Transformer"),
    (
        "catalyst.data.sampler",
        packages.bridge_catalyst,
        "DistributedSamplerWrapper = 'real'",
        "DistributedSamplerWrapper",
    ),
    ("asteroid.metrics", separation.bridge_asteroid, "get_metrics = 'real'", "get_metrics"),
]


@pytest.mark.parametrize(("name", "bridge", "source", "attribute"), STAND_INS)
def test_installed_packages_are_used_and_broken_or_absent_ones_replaced(
    name, bridge, source, attribute, module_table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    provide(tmp_path / "good", source)
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
        assert callable(getattr(importlib.import_module(name), attribute))

    forget()
    report = bridge()
    assert report.applied and "is not installed" in report.reason
    assert callable(getattr(importlib.import_module(name), attribute))
    assert importlib.util.find_spec(top) is not None, "other packages may probe the stand-in"


def test_distutils(module_table, monkeypatch: pytest.MonkeyPatch):
    assert packages.bridge_distutils().applied is False
    real = importlib.import_module("distutils.util").strtobool
    words = ("y", "Yes", "t", "true", "ON", "1", "n", "no", "F", "false", "off", "0")
    assert [packages.strtobool(word) for word in words] == [real(word) for word in words]
    with pytest.raises(ValueError, match="'maybe'; expected one of"):
        packages.strtobool("maybe")

    monkeypatch.setattr(packages, "working_import", lambda name: (False, f"{name} is not installed"))
    assert packages.bridge_distutils().applied
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


# --------------------------------------------------------------------------------------------------------- audio


def test_audio_shims_leave_a_complete_torchaudio_alone(monkeypatch: pytest.MonkeyPatch):
    for name in ("set_audio_backend", "load", "info"):
        monkeypatch.setattr(torchaudio, name, f"real {name}", raising=False)
    for bridge in (audio.bridge_audio_backend, audio.bridge_audio_load, audio.bridge_audio_info):
        report = bridge()
        assert not report.applied, report
        assert getattr(torchaudio, report.name.removeprefix("torchaudio.")) == f"real {report.name.split('.')[1]}"


def test_audio_shims_fill_the_gaps_of_torchaudio_2_9(monkeypatch: pytest.MonkeyPatch):
    for name in ("set_audio_backend", "info"):
        monkeypatch.setattr(torchaudio, name, None, raising=False)
        monkeypatch.delattr(torchaudio, name)
    monkeypatch.setattr(torchaudio, "load", None)
    monkeypatch.setattr(audio, "working_import", lambda name: (True, f"{name} is installed"))
    assert not audio.bridge_audio_load().applied, "TorchCodec is used where it works"
    monkeypatch.setattr(audio, "working_import", lambda name: (False, f"{name} is not installed"))
    assert audio.bridge_audio_load().applied and torchaudio.load is audio.load
    assert audio.bridge_audio_backend().applied and torchaudio.set_audio_backend("sox_io") is None
    assert audio.bridge_audio_info().applied and torchaudio.info is audio.info
    monkeypatch.undo()


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_load_and_info_read_what_was_written(suffix, tmp_path: Path):
    samples = np.stack([voice("left", 0.1), voice("right", 0.1)], axis=1) / 4
    path = tmp_path / f"stereo{suffix}"
    soundfile.write(path, samples, 16000, subtype="PCM_16")
    waveform, rate = audio.load(path)
    assert rate == 16000 and waveform.dtype == torch.float32 and waveform.shape == (2, 1600)
    written = np.round(samples * 32768).clip(-32768, 32767) / 32768
    assert np.abs(waveform.numpy().T - written).max() <= 1 / 32768
    assert torch.equal(audio.load(io.BytesIO(path.read_bytes()))[0], waveform)
    part, _ = audio.load(str(path), frame_offset=100, num_frames=50, channels_first=False)
    assert torch.equal(part, waveform[:, 100:150].t())
    meta = audio.info(path)
    assert meta[:4] == (16000, 1600, 2, 16)
    assert meta.encoding == {".wav": "PCM_S", ".flac": "FLAC"}[suffix]
    with pytest.raises(ValueError, match="normalize=False"):
        audio.load(path, normalize=False)
    # where torchaudio itself still reads audio, the two must be the same bits
    if hasattr(torchaudio, "info") and torchaudio.info is not audio.info:
        native, native_rate = torchaudio.load(path)
        assert native_rate == rate and torch.equal(native, waveform)
        assert tuple(vars(torchaudio.info(path)).values()) == tuple(meta)


@needs_sox
def test_sox_chain_by_the_program(tmp_path: Path):
    path = tmp_path / "speech.wav"
    write(path, 1.0)
    original, _ = audio.load(path)
    quiet, rate = sox_effects.apply_effects_file(path, KS_CHAIN)
    assert rate == 16000 and quiet.shape == original.shape
    assert (quiet - original * 10 ** (-3 / 20)).abs().max() < 1e-7
    assert torch.equal(sox_effects.apply_effects_tensor(original, 16000, KS_CHAIN)[0], quiet)

    pad = torch.zeros(1, 16000)
    soundfile.write(tmp_path / "padded.wav", torch.cat([pad, original, pad], dim=1)[0].numpy(), 16000, subtype="PCM_16")
    trimmed, _ = sox_effects.apply_effects_file(tmp_path / "padded.wav", ASV_CHAIN)
    untrimmed, _ = sox_effects.apply_effects_file(tmp_path / "padded.wav", KS_CHAIN)
    assert untrimmed.shape[1] == 48000 and 12000 < trimmed.shape[1] < 20000

    write(tmp_path / "narrow.wav", 1.0, 8000)
    wide, rate = sox_effects.apply_effects_file(tmp_path / "narrow.wav", KS_CHAIN, channels_first=False)
    assert rate == 16000 and wide.shape == (16000, 1)
    with pytest.raises(RuntimeError, match=r"sox failed with exit code \d+ on .*no_such_effect"):
        sox_effects.apply_effects_file(path, [["no_such_effect"]])


def test_without_sox_exact_chains_work_and_others_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "wide.wav", 0.5)
    write(tmp_path / "narrow.wav", 0.5, 8000)
    by_program = sox_effects.apply_effects_file(tmp_path / "wide.wav", KS_CHAIN) if sox_effects.sox_path() else None
    monkeypatch.setattr(sox_effects.shutil, "which", lambda _name: None)
    exact, rate = sox_effects.apply_effects_file(tmp_path / "wide.wav", KS_CHAIN)
    assert rate == 16000
    if by_program:
        assert (exact - by_program[0]).abs().max() < 1e-7
    with pytest.raises(
        RuntimeError, match=r"effect 'rate 16000' on .*narrow\.wav \(8000 Hz\) needs .*`apt-get install sox`"
    ):
        sox_effects.apply_effects_file(tmp_path / "narrow.wav", KS_CHAIN)
    with pytest.raises(RuntimeError, match=r"effect 'silence 1 0.1 0.1% -1 0.1 0.1%' on .* needs the program sox"):
        sox_effects.apply_effects_file(tmp_path / "wide.wav", ASV_CHAIN)
    with pytest.raises(FileNotFoundError, match=r"absent\.wav"):
        sox_effects.apply_effects_file(tmp_path / "absent.wav", KS_CHAIN)
    with pytest.raises(ValueError, match="normalize=False"):
        sox_effects.apply_effects_file(tmp_path / "wide.wav", KS_CHAIN, normalize=False)


def test_sox_effects_are_bridged_only_where_they_fail(module_table, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_args):
        raise OSError("libsox.so: cannot open shared object file")

    working = types.ModuleType("torchaudio.sox_effects")
    working.apply_effects_tensor = lambda waveform, rate, _effects: (waveform, rate)
    working.apply_effects_file = "real"
    broken = types.ModuleType("torchaudio.sox_effects")
    broken.apply_effects_tensor = refuse
    for module, applied in ((working, False), (broken, True)):
        module_table["torchaudio.sox_effects"] = module
        monkeypatch.setattr(torchaudio, "sox_effects", module, raising=False)
        report = sox_effects.bridge_sox_effects()
        assert report.applied is applied, report
    assert working.apply_effects_file == "real" and broken.apply_effects_file is sox_effects.apply_effects_file
    assert "libsox.so" in report.reason

    monkeypatch.delattr(torchaudio, "sox_effects")
    module_table["torchaudio.sox_effects"] = None  # how Python marks a module that cannot be imported
    assert sox_effects.bridge_sox_effects().applied
    from torchaudio.sox_effects import apply_effects_file

    assert apply_effects_file is sox_effects.apply_effects_file


# ---------------------------------------------------------------------------------------------- separation metrics


@pytest.mark.parametrize(
    ("sources", "permute", "expected"),
    [
        # what asteroid 0.7.0 with pb_bss_eval 0.0.2, pystoi and pesq return on these signals
        (1, False, {"si_sdr": 10.96026, "stoi": 0.76634, "pesq": 1.43919, "input_si_sdr": 15.47836}),
        (
            2,
            True,
            {"si_sdr": 8.09142, "stoi": 0.71767, "pesq": 1.1818, "input_si_sdr": -0.11867, "input_stoi": 0.50691},
        ),
    ],
)
def test_separation_metrics_are_asteroids(sources, permute, expected):
    pytest.importorskip("pesq")
    rng = np.random.default_rng(sources)
    clean = np.stack([voice(f"source{index}", 2.0) for index in range(sources)])
    mix = (clean.sum(0) + 0.02 * rng.standard_normal(clean.shape[1]))[None]
    estimate = 0.5 * clean[::-1] + 0.1 * clean + 0.02 * rng.standard_normal(clean.shape)
    found = separation.get_metrics(mix, clean, estimate, compute_permutation=permute)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=2e-4)
    if permute:
        unordered = separation.get_metrics(mix, clean, estimate, metrics_list="si_sdr")
        assert unordered["si_sdr"] < found["si_sdr"] - 10


def test_separation_metrics_refuse_what_they_cannot_do():
    clean = np.ones((1, 800))
    with pytest.raises(ValueError, match=r"no the metrics \['sdr'\]; it knows .*install asteroid"):
        separation.get_metrics(clean, clean, clean, metrics_list=["sdr"])
    with pytest.raises(ValueError, match="average=False"):
        separation.get_metrics(clean, clean, clean, average=False)
    with pytest.raises(ValueError, match=r"found \(1, 800\), \(2, 800\)"):
        separation.get_metrics(clean, clean, np.ones((2, 800)))
    with pytest.raises(ValueError, match="pit_from='pw_mtx' only, found 'pw_pt'"):
        separation.PITLossWrapper(lambda *_: None, pit_from="pw_pt")


def test_permutation_invariant_loss_takes_the_best_assignment():
    generator = torch.Generator().manual_seed(0)
    pairwise = torch.rand(4, 3, 3, generator=generator)
    found = separation.PITLossWrapper(lambda estimates, _targets: estimates)(pairwise, pairwise)
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    best = [min(sum(matrix[order[j]][j] for j in range(3)) / 3 for order in orders) for matrix in pairwise.tolist()]
    assert found.item() == pytest.approx(sum(best) / 4)


# ------------------------------------------------------------------------------------------------------ ctc corpora


class Phonemes:
    """What the data set uses of s3prl's word encoder."""

    token_type = "word"
    _vocab2idx = dict.fromkeys(("K", "AE1", "T", "DH", "AH0"), 0)

    def encode(self, line: str) -> list[str]:
        return line.split()


def test_ctc_corpora_are_left_alone_where_s3prl_has_them(module_table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for key in [key for key in module_table if key.startswith("s3prl")]:
        del module_table[key]
    package = tmp_path / "s3prl" / "downstream" / "ctc" / "corpus"
    text(package / "libriphone.py", "LibriPhoneDataset = 'real'")
    text(tmp_path / "s3prl" / "__init__.py", "")
    monkeypatch.syspath_prepend(tmp_path)
    assert not ctc_corpus.bridge_ctc_corpus().applied
    assert "s3prl.downstream.ctc.corpus" not in module_table
    (package / "libriphone.py").unlink()
    assert ctc_corpus.bridge_ctc_corpus().applied
    from s3prl.downstream.ctc.corpus.libriphone import LibriPhoneDataset

    assert LibriPhoneDataset is ctc_corpus.LibriPhoneDataset


def libriphone(root: Path, *lexicon_lines: str, **options) -> ctc_corpus.LibriPhoneDataset:
    for index, words in enumerate(("CAT", "THE CAT", "THE THE CAT")):
        write(root / "dev-clean" / "1" / "2" / f"1-2-{index:04d}.flac", 0.1)
        with (root / "dev-clean" / "1" / "2" / "1-2.trans.txt").open("a") as transcripts:
            transcripts.write(f"1-2-{index:04d} {words}\n")
    lexicon = [str(text(root / "lexicon.txt", *lexicon_lines))]
    settings = {"bucket_size": 2, "lexicon": lexicon, **options}
    return ctc_corpus.LibriPhoneDataset(["dev-clean"], Phonemes(), path=str(root), **settings)


def test_libriphone_sorts_buckets_and_takes_the_first_pronunciation(tmp_path: Path):
    data = libriphone(tmp_path, "CAT K AE1 T", "THE DH AH0", "THE DH AE1", num_workers=3)
    lengths = [len(labels) for _, labels in (data[0] + data[2][1:])]
    assert len(data) == 3 and lengths == [7, 5, 3]
    assert data[2] == data[1], "the last index yields a full bucket"
    assert data[0][1][1] == ["DH", "AH0", "K", "AE1", "T"]
    assert libriphone(tmp_path / "single", "CAT K AE1 T", "THE DH AH0", bucket_size=1)[2][1] == ["K", "AE1", "T"]


def test_libriphone_names_what_is_wrong(tmp_path: Path):
    with pytest.raises(ValueError, match=r"1 words of \['dev-clean'\] have no pronunciation in .*: THE\."):
        libriphone(tmp_path / "oov", "CAT K AE1 T")
    with pytest.raises(ValueError, match=r"Unknown phoneme 'QQ' for the word 'THE' in .*lexicon\.txt, line 2"):
        libriphone(tmp_path / "symbol", "CAT K AE1 T", "THE DH QQ")
    with pytest.raises(FileNotFoundError, match="needs a pronunciation lexicon"):
        libriphone(tmp_path / "none", "CAT K", lexicon=None)
    with pytest.raises(FileNotFoundError, match=r"No such lexicon: .*missing\.txt"):
        libriphone(tmp_path / "missing", "CAT K", lexicon=[str(tmp_path / "missing.txt")])
    with pytest.raises(FileNotFoundError, match=r"No \.flac file below"):
        ctc_corpus.LibriPhoneDataset(["train"], Phonemes(), 1, str(tmp_path), str(text(tmp_path / "l.txt", "CAT K")))
    write(tmp_path / "dev-clean" / "1" / "2" / "1-2-0009.flac", 0.1)
    with pytest.raises(ValueError, match=r"have no line in a \*\.trans\.txt, the first is .*1-2-0009\.flac"):
        ctc_corpus.LibriPhoneDataset(["dev-clean"], Phonemes(), 1, str(tmp_path), [str(tmp_path / "l.txt")])


def test_snips_chooses_speakers_and_skips_unlabelled_files(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for name in ("Ivy-1", "Ivy-2", "Amy-1", "Ivy-unlabelled"):
        write(tmp_path / "train" / f"{name}.wav", 0.1)
    text(tmp_path / "all-trans.txt", "Ivy-1 PLAY IT", "Ivy-2 PLAY IT AGAIN", "Amy-1 STOP")
    speakers = {"train_speakers": ["Ivy"], "test_speakers": ["Brian"]}
    data = ctc_corpus.SnipsDataset(["train"], Phonemes(), 1, str(tmp_path), **speakers)
    assert [(Path(file).stem, labels) for file, labels in data.items] == [
        ("Ivy-2", ["PLAY", "IT", "AGAIN"]),
        ("Ivy-1", ["PLAY", "IT"]),
    ]
    assert "1 of 4 files in train have no label" in caplog.text
    (tmp_path / "test").mkdir()
    with pytest.raises(FileNotFoundError, match=r"speakers Brian below .*test' \(0 \.wav files found\)"):
        ctc_corpus.SnipsDataset(["test"], Phonemes(), 1, str(tmp_path), **speakers)
    with pytest.raises(FileNotFoundError, match=r"No such label file: .*all-trans\.txt"):
        ctc_corpus.SnipsDataset(["train"], Phonemes(), 1, str(tmp_path / "none"), **speakers)


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
