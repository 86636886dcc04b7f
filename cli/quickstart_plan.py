"""What the quickstart does: two distillations on the embedded corpus, and the file of one sweep over what they made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from robustdistiller import mini, pretrain
from robustdistiller.common.files import write_text
from robustdistiller.common.written import dump_yaml
from robustdistiller.eval.results.identity import made_digest
from robustdistiller.eval.sweep.engine import Job
from robustdistiller.upstream import checkpoint_digest

SHIPPED = "shipped student"  # of the mini teacher, whatever teacher is distilled here
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


@dataclass(frozen=True)
class Quickstart:
    """What `robustdistiller quickstart` is asked for; its options say more. Labels and files of what it makes."""

    out: Path
    teacher: Path
    steps: int
    head_steps: int
    jobs: int
    device: str
    seed: int
    tasks: tuple[str, ...]
    conditions: tuple[str, ...]

    @cached_property
    def students(self) -> dict[str, Path]:
        """Label and checkpoint of each student."""
        return {label: self.out / "students" / job.folder.name / "student.ckpt" for label, job in self._jobs.items()}

    def distillations(self) -> list[Job]:
        """A job for each student that is not there yet, the longer one first."""
        done = [label for label, job in self._jobs.items() if job.outcome and job.outcome.state == "done"]
        return [job for label, job in self._jobs.items() if label not in done or not self.students[label].is_file()]

    @cached_property
    def _jobs(self) -> dict[str, Job]:
        """How each student is made. Their folders' names follow from that, and not from where things lie."""
        corpus = mini.MiniCorpus(self.out / "corpus")
        clean = (f"teacher.checkpoint={self.teacher}", f"data.speech={corpus.pool}")
        noisy = (*clean, f"data.noise={corpus.noise_train}", f"data.rir={corpus.rir_train}")
        settings = (*_SCALED_DOWN, *_precision(), f"trainer.max_steps={self.steps}", f"seed={self.seed}")
        contents = [checkpoint_digest(self.teacher), mini.corpus.data_digest()]
        # In 400 steps the head costs several points in noise and rooms, by the development set: mini/teacher/README.md.
        without_head = ("objectives.enhancement=0",)
        jobs = {}
        for kind, recipe, own, paths in (
            ("robust", "robustdistiller", (*settings, *without_head), noisy),
            ("plain", "distilhubert", settings, clean),
        ):
            name = f"{kind}-{made_digest(recipe=recipe, settings=own, contents=contents)[:8]}"
            work = partial(_distil, recipe, (*own, *paths, f"out_dir={self.out / 'students' / name}"))
            jobs[f"{kind} student"] = Job(f"distil {kind} student", self.out / "jobs" / name, work)
        return jobs

    def write_sweep(self) -> Path:
        """Write the sweep's file, which `robustdistiller sweep` can run again, changed or not; returns its path."""
        corpus = mini.MiniCorpus(self.out / "corpus")
        models = {"teacher": self.teacher, SHIPPED: mini.student_checkpoint(), **self.students}
        settings = {
            "out": str(self.out),
            "upstreams": [
                *({"name": "robustdistiller_local", "checkpoint": str(models[one]), "label": one} for one in models),
                # s3prl's fbank subtracts the utterance's mean, which is all that the heads of these tasks look at.
                {"name": "fbank_no_cmvn", "label": "filter bank"},
            ],
            "tasks": [self._task(corpus, name) for name in self.tasks],
            "conditions": list(self.conditions),
            "seeds": [self.seed],
            "device": self.device,
            "feature_cache": "auto",
            "check_upstreams": False,  # they are known to be sound, and each look takes a process
            "executor": {"kind": "pool", "workers": self.jobs, "memory_gb": 1.5},
        }
        return write_text(self.out / "quickstart.yaml", dump_yaml(settings))

    def _task(self, corpus: mini.MiniCorpus, name: str) -> dict[str, Any]:
        head = {key.removeprefix("config."): value for key, value in corpus.head_options(name).items()}
        steps, rate = self.head_steps or head["runner.total_steps"], head.pop("optimizer.lr")
        head["scheduler"] = {**head["scheduler"], "num_warmup_steps": steps // 15}
        head["runner.total_steps"] = steps
        head |= {f"runner.{key}": max(1, steps // 8) for key in ("eval_step", "save_step", "log_step")}
        return {"task": str(corpus.tasks[name]), "override": head, "learning_rates": [rate]}


def _distil(recipe: str, overrides: tuple[str, ...], folder: Path) -> None:
    pretrain.distill(pretrain.load_config(recipe, overrides))


def _precision() -> tuple[str, ...]:
    """bfloat16 where the processor has a matrix unit for it (AMX) and is twice as fast; without, it is half as fast."""
    has_matrix_unit = getattr(torch.cpu, "get_capabilities", dict)().get("amx_bf16", False)
    return ("trainer.precision=bf16", "teacher.autocast=true") if has_matrix_unit else ("trainer.precision=fp32",)
