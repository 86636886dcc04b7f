"""Frames of a student beside those of a teacher: other strides are refused, other centres are paired or refused."""

import pytest
import torch

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.teacher.protocol import Teacher, frame_shift, shifted
from robustdistiller.upstream import EncoderConfig, SpeechEncoder
from robustdistiller.upstream.pretrained.whisper.config import WhisperConfig
from robustdistiller.upstream.pretrained.whisper.encoder import WhisperEncoder

#: (kernel, stride) of extractors: wav2vec 2.0's; half its stride; two of its stride and another field.
USUAL = ((10, 5), *((3, 2),) * 4, *((2, 2),) * 2)
HALF = ((10, 5), *((3, 2),) * 4, (2, 2), (2, 1))
FIELD_325 = ((10, 5), *((2, 2),) * 6)
FIELD_880 = ((10, 5), *((3, 2),) * 4, (2, 2), (5, 2))


def conv(layers):
    return SpeechEncoder(EncoderConfig.tiny(conv_layers=tuple((16, kernel, stride) for kernel, stride in layers)))


def whisper():
    return WhisperEncoder(WhisperConfig(embed_dim=16, num_layers=2, num_heads=2, ffn_dim=32))


def centres(model, samples):
    """The sample around which each frame lies."""
    return model.first_centre_sample + torch.arange(model.num_frames(samples)) * model.downsample_rate


def test_both_kinds_are_teachers():
    for model, centre in ((conv(USUAL), 199.5), (whisper(), 0.0)):
        assert isinstance(model, Teacher)
        assert (model.num_layers, model.width, model.downsample_rate) == (2, 16, 320)
        assert model.first_centre_sample == centre


@pytest.mark.parametrize("layers", [USUAL, FIELD_325, FIELD_880])
def test_the_first_centre_is_the_middle_of_what_the_first_frame_hears(layers):
    model = conv(layers)
    wave = torch.randn(1, 4000, requires_grad=True)
    features = wave[:, None]
    for layer in model.extractor.layers:
        features = layer.conv(features)
    features[0, :, 0].sum().backward()
    heard = wave.grad[0].nonzero().flatten()
    assert (heard.min() + heard.max()).item() / 2 == model.first_centre_sample


def test_another_stride_is_refused_with_both():
    with pytest.raises(SettingsError) as error:
        frame_shift(conv(HALF), conv(USUAL))
    said = str(error.value)
    assert "every 160 samples" in said and "every 320 samples" in said and "\n" not in said
    assert said.count("around") == 2  # and where the first frames lie
    with pytest.raises(SettingsError, match="every 160 samples"):
        frame_shift(whisper(), conv(HALF))


@pytest.mark.parametrize(
    ("student", "teacher", "shift"),
    [
        (conv(FIELD_325), conv(USUAL), 0),
        (conv(USUAL), conv(FIELD_325), 0),
        (conv(FIELD_880), conv(USUAL), 1),
        (conv(USUAL), whisper(), 1),
        (conv(FIELD_325), whisper(), 1),
        (conv(USUAL), conv(USUAL), 0),
    ],
)
def test_nearest_frames_are_paired_for_every_length(student, teacher, shift):
    """Of every length from one frame to many: as many pairs as both have, each less than half a frame apart."""
    found = frame_shift(student, teacher)
    assert found == shift
    for samples in range(1040, 6000, 7):
        ours, theirs = centres(student, samples), centres(teacher, samples)
        numbers = torch.arange(len(theirs)).float().reshape(1, -1, 1) + 1
        beside = shifted(numbers, found, len(ours)).flatten().long()  # 0 is none
        assert len(beside) == len(ours)
        common = min(len(ours), len(theirs) - found)
        assert (beside[:common] > 0).all() and (beside[common:] == 0).all()
        if common:
            assert (theirs[beside[:common] - 1] - ours[:common]).abs().max() < 160


def test_frames_half_way_between_are_refused():
    student = conv(((10, 5), *((2, 2),) * 6))
    teacher = conv(USUAL)

    class Between:
        downsample_rate, first_centre_sample = 320, student.first_centre_sample + 160

    with pytest.raises(SettingsError, match="160 samples apart, expected less than half a frame"):
        frame_shift(student, Between())
    assert frame_shift(student, teacher) == 0


def test_a_teacher_that_starts_later_is_refused():
    """Its first frame would lie beside the student's second, and the first would have no target."""

    class Later:
        downsample_rate, first_centre_sample = 320, 600.0

    with pytest.raises(SettingsError, match="the student's first frames would have no target"):
        frame_shift(conv(FIELD_325), Later())
