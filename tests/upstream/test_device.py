"""Devices that are not there, or are none, are refused in a short sentence."""

import pytest

from robustdistiller.upstream.device import usable_device


@pytest.mark.parametrize("name", ["xla", "hpu", "meta", "CPU", "cuda:99", "opencl", ""])
def test_refused_in_a_short_sentence(name):
    with pytest.raises(ValueError, match=rf"device '{name}' cannot be used \(.*\); expected such as cpu") as refused:
        usable_device(name)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300
