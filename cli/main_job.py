"""The main job as stages: mini corpus, two students, heads trained on clean audio, scores under conditions."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from robustdistiller import mini
from robustdistiller.cli.stages import Stage
from robustdistiller.eval.results.files import read_records, record_path
from robustdistiller.upstream import checkpoint_digest

TASK = "fluent_commands"
CONDITIONS = ("clean", "noise:snr_db=10", "noise:snr_db=0", "reverb", "noise+reverb:snr_db=10")

# The mini teacher has five layers and the pool 1.2 hours of speech: what the published recipes are scaled down by.
_DISTILL = (
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
_ROBUST = ("objectives.enhancement.hidden_size=64", "objectives.enhancement.num_layers=1")


@dataclass(frozen=True)
class MainJob:
    """Settings of the main job.

    Attributes:
        out: folder that holds everything.
        distill_steps: training steps of each student.
        head_steps: training steps of each head; 0: as many as the mini corpus recommends.
        device: where heads are trained and evaluated.
        seed: of distillation and heads.
        teacher: checkpoint to distil; default the shipped mini teacher.
        conditions: test conditions, in their one-line form.
    """

    out: Path
    distill_steps: int = 500
    head_steps: int = 0
    device: str = "cpu"
    seed: int = 1337
    teacher: Path | None = None
    conditions: tuple[str, ...] = CONDITIONS

    @property
    def records(self) -> Path:
        """Folder of records."""
        return self.out / "records"

    @property
    def corpus(self) -> mini.MiniCorpus:
        """The mini corpus, built or not."""
        return mini.MiniCorpus(self.out / "corpus")

    @property
    def teacher_checkpoint(self) -> Path:
        """The teacher's file."""
        return self.teacher or mini.teacher_checkpoint()

    def students(self) -> dict[str, Path]:
        """Label and checkpoint of each student."""
        return {f"{kind} student": self.out / "students" / kind / "student.ckpt" for kind in ("plain", "robust")}

    def stages(self) -> list[Stage]:
        """All stages, the long ones first among those that may run side by side."""
        teacher = self.teacher_checkpoint
        digest = checkpoint_digest(teacher)
        plain, robust = self.students()
        corpus = self.corpus
        recipes = {
            robust: (
                "robustdistiller",
                *(f"data.noise=[{corpus.noise_train}]", f"data.rir=[{corpus.rir_train}]", *_ROBUST),
            ),
            plain: ("distilhubert",),
        }
        stages = [
            Stage(
                name="mini corpus",
                command=_python(
                    "from robustdistiller import mini; mini.build(sys.argv[1], progress=True)", corpus.root
                ),
                products=lambda: [corpus.root / "corpus.json"],
                inputs=(mini.corpus.data_digest(),),
                folder=corpus.root,
            )
        ]
        for label, recipe in recipes.items():
            checkpoint = self.students()[label]
            stages.append(
                Stage(
                    name=f"distil {label}",
                    command=_robustdistiller(
                        *("distill", *recipe),
                        f"teacher.checkpoint={teacher}",
                        f"data.speech=[{corpus.pool}]",
                        *_DISTILL,
                        *_precision(),
                        f"trainer.max_steps={self.distill_steps}",
                        f"seed={self.seed}",
                        f"out_dir={checkpoint.parent}",
                    ),
                    products=lambda path=checkpoint: [path],
                    needs=("mini corpus",),
                    inputs=(digest,),
                    folder=checkpoint.parent,
                    resumable=True,
                )
            )
        upstreams: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
            "teacher": (("-u", "robustdistiller_local", "-k", str(teacher)), (), (digest,)),
            # s3prl's fbank subtracts the utterance's mean, which is all that the head of this task looks at; without
            # that normalisation it is a baseline that can be wrong.
            **{name: (("-u", name), (), ()) for name in ("fbank", "fbank_no_cmvn")},
            **{
                label: (("-u", "robustdistiller_local", "-k", str(path)), (f"distil {label}",), ())
                for label, path in self.students().items()
            },
        }
        for label, (arguments, needs, inputs) in upstreams.items():
            stages += self._head_and_scores(label, arguments, needs, inputs)
        return stages

    def _head_and_scores(
        self, label: str, upstream: Sequence[str], needs: tuple[str, ...], inputs: tuple[str, ...]
    ) -> list[Stage]:
        name = label.replace(" ", "-")
        folder, records = self.out / "heads" / name, self.records / name
        options = self.corpus.head_options(TASK)
        steps = self.head_steps or options["config.runner.total_steps"]
        evaluate_every = max(1, steps // 8)
        settings = {
            **self.corpus.overrides(TASK),
            **options,
            "config.scheduler": {**options["config.scheduler"], "num_warmup_steps": steps // 15},
            "config.downstream_expert.datarc.num_workers": 0,
            "config.runner.total_steps": steps,
            "config.runner.eval_step": evaluate_every,
            "config.runner.save_step": evaluate_every,
            "config.runner.log_step": evaluate_every,
            "config.runner.eval_dataloaders": ["dev"],  # s3prl's configuration scores the test set at each step too
        }
        features = ("--feature-cache", str(self.out / "features"))  # computed in the first epoch only
        override = ",,".join(f"{key}={value!r}" for key, value in settings.items())
        head = Stage(
            name=f"head of {label}",
            command=_run_downstream(
                *("-m", "train", *upstream, "-d", TASK, "-p", str(folder), "--seed", str(self.seed)),
                *("--device", self.device, "-o", override, *features),
            ),
            products=lambda: [folder / f"states-{steps // evaluate_every * evaluate_every}.ckpt"],
            needs=("mini corpus", *needs),
            inputs=inputs,
            folder=folder,
        )
        conditions = [part for condition in self.conditions for part in ("--condition", condition)]
        scores = Stage(
            name=f"scores of {label}",
            command=_run_downstream(
                *("-m", "evaluate", "-e", str(folder), "--device", self.device, "--label", label),
                *("--records", str(records), "--overwrite", "reuse", *conditions, *features),
            ),
            products=partial(_finished_records, records, len(self.conditions)),
            needs=(head.name,),
            folder=records,
            resumable=True,
        )
        return [head, scores]


def _finished_records(folder: Path, conditions: int) -> list[Path]:
    """Paths of the records in a folder once there is one for each condition."""
    records = [record for record in read_records(folder) if record.status == "ok"] if folder.is_dir() else []
    return [record_path(folder, r) for r in records] if len(records) >= conditions else []


def _precision() -> tuple[str, ...]:
    """bfloat16 where the processor computes in it (twice as fast there), float32 elsewhere."""
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return ("trainer.precision=bf16", "teacher.autocast=true") if native else ("trainer.precision=fp32",)


def _python(code: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-c", f"import sys; {code}", *map(str, arguments))


def _robustdistiller(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "robustdistiller.cli", *arguments)


def _run_downstream(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "robustdistiller.eval.run.launcher", *arguments)


def cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """CPU cores this process may use: its affinity, and a container's limit where there is one.

    >>> cores() >= 1
    True
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))
