"""The edge example: the model is made, words come as in torch, with nothing but numpy and in a browser."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from robustdistiller.mini import MiniCorpus
from robustdistiller.pretrain.multitask.heads import load_heads
from robustdistiller.upstream import ChunkedEncoder, ChunkOptions, load_encoder
from tests.waiting import HANG_S

EDGE = Path(__file__).parents[2] / "examples" / "edge"
BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
RUNTIME = EDGE / "node_modules" / "onnxruntime-web"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"edge_{name}", EDGE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recordings() -> tuple:
    """The words of the example, and its recordings to train on and to test on, and others."""
    module = load("make_model")
    return module.WORDS, module.read_words()


@pytest.fixture(scope="module")
def made(corpus: MiniCorpus, recordings: tuple, tmp_path_factory) -> Path:
    """Folders `model` and `work` of a model that has hardly been trained; the test is cut to its first seconds."""
    folder = tmp_path_factory.mktemp("edge")
    options = {"out": folder / "model", "work": folder / "work", "corpus": corpus.root}
    options |= {"steps": 1, "word-steps": 2, "each": 2}
    module, found = load("make_model"), recordings[1]
    module.read_words = lambda: found
    module.main([f"--{name}={value}" for name, value in options.items()])
    samples, rate_hz = soundfile.read(folder / "model" / "test.wav", dtype="float32")
    soundfile.write(folder / "model" / "test.wav", samples[: 6 * rate_hz + 123], rate_hz)
    return folder


def test_the_test_holds_recordings_that_are_not_trained_on(recordings: tuple, made: Path) -> None:
    words, (training, testing, others) = recordings
    assert set(training) == set(testing) == set(words)
    hashes = [{samples.tobytes() for found in part.values() for samples in found} for part in (training, testing)]
    assert not hashes[0] & hashes[1] and not hashes[1] & {samples.tobytes() for samples in others}
    rows = [line.split("\t") for line in (made / "model" / "test.tsv").read_text().splitlines()[1:]]
    assert sorted(word for _, _, word in rows) == sorted(words)
    first = float(rows[0][0])
    whole, rate_hz = soundfile.read(made / "model" / "test.wav", dtype="float32")
    assert np.abs(whole[int((first + 0.1) * rate_hz) :][:4000]).max() > 0.01


def test_probabilities_are_those_of_torch_whatever_the_pieces(made: Path) -> None:
    keywords = load("keywords")
    samples, _ = soundfile.read(made / "model" / "test.wav", dtype="float32")
    encoder, head = load_encoder(made / "work/words/student.ckpt").eval(), load_heads(made / "work/words/heads.ckpt")
    chunked = ChunkedEncoder(encoder, ChunkOptions(8, left_frames=100))
    with torch.no_grad():
        frames = chunked(torch.from_numpy(samples)[None]).hidden_states[-1][0]
        ends = range(8, len(frames) + 1, 8)
        means = torch.stack([frames[max(end - 50, 0) : end].mean(0) for end in ends])
        expected = head["keywords"].classify(means).softmax(-1).numpy()
    spotter = keywords.Spotter(made / "model" / "keywords.onnx")
    assert spotter.labels == head.config.labels["keywords"]
    for size in (len(samples), 333):
        spotter.restart()
        pieces = (samples[start : start + size] for start in range(0, len(samples), size))
        found = [probabilities for piece in pieces for _, probabilities in spotter.push(piece)]
        assert len(expected) - 1 <= len(found) <= len(expected)
        np.testing.assert_allclose(found, expected[: len(found)], atol=1e-4)


def test_a_word_is_said_once_and_noise_has_the_asked_for_power() -> None:
    keywords = load("keywords")

    class Spotter:
        labels = ("_unknown_", "yes")

        def push(self, piece):
            yield piece

    steps = [(0.16 * n, np.array([1 - p, p])) for n, p in enumerate([0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0.9])]
    found = list(keywords.words(Spotter(), steps, 0.6))
    assert [(round(time_s, 2), word) for time_s, word, _ in found] == [(0.32, "yes"), (1.76, "yes")]
    speech = np.sin(np.arange(16000, dtype=np.float32))
    noise = keywords.add_noise(speech, 10, np.random.default_rng(0).normal(size=700)) - speech
    assert 10 * np.log10(np.mean(speech**2) / np.mean(noise**2)) == pytest.approx(10, abs=1e-3)


def run(*arguments: object) -> list[str]:
    """keywords.py in a process that has numpy, onnxruntime and soundfile alone."""
    code = f"""
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {{"torch", "robustdistiller", "scipy", "onnx", "pandas", "lhotse"}}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
sys.argv = {["keywords", *map(str, arguments)]!r}
runpy.run_path({str(EDGE / "keywords.py")!r}, run_name="__main__")
"""
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", ["keywords.onnx", "keywords-int8.onnx"])
def test_words_come_with_time_and_confidence_under_noise(made: Path, name: str) -> None:
    model, wav = made / "model" / name, made / "model" / "test.wav"
    lines = run(model, wav, "--snr-db", 5, "--threshold", 0)
    assert re.fullmatch(r"model   2\.\d\d M parameters, \d\.\d MB, 12 classes", lines[0])
    assert re.fullmatch(r"speed   real-time factor \d\.\d{3} on 1 thread\(s\): \d+ times as fast as speech", lines[1])
    assert lines[2:4] == ["stream  a step each 160 ms, the first after 165 ms", "noise   white, 5 dB below the speech"]
    assert all(re.fullmatch(r" *\d+\.\d\d s  [a-z ]{12,} [01]\.\d\d", line) for line in lines[4:])


DRIVE = """
<script type="module">
const $ = (id) => document.getElementById(id);
const wait = async (ready) => { while (!ready()) await new Promise((done) => setTimeout(done, 50)); };
const failed = () => ["404", "rror"].some((sign) => $("state").textContent.includes(sign));
await wait(() => !$("test").disabled || failed());
$("threshold").value = 0;
if (!failed()) $("test").click();
await wait(() => $("state").textContent.startsWith("heard") || failed());
const words = [...document.querySelectorAll("#words li")].map((line) => [...line.children].map((c) => c.textContent));
// The probabilities of every step, which words of a model that has hardly been trained say little of.
const ort = await import("./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs");
const { Spotter } = await import("./spotter.js");
const bytes = async (path) => (await fetch(path)).arrayBuffer();
const notes = await (await fetch("model/keywords.json")).json();
const spotter = await Spotter.open(ort, await bytes("model/keywords.onnx"), notes);
const sound = await new OfflineAudioContext(1, 1, spotter.rateHz).decodeAudioData(await bytes("model/test.wav"));
spotter.samples = sound.getChannelData(0);
const steps = [];
while (spotter.samples.length >= spotter.size) steps.push([...await spotter.step()]);
await fetch("/done", { method: "POST", body: JSON.stringify({
  words, steps, about: $("about").textContent, state: $("state").textContent }) });
</script>
"""


class Pages(SimpleHTTPRequestHandler):
    """The page and what it loads; what it has to say comes back by POST."""

    def __init__(self, *arguments, said: list, arrived: threading.Event, **options):
        self.said, self.arrived = said, arrived
        super().__init__(*arguments, **options)

    def do_POST(self) -> None:
        self.said.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()
        self.arrived.set()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH (Debian: apt-get install chromium)")
@pytest.mark.skipif(not RUNTIME.is_dir(), reason="no onnxruntime-web: run `npm install` in examples/edge")
def test_the_page_hears_the_same_words(made: Path, tmp_path: Path) -> None:
    for name in ("page.js", "spotter.js"):
        shutil.copy(EDGE / name, tmp_path)
    page = (EDGE / "index.html").read_text(encoding="utf-8").replace("</html>", DRIVE + "</html>")
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    (tmp_path / "node_modules").symlink_to(EDGE / "node_modules")
    (tmp_path / "model").symlink_to(made / "model")
    said, arrived = [], threading.Event()
    handler = partial(Pages, said=said, arrived=arrived, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        browser = subprocess.Popen(
            [
                *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"),
                *("--no-first-run", "--disable-extensions", "--disable-background-networking"),
                *("--remote-debugging-port=0", f"http://127.0.0.1:{server.server_port}/index.html"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert arrived.wait(HANG_S), "the page has said nothing"
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
    (found,) = said
    assert re.match(r"2\.\d\d M parameters, \d\.\d MB, real-time factor \d\.\d{3}; it knows: bravo, ", found["about"])
    assert found["state"] == "heard 6.0 s"
    spotter = load("keywords").Spotter(made / "model" / "keywords.onnx")
    samples, _ = soundfile.read(made / "model" / "test.wav", dtype="float32")
    expected = [probabilities for _, probabilities in spotter.push(samples)]
    np.testing.assert_allclose(found["steps"], expected, atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 1e-3  # a step that forgets what was before it gives others
    lines = run(made / "model" / "keywords.onnx", made / "model" / "test.wav", "--threshold", 0)[3:]
    expected = [re.fullmatch(r" *(\S+) s  (.*?) +(\S+)", line).groups() for line in lines]
    assert [(f"{time_s} s", word) for time_s, word, _ in expected] == [(time, word) for time, word, _ in found["words"]]
    for (*_, ours), (*_, theirs) in zip(expected, found["words"], strict=True):
        assert float(theirs) == pytest.approx(float(ours), abs=0.011)
