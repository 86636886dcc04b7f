"""What the quickstart does: two distillations on the embedded corpus, and the file of one sweep over what they made."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from robustdistiller.common.files import write_text
from robustdistiller.common.written import dump_yaml

CONDITIONS = ("clean", "noise:snr_db=10", "noise:snr_db=0", "reverb", "noise+reverb:snr_db=10")
_TASK = "fluent_commands"
_PREFIX = "config."
# The mini teacher has five layers and the pool 1.2 hours of speech: what the published recipes are scaled down by.
_SCALED_DOWN = (
    "targets.layers=[2,3,5]",
    "data.max_samples=48000",
    "data.num_workers=0",
    "trainer.batch_size=6",
    "trainer.log_every_steps=25",
    "trainer.save_every_steps=50",
    "trainer.accelerator=cpu",
    "optim.lr=1e-3",
    # Few steps over little speech: no need to regularise.
    "student.dropout=0",
    "student.attention_dropout=0",
    "student.activation_dropout=0",
)
_SMALL_ENHANCEMENT = ("objectives.enhancement.hidden_size=64", "objectives.enhancement.num_layers=1")
_NOTE = "made_from.txt"


@dataclass(frozen=True)
class Distil:
    """The work of a job: train a student, or go on with it.

    Attributes:
        recipe, overrides: as `robustdistiller distill` takes them.
        folder: of the student.
        made_from: digest of all that makes the student; a folder that was made from something else is emptied.
    """

    doing: ClassVar[str] = "distilling"

    recipe: str
    overrides: tuple[str, ...]
    folder: Path
    made_from: str

    def __call__(self, folder: Path) -> None:
        """Distil in this process."""
        from robustdistiller import pretrain

        if self.folder.exists() and _read(folder / _NOTE) != self.made_from:
            shutil.rmtree(self.folder)
        write_text(folder / _NOTE, self.made_from)
        pretrain.distill(pretrain.load_config(self.recipe, [*self.overrides, f"out_dir={self.folder}"]))


@dataclass(frozen=True)
class Quickstart:
    """Settings of the quickstart.

    Attributes:
        out: folder that holds everything.
        teacher: checkpoint to distil.
        steps: training steps of each student.
        head_steps: training steps of each head; 0: as many as the embedded corpus recommends.
        jobs: jobs side by side.
        device: where heads are trained and evaluated.
        seed: of students and heads.
        conditions: test conditions, in their one-line form.
    """

    out: Path
    teacher: Path
    steps: int = 500
    head_steps: int = 0
    jobs: int = 2
    device: str = "auto"
    seed: int = 1337
    conditions: tuple[str, ...] = CONDITIONS

    @property
    def students(self) -> dict[str, Path]:
        """Label and checkpoint of each student."""
        return {f"{kind} student": self.out / "students" / kind / "student.ckpt" for kind in ("plain", "robust")}

    def distillations(self) -> list[Any]:
        """A job for each student that is not there yet, the longer one first."""
        from robustdistiller import mini
        from robustdistiller.eval.sweep.engine import Job
        from robustdistiller.upstream import checkpoint_digest

        corpus = mini.MiniCorpus(self.out / "corpus")
        data = (f"teacher.checkpoint={self.teacher}", f"data.speech={corpus.pool}")
        noise = (f"data.noise={corpus.noise_train}", f"data.rir={corpus.rir_train}")
        settings = (*_SCALED_DOWN, *_precision(), f"trainer.max_steps={self.steps}", f"seed={self.seed}")
        contents = [checkpoint_digest(self.teacher), mini.corpus.data_digest()]
        jobs = []
        for kind, recipe, where, own in (
            ("robust", "robustdistiller", (*data, *noise), (*settings, *_SMALL_ENHANCEMENT)),
            ("plain", "distilhubert", data, settings),
        ):
            # Where things lie is no part of it: the folder may be moved between two starts.
            made_from = hashlib.sha256(json.dumps([recipe, own, contents]).encode()).hexdigest()
            student = self.students[f"{kind} student"]
            work = Distil(recipe, (*where, *own), student.parent, made_from)
            job = Job(f"distil {kind} student", self.out / "jobs" / f"distil-{kind}", work)
            outcome = job.outcome
            finished = outcome is not None and outcome.state == "done" and student.is_file()
            if not finished or _read(job.folder / _NOTE) != made_from:
                jobs.append(job)
        return jobs

    def write_sweep(self) -> Path:
        """Write the sweep's file, which `robustdistiller sweep` can run again, changed or not; returns its path."""
        from robustdistiller import mini

        corpus = mini.MiniCorpus(self.out / "corpus")
        local = "robustdistiller_local"
        upstreams = [
            {"name": local, "checkpoint": str(self.teacher), "label": "teacher"},
            # s3prl's fbank subtracts the utterance's mean, which is all that the head of this task looks at; without
            # that normalisation it is a baseline that can be wrong.
            *({"name": name, "label": name} for name in ("fbank", "fbank_no_cmvn")),
            *({"name": local, "checkpoint": str(path), "label": label} for label, path in self.students.items()),
        ]
        head = {key.removeprefix(_PREFIX): value for key, value in corpus.head_options(_TASK).items()}
        steps = self.head_steps or head["runner.total_steps"]
        rate = head.pop("optimizer.lr")
        head["scheduler"] = {**head["scheduler"], "num_warmup_steps": steps // 15}
        head |= {"runner.total_steps": steps, "downstream_expert.datarc.num_workers": 0}
        head |= {f"runner.{name}": max(1, steps // 8) for name in ("eval_step", "save_step", "log_step")}
        data = {key.rsplit(".", 1)[-1]: path for key, path in corpus.overrides(_TASK).items()}
        settings = {
            "out": str(self.out),
            "upstreams": upstreams,
            "tasks": [{"task": "IC", "data": data, "override": head, "learning_rates": [rate]}],
            "conditions": list(self.conditions),
            "seeds": [self.seed],
            "device": self.device,
            "feature_cache": "auto",
            "check_upstreams": False,  # they are known to be sound, and each look takes a process
            "executor": {"kind": "pool", "workers": self.jobs, "memory_gb": 1.5},
        }
        return write_text(self.out / "quickstart.yaml", dump_yaml(settings))


def _precision() -> tuple[str, ...]:
    """bfloat16 where the processor computes in it (twice as fast there), float32 elsewhere."""
    import torch

    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return ("trainer.precision=bf16", "teacher.autocast=true") if native else ("trainer.precision=fp32",)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
