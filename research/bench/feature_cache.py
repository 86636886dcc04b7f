"""Heads trained and scored by unchanged s3prl, with the features of the frozen upstream kept or computed again.

The other way is s3prl's own training loop on the same upstream, corpus, order and seed. Only the loop is timed: start,
imports and the reading of tables are the same for both.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from research.bench.measure import Comparison
from research.bench.settings import Findings, Settings
from robustdistiller import mini
from robustdistiller.eval.results.files import read_records
from robustdistiller.eval.run import launcher
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint
from robustdistiller.upstream.s3prl import bridge

EXPERT = "config.downstream_expert"
_EPOCHS = 20
_EVALUATED = 64
_PUBLISHED_EPOCHS = 277  # of intent classification: 200,000 steps of 32 among 23,132 utterances


def run(settings: Settings) -> Findings:
    """Steps with and without a cache, a whole training, and evaluation with and without reading ahead."""
    bridge.install()
    corpus = mini.build(settings.work / "corpus")
    student = distilhubert_shaped(settings)
    bench = Heads(settings, corpus, student)
    intents, voices = "fluent_commands", "voxceleb1"
    items = 64 if settings.quick else 256
    short = _shorter(corpus, settings.work / "intents", items)
    root = {f"{EXPERT}.datarc.file_path": str(short)}
    steps = 2 if settings.quick else 8
    step = bench.steps("IC, training step of 32 utterances", intents, root, steps, target=20.0)
    epochs = 2 if settings.quick else _EPOCHS
    whole = bench.whole(f"IC, training of {epochs} epochs on {items} utterances", intents, root, epochs * items // 32)
    single = bench.evaluation("SID, evaluation, 40 s read ahead against batches of one", voices)
    stock, kept = sorted(step.peer_s)[len(step.peer_s) // 2], sorted(step.ours_s)[len(step.ours_s) // 2]
    projected = _PUBLISHED_EPOCHS * stock / (stock + (_PUBLISHED_EPOCHS - 1) * kept)
    text = (
        "Features are computed in the first epoch only: from the steps above, the "
        f"{_PUBLISHED_EPOCHS} epochs of SUPERB's intent classification take 1/{projected:.1f} of the time (projected, "
        "not run). Keyword spotting draws a twelfth of its training audio as random crops of background noise, which "
        "no cache can hold: at most 12 times faster.",
    )
    return Findings((step, whole, single), text=text)


class Heads:
    """Runs the launcher in this process, timing s3prl's loop only."""

    def __init__(self, settings: Settings, corpus: mini.MiniCorpus, student: Path) -> None:
        self.settings, self.corpus, self.student = settings, corpus, student
        self.cache = settings.work / "features"
        shutil.rmtree(self.cache, ignore_errors=True)

    def train(self, downstream: str, overrides: dict, steps: int, folder: str, cache: Path | None) -> float:
        """Seconds of the training loop; the head's last checkpoint is left in the folder."""
        path = self.settings.work / folder
        shutil.rmtree(path, ignore_errors=True)
        settings = {
            **({} if downstream == "PR" else self.corpus.overrides(downstream)),
            **overrides,
            **{f"config.runner.{key}": steps for key in ("total_steps", "save_step", "log_step")},
            "config.runner.eval_step": 10 * steps,
            f"{EXPERT}.{'corpus' if downstream == 'ctc' else 'datarc'}.num_workers": 0,
        }
        option = ",,".join(f"{key}={value!r}" for key, value in settings.items())
        command = ["-m", "train", "-u", "robustdistiller_local", "-k", str(self.student), "-d", downstream]
        command += ["-p", str(path), "--device", self.settings.device, "-o", option]
        command += ["--seed", str(self.settings.seed)]
        command += ["--feature-cache", str(cache)] if cache else []
        with _loop_timed() as seconds:
            if launcher.main(command) != 0:
                raise RuntimeError(f"the training of {downstream} failed; see above")
        return seconds[-1]

    def steps(self, part: str, downstream: str, overrides: dict, steps: int, target: float | None = None) -> Comparison:
        """Steps whose features are all there, against steps that compute them."""
        self.train(downstream, overrides, steps, "fill", self.cache)
        ways = {"kept": self.cache, "computed": None}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for round_number in range(self.settings.rounds):
            for name in list(ways) if round_number % 2 == 0 else reversed(list(ways)):
                seconds[name].append(self.train(downstream, overrides, steps, name, ways[name]) / steps)
        return Comparison(
            part, "features kept", "s3prl's loop", tuple(seconds["kept"]), tuple(seconds["computed"]),
            self._equal("kept", "computed", steps), target,
        )  # fmt: skip

    def whole(self, part: str, downstream: str, overrides: dict, steps: int) -> Comparison:
        """A training that begins with an empty cache."""
        empty = self.settings.work / "empty"
        shutil.rmtree(empty, ignore_errors=True)
        ours = self.train(downstream, overrides, steps, "whole-kept", empty)
        peer = self.train(downstream, overrides, steps, "whole-computed", None)
        equal = self._equal("whole-kept", "whole-computed", steps)
        return Comparison(part, "cache empty at first", "s3prl's loop", (ours,), (peer,), equal)

    def evaluation(self, part: str, downstream: str) -> Comparison:
        """A head scored on the test set, the upstream given one utterance at a time, or many sorted by length."""
        meta = f"{EXPERT}.datarc.meta_data"
        listed = Path(self.corpus.overrides(downstream)[meta]).read_text(encoding="utf-8").splitlines(keepends=True)
        parts = [[line for line in listed if line.startswith(split)] for split in "123"]
        few = [part[:: max(1, len(part) // _EVALUATED)][:_EVALUATED] for part in parts]  # of all speakers
        short = self.settings.work / "voices.txt"
        short.write_text("".join(line for lines in few for line in lines), encoding="utf-8")
        learnt = {meta: str(short), "config.optimizer.lr": 1e-2, f"{EXPERT}.datarc.train_batch_size": 16}
        steps = 40  # enough for scores above zero: they are compared below
        self.train(downstream, learnt, steps, "voices", self.cache)
        head = self.settings.work / "voices" / f"states-{steps}.ckpt"

        def evaluate(records: str, *options: str) -> None:
            command = ["-m", "evaluate", "-e", str(head), "--records", str(self.settings.work / records), *options]
            if launcher.main([*command, "--device", self.settings.device]) != 0:
                raise RuntimeError(f"the evaluation of {downstream} failed; see above")

        loops: dict[str, list[float]] = {"ahead": [], "single": []}
        ways = {"ahead": ("--read-ahead-s", "40"), "single": ()}
        for round_number in range(self.settings.rounds):
            for name in list(ways) if round_number % 2 == 0 else reversed(list(ways)):
                evaluate(name, *ways[name])
                loops[name].append(read_records(self.settings.work / name)[0].duration_s)
        scores = [read_records(self.settings.work / name)[0].main_metric.value for name in ways]
        equal = f"scores {scores[0]:.4f} and {scores[1]:.4f}"
        return Comparison(part, "read ahead", "s3prl's batches", tuple(loops["ahead"]), tuple(loops["single"]), equal)

    def _equal(self, ours: str, theirs: str, steps: int) -> str:
        """Largest difference of the trained heads' weights."""
        heads = [
            torch.load(self.settings.work / name / f"states-{steps}.ckpt", weights_only=True)["Downstream"]
            for name in (ours, theirs)
        ]
        worst = max(float((heads[0][name] - heads[1][name]).abs().max()) for name in heads[0])
        return f"weights of the trained heads differ by at most {worst:.1e}"


@contextmanager
def _loop_timed() -> Iterator[list[float]]:
    """Seconds that s3prl's own `Runner.train` takes within the block, less its writing of checkpoints."""
    from s3prl.downstream.runner import Runner

    stock, write, seconds, writing = Runner.train, torch.save, [], []

    def timed(self) -> None:
        writing.clear()
        started = time.perf_counter()
        stock(self)
        seconds.append(time.perf_counter() - started - sum(writing))

    def timed_write(*args, **kwargs) -> None:
        started = time.perf_counter()
        write(*args, **kwargs)
        writing.append(time.perf_counter() - started)

    Runner.train, torch.save = timed, timed_write
    try:
        yield seconds
    finally:
        Runner.train, torch.save = stock, write


def distilhubert_shaped(settings: Settings) -> Path:
    """A student of DistilHuBERT's shape, heads included, with random weights: its speed is that of a trained one."""
    path = settings.work / "student.ckpt"
    small: dict = {}
    if settings.quick:
        layers = ((16, 10, 5), *((16, 3, 2),) * 4, *((16, 2, 2),) * 2)
        small = {"conv_layers": layers, "embed_dim": 64, "num_heads": 4, "ffn_dim": 128}
    torch.manual_seed(settings.seed)
    shape = EncoderConfig(num_layers=2, feature_norm=False, prediction_layers=(4, 8, 12), **small)
    save_checkpoint(path, SpeechEncoder(shape), {})
    return path


def _shorter(corpus: mini.MiniCorpus, folder: Path, items: int) -> Path:
    """The mini corpus' syllables with fewer training items."""
    source = Path(corpus.overrides("fluent_commands")[f"{EXPERT}.datarc.file_path"])
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for table in (source / "data").glob("*.csv"):
        lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / "data" / table.name).write_text("".join(lines[: items + 1]), encoding="utf-8")
    if not (folder / "wavs").exists():
        (folder / "wavs").symlink_to((source / "wavs").resolve())
    return folder
