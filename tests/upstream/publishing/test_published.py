"""What is published loads with transformers alone, and computes what the student computes, whatever its shape."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import robustdistiller
from robustdistiller.upstream import (
    CheckpointError,
    EncoderConfig,
    SpeechEncoder,
    UpstreamExpert,
    publish,
    read_checkpoint,
    save_checkpoint,
)
from robustdistiller.upstream.publishing import one_file

WAVLM = {"relative_position": True, "gated_relative_position": True}
SHAPES = {
    "plain": {},
    "heads": {"feature_norm": False, "prediction_layers": (4, 8), "prediction_dim": 24},
    "pruned": {
        **{"num_layers": 3, "num_heads": (2, 1, 0), "head_dim": 8, "ffn_dim": (12, 0, 7), "feature_scale": True},
        **{"position_bias_heads": ((0, 1), (1,), ()), **WAVLM},
    },
    "thin": {"num_layers": 6, "embed_dim": 8, "ffn_dim": 12, "prediction_layers": (2,), "prediction_dim": 16},
    "pre-norm": {"norm_first": True, "conv_norm": "layer", "conv_bias": True, "normalize_waveform": True},
    "pre-norm.heads": {"norm_first": True, "last_state_normed": False, "prediction_layers": (4,)},
    "log mel": {"front_end": "log_mel", "conv_layers": ((16, 3, 1), (16, 3, 2)), **WAVLM},
    "25 Hz": {"squeeze": 2, "first_state": "projected"},
    "FitHuBERT": {"squeeze": 2, "squeeze_by": "conv", "expand_by": "repeat", "prediction_layers": (2,)},
    "attention reused": {"num_layers": 3, "attention_reuse": (2,)},
    "data2vec": {"position_depth": 3, "conv_norm": "layer"},
    "mHuBERT": {"position_batch_norm": True},
    "fairseq padding": {"padding": "reference", "reference_mask": "block"},
}
# A Python in which this package is not installed.
ALONE = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "").lower()]
from importlib.util import find_spec
assert find_spec("robustdistiller") is None
"""
COMPARE = (
    ALONE
    + """
import torch
from transformers import AutoModel
waveforms, lengths, expected = torch.load("expected.pt")
mask = (torch.arange(waveforms.shape[1]) < lengths[:, None]).long()
for name, (states, predictions, frames) in expected.items():
    model, found = AutoModel.from_pretrained(name, trust_remote_code=True, output_loading_info=True)
    assert not any(found.values()), (name, found)
    assert not model.training and model.config.hidden_size == states[0].shape[-1]
    with torch.no_grad():
        output = model(waveforms, mask, output_hidden_states=True)
        short = model(waveforms, mask, return_dict=False)
    assert torch.equal(output.frame_lengths, frames), name
    assert len(output.hidden_states) == len(states) and len(output.predictions or ()) == len(predictions), name
    for found, wanted in zip((*output.hidden_states, *(output.predictions or ())), (*states, *predictions)):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5, msg=name)
    assert torch.equal(output.last_hidden_state, output.hidden_states[-1])
    assert isinstance(short, tuple) and torch.equal(short[0], output.last_hidden_state)
    model.save_pretrained("again/" + name)
    again = AutoModel.from_pretrained("again/" + name, trust_remote_code=True)
    with torch.no_grad():
        assert torch.equal(again(waveforms, mask).last_hidden_state, output.last_hidden_state), name
    half = AutoModel.from_pretrained(name, trust_remote_code=True, dtype=torch.bfloat16)
    with torch.no_grad():
        rounded = half(waveforms.bfloat16(), mask).last_hidden_state
    assert rounded.dtype == torch.bfloat16 and rounded.isfinite().all(), name
try:
    model(waveforms, mask[:, ::20])
except ValueError as error:
    assert "attention_mask has shape (3, 450); expected (3, 9000), one value per sample" in str(error)
else:
    raise AssertionError("a mask of frames was taken for one of samples")
try:
    model(waveforms, mask.flip(1))
except ValueError as error:
    assert "zeros before ones" in str(error)
else:
    raise AssertionError("padding in front was taken")
third_party = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
assert "torch" in third_party and "robustdistiller" not in third_party
"""
)


def student(options, seed=0) -> SpeechEncoder:
    """An encoder whose every parameter counts."""
    torch.manual_seed(seed)
    encoder = SpeechEncoder(EncoderConfig.tiny(**options)).eval()
    for value in (*encoder.parameters(), *encoder.buffers()):
        if value.is_floating_point() and value.requires_grad:
            value.data += 0.02 * torch.randn_like(value)
    return encoder


def run(code: str, folder: Path) -> None:
    """Run code offline, in a process of its own, with nothing cached."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "HOME": str(folder)}
    environment["HF_MODULES_CACHE"] = str(folder / "modules")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A folder of published students, one for each shape."""
    place = tmp_path_factory.mktemp("published")
    for name, options in SHAPES.items():
        save_checkpoint(place / "student.ckpt", student(options), {"recipe": "ours"})
        publish(place / "student.ckpt", place / name)
    return place


def test_every_shape_computes_the_same_with_transformers_alone(published) -> None:
    waveforms, lengths, expected = 0.1 * torch.randn(3, 9000), torch.tensor([9000, 4001, 777]), {}
    waveforms[0] *= 1e-3  # quiet
    waveforms = waveforms.masked_fill(torch.arange(9000) >= lengths[:, None], 0.0)
    for name, options in SHAPES.items():
        with torch.no_grad():
            output = student(options)(waveforms, lengths)
        expected[name] = output.hidden_states, output.predictions, output.frame_lengths
    torch.save((waveforms, lengths, expected), published / "expected.pt")
    run(COMPARE, published)


@pytest.mark.parametrize("name", SHAPES)
def test_this_package_and_s3prl_read_it(name, published, tmp_path) -> None:
    encoder = student(SHAPES[name])
    found = robustdistiller.load(published / name)
    assert found.config == encoder.config
    assert all(torch.equal(value, encoder.state_dict()[key]) for key, value in found.state_dict().items())
    direct = tmp_path / "direct.ckpt"
    save_checkpoint(direct, encoder, {"recipe": "ours"})
    waveforms = [torch.randn(5000), torch.randn(3000)]
    with torch.no_grad():
        direct, ours = (UpstreamExpert(path)(waveforms)["hidden_states"] for path in (direct, published / name))
        assert len(ours) == len(direct)
        assert all(torch.equal(a, b) for a, b in zip(ours, direct))


def test_the_code_needs_nothing_but_torch_and_transformers(published) -> None:
    texts = {(published / name / "modeling_robustdistiller.py").read_text() for name in SHAPES}
    (text,) = texts
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    foreign = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert foreign == {"torch", "transformers"}
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert {"SpeechEncoder", "EncoderConfig", "LogMel", "Squeeze", "RobustDistillerModel"} <= set(classes)
    assert len(classes) == len(set(classes))


def test_the_card_says_how_and_its_code_runs(published) -> None:
    for name in ("pruned", "heads"):
        card = (published / name / "README.md").read_text().replace('"PATH"', f'"{name}"')
        theirs, ours = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        run(ALONE + theirs, published)
        run(ours, published)
    assert "Attention heads: 2, 1, 0" in (published / "pruned" / "README.md").read_text()
    assert "of the teacher's layers 4, 8" in (published / "heads" / "README.md").read_text()


def test_audio_is_prepared_as_the_model_expects(published) -> None:
    from transformers import AutoFeatureExtractor

    extractor = AutoFeatureExtractor.from_pretrained(published / "pre-norm")
    quiet = [(0.01 * torch.randn(4000)).numpy(), (0.01 * torch.randn(3000)).numpy()]
    batch = extractor(quiet, sampling_rate=16000, padding=True, return_tensors="pt")
    assert torch.equal(batch["input_values"][0], torch.tensor(quiet[0])), "the model normalises, and once is enough"
    assert batch["attention_mask"].sum(1).tolist() == [4000, 3000]


def test_nothing_in_the_folder_is_run_when_this_package_loads_it(published, tmp_path) -> None:
    save_checkpoint(tmp_path / "student.ckpt", student({}), {})
    folder = publish(tmp_path / "student.ckpt", tmp_path / "hostile").path
    touch = f"import pathlib\npathlib.Path({str(tmp_path / 'was_run')!r}).touch()\n"
    for name in ("modeling_robustdistiller.py", "modeling.py", "__init__.py", "setup.py"):
        (folder / name).write_text(touch)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling.Student", "AutoConfig": "someone/else--modeling.Config"}
    (folder / "config.json").write_text(json.dumps(config))
    before = set(sys.modules)
    robustdistiller.load(folder)
    UpstreamExpert(folder)
    assert not (tmp_path / "was_run").exists() and "transformers" not in set(sys.modules) - before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_options": {"num_layer": 2}}, "unknown encoder option 'num_layer'; did you mean 'num_layers'?"),
        ({"encoder_options": {"num_layers": 10**9}}, "num_layers is 1000000000; expected at most 1000"),
        ({"encoder_options": {}}, "the weights do not fit the encoder that the configuration describes"),
        ({"encoder_options": [1]}, "'encoder_options' should be a dictionary of options, found list"),
        ({"encoder_options": None}, "'encoder_options' should be a dictionary of options, found NoneType"),
        ({"model_type": "robust_distiller"}, "model_type is 'robust_distiller'"),
        ({"robustdistiller": {"config": {"embed_dim": 8}}}, "unknown option of this package 'embed_dim'"),
    ],
)
def test_configurations_that_were_tampered_with_are_refused(change, message, tmp_path) -> None:
    save_checkpoint(tmp_path / "student.ckpt", student({}), {})
    folder = publish(tmp_path / "student.ckpt", tmp_path / "out").path
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match=re.escape(message)):
        robustdistiller.load(folder)


def test_folders_are_replaced_only_when_asked_and_only_our_own(tmp_path) -> None:
    source = tmp_path / "student.ckpt"
    save_checkpoint(source, student({}), {"recipe": "ours", "data": str(tmp_path)})
    folder = publish(source, tmp_path / "out").path
    assert str(tmp_path) not in "".join(file.read_text() for file in folder.iterdir() if file.suffix != ".safetensors")
    with pytest.raises(FileExistsError, match="--overwrite"):
        publish(source, folder)
    save_checkpoint(source, student({}, seed=1), {})
    publish(source, folder, overwrite=True)
    new, old = (read_checkpoint(path).state_dict["transformer.norm.weight"] for path in (source, folder))
    assert torch.equal(new, old)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds notes.txt, not only a conversion"):
        publish(source, folder, overwrite=True)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name, text in (("config.json", '{"model_type": "hubert"}'), ("model.safetensors", "weights")):
        (theirs / name).write_text(text)
    with pytest.raises(FileExistsError, match="holds a model that this package did not write"):
        publish(source, theirs, overwrite=True)
    assert (theirs / "model.safetensors").read_text() == "weights"
    with pytest.raises(ValueError, match="only a repository on the Hub can be private"):
        publish(source, tmp_path / "new", private=True)
    with pytest.raises(ValueError, match="expected a folder or org/name"):
        publish(source, "https://example.org/me/student")
    with pytest.raises(ValueError, match="names a revision"):
        publish(source, "me/student@v1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "student.ckpt", "theirs"]


def test_a_link_to_a_folder_stays_one(tmp_path) -> None:
    save_checkpoint(tmp_path / "student.ckpt", student({}), {})
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    for overwrite in (False, True):
        publish(tmp_path / "student.ckpt", tmp_path / "out", overwrite=overwrite)
        assert (tmp_path / "out").is_symlink() and (tmp_path / "disk" / "model.safetensors").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "out", "student.ckpt"]


def test_a_failure_leaves_nothing_or_what_was_there(tmp_path, monkeypatch) -> None:
    source = tmp_path / "student.ckpt"
    save_checkpoint(source, student({}), {})
    folder = publish(source, tmp_path / "out").path
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("robustdistiller.upstream.checkpoints.formats.published.model_card", fail)
    save_checkpoint(source, student({}, seed=1), {})
    for place, overwrite in ((folder, True), (tmp_path / "new", False)):
        with pytest.raises(OSError, match="No space left"):
            publish(source, place, overwrite=overwrite)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "student.ckpt"]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"a": "from robustdistiller.b import one\nlimit = 1", "b": "limit = 2\none = 1"}, "limit is one thing in"),
        ({"a": "from robustdistiller.b import one\nfrom json import dumps", "b": "def dumps(): pass"}, "dumps"),
        ({"a": "def f():\n    from robustdistiller.b import one", "b": "one = 1"}, "line 2: imports of this package"),
        ({"a": "from robustdistiller.b import one as two", "b": "one = 1"}, "without another name"),
        ({"a": "import robustdistiller.b", "b": "one = 1"}, "without another name"),
    ],
)
def test_sources_that_do_not_fit_one_file_are_refused(sources, message, monkeypatch) -> None:
    class Loader:
        def get_source(self, name):
            return sources[name.removeprefix("robustdistiller.")]

    class Spec:
        loader = Loader()

    monkeypatch.setattr(one_file, "find_spec", lambda name: Spec)
    with pytest.raises(ValueError, match=message):
        one_file.one_file("robustdistiller.a", "Two modules.")
