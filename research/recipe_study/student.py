"""A student of the study: the recipe, the settings that scale it down to the mini teacher, the command's arguments."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from research.recipe_study.pool import StudyData

_COMMON = (
    "student.dropout=0",  # few steps: no need to regularise
    "student.attention_dropout=0",
    "student.activation_dropout=0",
    "data.max_samples=48000",
    "data.num_workers=0",
    "trainer.batch_size=null",
    "trainer.batch_seconds=10",
    "trainer.accumulate=1",
    "trainer.accelerator=cpu",
    "trainer.progress=false",
    "optim.lr=1e-3",
)
"""What all recipes are scaled down by: the teacher has five layers of width 256, a run a few hundred steps of 10 s."""

BFLOAT16 = ("trainer.precision=bf16", "teacher.autocast=true")
"""Settings of a processor that computes in bfloat16."""

_PRUNED_SPARSITY = 0.53  # what leaves the mini teacher with as many parameters as the two-layer student has
_FAST_GATES = (
    "pruning.gate_lr=0.04",  # the published rates need thousands of steps to close a gate
    "pruning.multiplier_lr=0.05",
    "pruning.initial_drop_rate=0.03",
    "pruning.exact=true",  # few steps overshoot the sparsity before they settle
)
_FINAL_SHARE = 1 / 3  # of the steps of a pruning recipe come after pruning, as in DPHuBERT


@dataclass(frozen=True)
class Student:
    """One recipe of the study.

    Attributes:
        name: in file names and tables.
        label: for people.
        recipe: of `robustdistiller distill`.
        overrides: settings besides those that all students have.
        corrupted: whether it is trained on corrupted speech.
        pruned: whether a part of its steps prunes and the rest trains what is left.
        tests: what it is there for.

    >>> Student("distilhubert", "plain distillation", "distilhubert").corrupted
    False
    """

    name: str
    label: str
    recipe: str
    overrides: tuple[str, ...] = ()
    corrupted: bool = False
    pruned: bool = False
    tests: str = ""

    def config_digest(self, steps: int) -> str:
        """SHA-256 of all settings of a run but seed, places and precision: another recipe or plan has another one.

        Raises:
            SettingsError: the recipe is unknown or does not take the settings.
        """
        from robustdistiller.pretrain import load_config  # slow to import

        recipe, *settings = self.arguments(
            StudyData(Path("WORK"), Path("POOL")), Path("TEACHER"), 0, steps, Path("OUT"), BFLOAT16
        )
        return hashlib.sha256(repr(load_config(recipe, settings).to_dict()).encode()).hexdigest()

    def arguments(
        self,
        data: StudyData,
        teacher: Path,
        seed: int,
        steps: int,
        out_dir: Path,
        precision: tuple[str, ...] | None = None,
    ) -> list[str]:
        """Arguments of `robustdistiller distill` that train this student.

        Args:
            data: prepared audio.
            teacher: checkpoint.
            seed: of initialisation, order and corruption.
            steps: all optimizer steps, of both stages where there are two.
            out_dir: the run's folder.
            precision: settings; None for what this machine is fast in.
        """
        corpus = data.corpus
        settings = [
            f"teacher.checkpoint={teacher}",
            f"data.speech=[{data.speech},{corpus.pool}]",
            f"data.manifest_dir={data.work / 'manifests'}",
            *_COMMON,
            *(native_precision() if precision is None else precision),
            f"seed={seed}",
            f"out_dir={out_dir}",
        ]
        if self.corrupted:
            settings += [f"data.noise=[{data.noise_train},{corpus.noise_train}]", f"data.rir=[{corpus.rir_train}]"]
        if self.pruned:
            final = round(steps * _FINAL_SHARE)
            settings += [
                f"trainer.max_steps={steps - final}",
                f"stages.distil.trainer.max_steps={final}",
                "stages.distil.optim.lr=5e-4",
                f"pruning.ramp_steps={(steps - final) // 3}",
                f"pruning.sparsity={_PRUNED_SPARSITY}",
                *_FAST_GATES,
            ]
        else:
            settings.append(f"trainer.max_steps={steps}")
        settings.append(f"trainer.save_every_steps={max(1, steps // 4)}")
        return [self.recipe, *settings, *self.overrides]


def native_precision() -> tuple[str, ...]:
    """bfloat16 where the processor computes in it (twice as fast there), float32 elsewhere."""
    return BFLOAT16 if native_bfloat16() else ("trainer.precision=fp32",)


def native_bfloat16() -> bool:
    """Whether the processor computes in bfloat16.

    >>> native_bfloat16() in (True, False)
    True
    """
    import torch

    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
