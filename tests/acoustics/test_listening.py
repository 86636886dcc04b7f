"""The page of speech under conditions: whole in itself, true to what was heard, and working in a browser."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import soundfile
from PIL import Image

from robustdistiller.acoustics import Condition, Corruptor
from robustdistiller.acoustics.listening.page import DistanceTable, Version, listening_page, make_versions
from robustdistiller.acoustics.listening.spectrogram import draw_spectrogram, magnitudes
from tests.pages import Page, in_browser, needs_browser

CONDITIONS = ("clean", "noise:snr_db=0,noise=white", "low_pass:cutoff_hz=2000")
RATE_HZ = 16000


def tone(frequency_hz: float = 1000.0, samples: int = 24001, level: float = 0.1) -> np.ndarray:
    return (level * np.sin(2 * np.pi * frequency_hz * np.arange(samples) / RATE_HZ)).astype(np.float32)


def versions_of(waveform: np.ndarray, name: str = "one") -> list[Version]:
    conditions = [Condition.parse(text) for text in CONDITIONS]
    corruptors = {one: Corruptor(one) if one.kind != "clean" else None for one in conditions}
    return make_versions(waveform, name, corruptors)


def decoded(page: str) -> list[np.ndarray]:
    """The sounds of a page, in its order."""
    return [
        soundfile.read(io.BytesIO(base64.b64decode(found)))[0]
        for found in re.findall(r"audio/mpeg;base64,([^\"]+)", page)
    ]


def pixels(image: str) -> np.ndarray:
    """(128, columns) levels of an image, low frequencies first."""
    return np.array(Image.open(io.BytesIO(base64.b64decode(image.partition(",")[2]))))[::-1]


def test_a_page_is_whole_in_itself_and_small():
    page = listening_page({"one": versions_of(tone()), "two": versions_of(tone(300.0, 8000), "two")})
    found = Page(page)
    assert found.loads == [] and "script" not in found.tags and "@import" not in page and "default-src 'none'" in page
    assert found.tags.count("audio") == found.tags.count("image") == 6
    assert len(set(found.ids)) == len(found.ids) and len(page) < 400_000
    assert {"one, white noise 0 dB", "utterance-1", "utterance-2"} <= found.labelled | set(found.ids)
    assert "noise:snr_db=0,noise=white" in page and "kind white" in page


def test_what_is_played_is_what_the_model_gets():
    """But for one factor for all versions of an utterance."""
    versions = versions_of(tone())
    sounds = decoded(listening_page({"one": versions}))
    gains = []
    for version, sound in zip(versions, sounds, strict=True):
        gains.append(np.sqrt(np.mean(sound[2000:20000] ** 2) / np.mean(version.waveform[2000:20000] ** 2)))
    assert np.ptp(gains) < 0.03 * np.mean(gains)
    loudest = max(np.abs(version.waveform).max() for version in versions)
    assert gains[0] == pytest.approx(0.9 / loudest, rel=0.06)  # LAME makes everything 5 % quieter


@pytest.mark.parametrize("level", [0.0, 1e-6, 30.0], ids=["silent", "very quiet", "beyond full scale"])
def test_any_level_can_be_looked_at_and_heard(level):
    versions = [Version(Condition(), {}, tone(level=level)), Version(Condition(), {}, tone(500.0, level=2 * level))]
    sounds = decoded(listening_page({"one": versions}))
    peaks = [np.abs(sound).max() for sound in sounds]
    assert peaks == pytest.approx([0.45, 0.9] if level else [0, 0], abs=0.06)


def test_a_spectrogram_shows_frequencies_and_levels_where_they_are():
    magnitude = magnitudes(tone(1000.0))
    assert magnitude.shape == (151, 257) and magnitude.mean(0).argmax() == 32
    image = pixels(draw_spectrogram(magnitude, magnitude.max()).image)
    assert image.shape == (128, 151) and abs(int(image[:, 75].argmax()) - 16) <= 1
    assert image[:, 75].max() >= 60 and image[100:, 75].max() == 0
    quieter = pixels(draw_spectrogram(magnitude / 10**1.75, magnitude.max()).image)  # 35 of 70 dB below
    assert int(image[:, 75].max()) - int(quieter[:, 75].max()) == pytest.approx(63 / 2, abs=1)


def test_the_last_column_of_a_long_spectrogram_is_as_bright_as_the_others():
    """801 spectra are 401 columns of two, but for the last."""
    assert len(np.unique(pixels(draw_spectrogram(np.ones((801, 257)), 10.0).image))) == 1


def test_the_time_axis_is_that_of_the_sound():
    click = np.zeros(RATE_HZ * 20, np.float32)  # more spectra than an image has columns
    click[RATE_HZ * 5] = 1.0
    found = draw_spectrogram(magnitudes(click), 1.0)
    image = pixels(found.image)
    assert image.shape[1] <= 800 and image.max(0).argmax() / image.shape[1] == pytest.approx(0.25, abs=0.01)
    assert [words for _, words in found.ticks] == ["0", "5", "10", "15", "20"]
    assert {words: place for place, words in found.ticks}["5"] == pytest.approx(0.25, abs=0.001)


def test_names_cannot_become_markup():
    evil = '</style><script>document.title="owned"</script><b>&{{style}}'
    version = Version(Condition(), {"noise": {"name": evil}}, tone(samples=4000))
    table = DistanceTable(evil, evil, [evil], {evil: [None]})
    found = Page(page := listening_page({evil: [version]}, evil, [table], [evil]))
    assert "script" not in found.tags and found.tags.count("b") == 1 and "&lt;b&gt;&amp;{{style}}" in page


_CHECK = """
const players = [...document.querySelectorAll("audio")];
const loaded = (one) => new Promise((done) => {
  if (one.readyState > 0) done(one.duration);
  one.addEventListener("loadedmetadata", () => done(one.duration));
  one.addEventListener("error", () => done(one.error.message));
});
const found = { errors: window.wrong, durations: await Promise.all(players.map(loaded)) };
const images = [...document.querySelectorAll("svg image")].map((image) => image.getBoundingClientRect());
found.images = images.map((box) => [Math.round(box.width), Math.round(box.height)]);
const summary = document.querySelector("summary");
summary.focus();
found.focused = document.activeElement === summary;
summary.click();
found.drawn = document.querySelector("details p").getBoundingClientRect().height > 0;
players[0].focus();
found.player = document.activeElement === players[0] && players[0].controls;
found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
found.width = window.innerWidth;
"""


@needs_browser
def test_the_page_works_in_a_browser_of_phone_width(tmp_path):
    versions = versions_of(tone(), "a_very_long_name_of_an_utterance_" * 4)
    for version in versions:
        version.enhanced, version.resynthesis = magnitudes(version.waveform), version.waveform
    table = DistanceTable("Hidden states", "1 - cos", [f"condition {i}" for i in range(9)], {"layer 1": [0.5] * 9})
    page = listening_page({"a_very_long_name_of_an_utterance_" * 4: versions}, "student.ckpt", [table])
    found = in_browser(page, _CHECK, tmp_path)
    assert found["errors"] == [] and found["durations"] == pytest.approx([1.5] * 6, abs=0.15)
    assert all(width > 250 and height > 90 for width, height in found["images"]) and len(found["images"]) == 6
    assert found["focused"] and found["drawn"] and found["player"]
    assert found["width"] == 390 and found["overflow"] == 0
