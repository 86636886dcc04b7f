"""How conditions are shown and ordered."""

import pytest

from robustdistiller.eval.report.cells import condition_order, condition_title


@pytest.mark.parametrize(
    ("condition", "title"),
    [
        ("clean", "clean"),
        ("noise:snr_db=5,noise=/data/musan", "musan noise 5 dB"),
        ("noise:snr_db=10..20,noise=chime", "chime noise 10 to 20 dB"),
        ("noise+reverb:snr_db=0,rt60_s=0.4..0.8", "noise 0 dB + reverb 0.4 to 0.8 s"),
        ("reverb:rir=rooms,reverb_level=direct", "reverb rooms (direct level)"),
        ("noise:snr_db=5,noise=babble,talkers=4,side=test", "babble 5 dB, 4 talkers, test side"),
        ("of another release", "of another release"),
    ],
)
def test_titles(condition, title):
    assert condition_title(condition) == title


def test_clean_comes_first_then_louder_noise_longer_rooms_and_both():
    ordered = ["clean", "noise:snr_db=20", "noise:snr_db=-5", "reverb:rt60_s=0.25..0.5", "reverb:rt60_s=0.6"]
    ordered += ["noise+reverb:snr_db=10", "noise+reverb:snr_db=0", "unknown"]
    shuffled = [*ordered[4:], *ordered[:4]]
    assert sorted(shuffled, key=condition_order) == ordered
