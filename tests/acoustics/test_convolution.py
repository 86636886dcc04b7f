"""Block convolution: against the definition, and what its bytes depend on."""

import numpy as np
import pytest
import scipy.signal

from robustdistiller.acoustics import convolution
from robustdistiller.acoustics.convolution import convolve


@pytest.mark.parametrize("length", [1, 2, 39, 800, 5000, 40_000, 250_000])
@pytest.mark.parametrize("taps", [1, 2, 41, 1731, 8000, 64_000])
def test_it_is_the_convolution(length, taps):
    rng = np.random.default_rng(length + taps)
    taps = min(taps, length + 40)
    lead = min(40, taps - 1)
    signal, response = rng.standard_normal(length), rng.standard_normal(taps) * np.exp(-4 * np.arange(taps) / taps)
    expected = scipy.signal.fftconvolve(signal, response)[lead : lead + length]
    found = convolve(signal.astype(np.float32), response.astype(np.float32), lead)
    assert found.dtype == np.float32 and found.shape == (length,)
    size = np.linalg.norm(signal) * np.linalg.norm(response)
    assert np.abs(found - expected).max() < 2e-7 * size
    if lead:
        late = convolve(signal.astype(np.float32), response.astype(np.float32), lead - 1)
        assert np.abs(late - expected).max() > 1e-4 * size / np.sqrt(length)


def test_every_layout_gives_the_same(monkeypatch):
    """Whatever the number of blocks, and with rows added so that four are transformed at once."""
    rng = np.random.default_rng(0)
    signal, response = rng.standard_normal(20_000, np.float32), rng.standard_normal(3000, np.float32)
    expected = convolve(signal, response, 40)
    layouts = list(convolution._layouts(20_000, 3000))
    assert {blocks for _, blocks in layouts} >= {1, 2, 3, 4, 5}
    for layout in layouts:
        monkeypatch.setattr(convolution, "_layout", lambda length, taps, layout=layout: layout)
        np.testing.assert_allclose(convolve(signal, response, 40), expected, atol=2e-4)


def test_sizes_are_few_and_grow_slowly_with_the_response():
    """SciPy keeps the tables of 16 sizes; work per sample rises as the logarithm of the response's length."""
    lengths, taps = range(64_000, 250_001, 6000), (4000, 8000, 16_000)
    assert len({convolution._layout(length, one)[0] for length in lengths for one in taps}) <= 14
    work = [convolution._cost(convolution._layout(240_000, one)) for one in (4000, 64_000)]
    assert work[1] / work[0] < 2.5
