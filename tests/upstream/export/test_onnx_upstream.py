"""`robustdistiller_onnx`: an exported file is an s3prl upstream like the checkpoint it was made from."""

import pytest
import torch

from robustdistiller.eval.cost.counting import count_macs, count_parameters
from robustdistiller.upstream import UpstreamExpert, load_encoder
from robustdistiller.upstream.export import export_model
from robustdistiller.upstream.model.cost import encoder_macs
from robustdistiller.upstream.s3prl.entries import ENTRIES

LENGTHS = [16000, 8123, 300, 12000]


@pytest.fixture(scope="module")
def wavs():
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(length, generator=generator) * 0.1 for length in LENGTHS]


@pytest.mark.parametrize("no_pred", [False, True])
@torch.no_grad()
def test_same_features_as_the_checkpoint(checkpoints, exported, wavs, no_pred):
    ours = ENTRIES["robustdistiller_onnx"](ckpt=exported("student", "onnx").path)
    theirs = UpstreamExpert(checkpoints["student"]).eval()
    found, expected = ours(wavs, no_pred=no_pred), theirs(wavs, no_pred=no_pred)
    assert found.keys() == expected.keys() and found["names"] == expected["names"]
    assert found["frame_lengths"].tolist() == expected["frame_lengths"].tolist()
    for key in (*(f"hidden_state_{number}" for number in range(len(found["names"]))), "last_hidden_state", "paper"):
        torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-4)
    assert ours.get_downsample_rates("hidden_states") == 320
    assert ours.num_parameters == sum(weight.numel() for weight in theirs.parameters())


def test_s3prl_takes_it(exported):
    from robustdistiller.upstream import register

    register()
    from s3prl.nn import S3PRLUpstream

    upstream = S3PRLUpstream("robustdistiller_onnx", path_or_url=str(exported("student", "onnx").path))
    states, lengths = upstream(torch.randn(2, 16000), torch.tensor([16000, 8000]))
    assert len(states) == 5 and lengths[0].tolist() == [50, 25]


def test_its_cost_is_that_of_the_checkpoint(checkpoints, exported):
    ours = ENTRIES["robustdistiller_onnx"](ckpt=exported("student", "onnx").path)
    encoder = load_encoder(checkpoints["student"])
    found = count_macs(ours, (1.0,))
    expected = encoder_macs(encoder.config, 1.0, heads=True)
    assert found["lengths"][0]["macs"] == expected > 0 and "configuration" in found["tool"]
    assert count_parameters(ours)["used"] == encoder.count_parameters()


def test_a_file_of_some_layers_has_their_parameters_alone(checkpoints, tmp_path):
    encoder = load_encoder(checkpoints["student"])
    export_model(checkpoints["student"], tmp_path / "s.onnx", "onnx", ["projected"])
    upstream = ENTRIES["robustdistiller_onnx"](ckpt=tmp_path / "s.onnx")
    used = [*encoder.extractor.parameters(), *encoder.projection.parameters()]
    assert count_parameters(upstream)["used"] == upstream.num_parameters == sum(weight.numel() for weight in used)


def test_options_are_refused(exported, tmp_path):
    with pytest.raises(ValueError, match="takes no options, found options"):
        ENTRIES["robustdistiller_onnx"](ckpt=exported("student", "onnx").path, model_config="options.yaml")
