"""The upstream as s3prl uses it: names, order and frames of the hidden states, entries."""

import subprocess
import sys

import pytest
import torch

from robustdistiller.upstream import (
    ENTRIES,
    EncoderConfig,
    SpeechEncoder,
    UpstreamExpert,
    save_checkpoint,
)
from robustdistiller.upstream.model.cost import counted_macs

SHAPE = {"embed_dim": 24, "num_layers": 2, "num_heads": 2, "ffn_dim": 32, "position_kernel": 8, "position_groups": 4}
SHAPE |= {"conv_layers": ((16, 10, 5), *((16, 3, 2),) * 4, *((16, 2, 2),) * 2)}


def write(path, **options):
    torch.manual_seed(4)
    save_checkpoint(path, SpeechEncoder(EncoderConfig(**{**SHAPE, **options})), {})
    return path


@pytest.fixture
def student(tmp_path):
    return write(tmp_path / "student.ckpt", prediction_layers=(4, 8), layerdrop=0.9, feature_grad_mult=0.1)


@pytest.fixture
def teacher(tmp_path):
    return write(tmp_path / "teacher.ckpt")


def noise(*lengths):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(length, generator=generator) for length in lengths]


@torch.no_grad()
def test_states_of_a_student_are_ordered_as_in_s3prls_distiller(student):
    upstream = UpstreamExpert(student).eval()
    result = upstream(noise(4000))
    expected = upstream.encoder(noise(4000)[0][None])
    assert result["names"] == ("projected", "layer_1", "layer_2", "prediction_4", "prediction_8")
    states = [expected.projected, *expected.hidden_states[1:], *expected.predictions]
    for state, reference in zip(result["hidden_states"], states, strict=True):
        assert torch.equal(state[:, :12], reference)
    assert torch.equal(result["paper"], result["hidden_states"][2])
    assert torch.equal(result["last_hidden_state"], result["hidden_states"][-1])
    assert torch.equal(result["hidden_state_3"], result["hidden_states"][3])
    assert upstream.get_downsample_rates("hidden_states") == 320


@torch.no_grad()
def test_states_of_a_teacher_are_those_of_hubert(teacher):
    upstream = UpstreamExpert(teacher).eval()
    result = upstream(noise(4000))
    assert result["names"] == ("layer_input", "layer_1", "layer_2")
    for state, reference in zip(
        result["hidden_states"], upstream.encoder(noise(4000)[0][None]).hidden_states, strict=True
    ):
        assert torch.equal(state[:, :12], reference)


@torch.no_grad()
def test_no_pred_by_call_by_keyword_and_by_file(student, tmp_path):
    whole = UpstreamExpert(student).eval()
    (tmp_path / "options.yaml").write_text("no_pred: true\n")
    by_file = UpstreamExpert(student, tmp_path / "options.yaml").eval()
    by_keyword = UpstreamExpert(student, no_pred=True).eval()
    results = [whole(noise(4000), no_pred=True), by_file(noise(4000)), by_keyword(noise(4000))]
    for result in results:
        assert result["names"] == ("projected", "layer_1", "layer_2") and len(result["hidden_states"]) == 3
        assert torch.equal(result["last_hidden_state"], results[0]["paper"])
    assert by_file.encoder.count_parameters() == whole.encoder.count_parameters(heads=False)


@pytest.mark.parametrize("kind", ["student", "teacher"])
@torch.no_grad()
def test_what_s3prl_keeps_does_not_depend_on_the_batch(kind, request):
    """s3prl trims to round(samples / 320) frames, for some lengths one more than the convolutions give."""
    upstream = UpstreamExpert(request.getfixturevalue(kind)).eval()
    waveforms = noise(16000, 8000, 8079, 8080, 8159, 8160, 800, 300)
    kept = [round(len(wav) / 320) for wav in waveforms]
    together = upstream(waveforms)["hidden_states"]
    repeated = 0
    for row, (wav, frames) in enumerate(zip(waveforms, kept)):
        for batched, alone in zip(together, upstream([wav])["hidden_states"]):
            assert alone.shape[1] == frames
            torch.testing.assert_close(batched[row, :frames], alone[0], rtol=1e-5, atol=1e-5)
            repeated += frames > 1 and torch.equal(alone[0, -1], alone[0, -2])
    assert repeated > 0  # the case exists


@torch.no_grad()
def test_frames_past_the_end_repeat_the_last(student):
    result = UpstreamExpert(student).eval()(noise(16000, 8000))
    assert result["frame_lengths"].tolist() == [49, 24]
    for state in result["hidden_states"]:
        assert torch.equal(state[1, 24:], state[1, 23].expand(26, -1))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["student", "teacher"])
@pytest.mark.parametrize("padding", ["masked", "reference"])
def test_work_is_counted_on_shapes_alone(kind, padding, request, caplog):
    expert = UpstreamExpert(request.getfixturevalue(kind), padding=padding).eval()
    with caplog.at_level("DEBUG", "robustdistiller.upstream.model.cost"):
        assert counted_macs(expert, noise(9000)) > counted_macs(expert, noise(7111)) > 0
    assert caplog.messages == []


def test_reference_padding_is_an_option(student):
    wavs = noise(16000, 8000)
    masked, reference = UpstreamExpert(student).eval(), UpstreamExpert(student, padding="reference").eval()
    assert reference.encoder.config.padding == "reference"
    assert (masked(wavs)["paper"][1] - reference(wavs)["paper"][1]).abs().max() > 1e-4


def test_fine_tuning_keeps_the_states_and_reaches_the_weights(student, teacher):
    upstream = UpstreamExpert(student).train()
    for _ in range(5):
        result = upstream(noise(4000, 3000))
        assert len(result["hidden_states"]) == 5
    torch.stack(result["hidden_states"][:3]).sum().backward()
    assert upstream.encoder.extractor.layers[0].conv.weight.grad is not None
    frozen = UpstreamExpert(teacher).train()
    frozen(noise(4000))["paper"].sum().backward()
    assert frozen.encoder.extractor.layers[0].conv.weight.grad is None
    assert frozen.encoder.transformer.layers[0].up.weight.grad is not None
    assert UpstreamExpert(teacher, feature_grad_mult=0.5).encoder.config.feature_grad_mult == 0.5


def test_bad_options_and_waveforms_are_named(student, tmp_path):
    (tmp_path / "bad.yaml").write_text("paddin: reference\n")
    with pytest.raises(ValueError, match="unknown upstream option 'paddin'; did you mean 'padding'"):
        UpstreamExpert(student, tmp_path / "bad.yaml")
    with pytest.raises(ValueError, match="upstream option no_pred: found 'True', expected true or false"):
        UpstreamExpert(student, no_pred="True")
    with pytest.raises(ValueError, match="upstream option padding: found 'masket'"):
        UpstreamExpert(student, padding="masket")
    with pytest.raises(ValueError, match="padding=reference is of whole utterances"):
        UpstreamExpert(student, padding="reference", chunk_frames=8)
    (tmp_path / "text.yaml").write_text("feature_grad_mult: 1e-1\n")  # YAML 1.1 reads a word
    assert UpstreamExpert(student, tmp_path / "text.yaml").encoder.config.feature_grad_mult == 0.1
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        UpstreamExpert(student, tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- no_pred\n")
    with pytest.raises(ValueError, match="holds a list; expected lines of"):
        UpstreamExpert(student, tmp_path / "list.yaml")
    for content in (b"no_pred: [", b"\xff\xfe\x00"):
        (tmp_path / "broken.yaml").write_bytes(content)
        with pytest.raises(ValueError, match=r"broken\.yaml is not YAML: "):
            UpstreamExpert(student, tmp_path / "broken.yaml")
    upstream = UpstreamExpert(student)
    with pytest.raises(ValueError, match="the list of waveforms is empty"):
        upstream([])
    with pytest.raises(ValueError, match=r"waveform 1 has shape \(0,\)"):
        upstream([torch.zeros(800), torch.zeros(0)])
    with pytest.raises(ValueError, match=r"waveform 0 is torch.int16; expected float32 in \[-1, 1\]"):
        upstream([torch.zeros(800, dtype=torch.int16)])


def test_importing_the_package_does_not_import_s3prl():
    code = "import sys, robustdistiller.upstream; sys.exit(bool({'s3prl', 'fairseq'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_registered_entries_work_through_s3prl(student):
    from robustdistiller.upstream import register

    register()
    import s3prl.hub
    from s3prl.nn import S3PRLUpstream
    from s3prl.upstream.interfaces import Featurizer

    assert ENTRIES.keys() <= set(s3prl.hub.options())
    assert set(ENTRIES) - {"robustdistiller_local", "robustdistiller_url"} <= set(s3prl.hub.options(True))
    upstream = s3prl.hub.robustdistiller_local(ckpt=str(student), model_config=None, refresh=False)
    featurizer = Featurizer(upstream, "hidden_states", upstream_device="cpu")
    assert featurizer.weights.numel() == 5
    wavs = noise(16000, 8000)
    features = featurizer(wavs, upstream(wavs))
    assert [tuple(feature.shape) for feature in features] == [(50, 24), (25, 24)]
    assert Featurizer(upstream, "paper", upstream_device="cpu").output_dim == 24
    wrapped = S3PRLUpstream("robustdistiller_local", str(student), extra_conf={"no_pred": True})
    assert wrapped.num_layers == 3
    states, lengths = wrapped(torch.randn(2, 16000), torch.tensor([16000, 8000]))
    assert len(states) == 3 and lengths[0].tolist() == [50, 25]


def test_mini_entry_takes_a_student(student):
    assert ENTRIES["robustdistiller_mini"](ckpt=student).names[-1] == "prediction_8"


def test_entries_refuse_a_missing_checkpoint(student):
    for name in ("robustdistiller_local", "robustdistiller_url", "robustdistiller_onnx"):
        with pytest.raises(ValueError, match=f"{name} needs a model: give -k NAME"):
            ENTRIES[name]()
    with pytest.raises(FileNotFoundError, match=r"student\.ckpt: expected a file or folder, found nothing there"):
        ENTRIES["robustdistiller_url"](ckpt="student.ckpt")
    with pytest.raises(ValueError, match="robustdistiller_onnx takes no options, found no_pred"):
        ENTRIES["robustdistiller_onnx"](ckpt=student, no_pred=True)


def test_entries_are_the_registry_and_are_not_taken_for_folders(student, tmp_path, monkeypatch):
    from robustdistiller.upstream.pretrained.registry import MODELS

    assert {name for name in MODELS if "/" not in name} < set(ENTRIES)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "robustdistiller_wavlm").mkdir()  # the experiment with it
    monkeypatch.setenv("ROBUSTDISTILLER_WAVLM_CKPT", str(student))
    assert ENTRIES["robustdistiller_wavlm"](model_config=None, refresh=False).checkpoint_path == student
    assert ENTRIES["dphubert"](ckpt="robustdistiller_mini").num_layers == 5  # -k is a name of any kind


SCRIPT = """
import sys, torch
from robustdistiller.upstream import register

register()
from s3prl.nn import S3PRLUpstream

upstream = S3PRLUpstream("robustdistiller_local", path_or_url=sys.argv[1])
states, lengths = upstream(torch.randn(2, 16000), torch.tensor([16000, 8000]))
print(len(states), lengths[0].tolist())
"""


def test_a_plain_script_without_our_launcher(student, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "script.py", student], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "5 [50, 25]\n", done.stderr
