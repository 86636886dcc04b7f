"""What is compared with what: the students, the settings that scale the recipes down, and the questions.

All students have about the size of the two-layer one and see the same number of batches of the same speech.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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

_HEADS = ("targets.layers=[2,3,5]",)
_LAYERS = ("targets.layers=[0,2,3,5]",)
_ENHANCEMENT = ("objectives.enhancement.hidden_size=64", "objectives.enhancement.num_layers=1")
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

    >>> STUDENTS["distilhubert"].corrupted
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


STUDENTS = {
    student.name: student
    for student in (
        Student("distilhubert", "plain distillation", "distilhubert", _HEADS, tests="the reference: clean speech only"),
        Student(
            "robust_plain",
            "noise and rooms, no enhancement",
            "robustdistiller",
            (*_HEADS, *_ENHANCEMENT, "objectives.enhancement.weight=0"),
            corrupted=True,
            tests="what corrupted input alone brings",
        ),
        Student(
            "robustdistiller",
            "RobustDistiller, as released",
            "robustdistiller",
            (*_HEADS, *_ENHANCEMENT),
            corrupted=True,
            tests="the recipe, with enhancement from the conv features",
        ),
        Student(
            "robustdistiller_paper",
            "RobustDistiller, as drawn",
            "robustdistiller_paper",
            (*_HEADS, *_ENHANCEMENT),
            corrupted=True,
            tests="the recipe, with enhancement from the last layer",
        ),
        Student(
            "robust_correlation",
            "noise and rooms, correlation terms",
            "robustdistiller",
            (
                *(*_HEADS, *_ENHANCEMENT, "objectives.enhancement.weight=0"),
                # Standardised over all frames: a batch of six is too few utterances for 256 features. The published
                # weights leave the terms off the diagonal at a thousandth of the loss; here they are about a tenth.
                "objectives.cross_correlation={weight: 0.05, normalize: batch_and_time, off_diagonal: 0.05}",
                "objectives.self_correlation={weight: 10, normalize: batch_and_time, variant: new}",
            ),
            corrupted=True,
            tests="what correlation terms add to corrupted input",
        ),
        Student(
            "robust_groups",
            "noise and rooms, layer groups",
            "robustdistiller",
            ("targets.layers=auto", *_ENHANCEMENT, "objectives.enhancement.weight=0"),
            corrupted=True,
            tests="what means of similar layers as targets add to corrupted input",
        ),
        Student(
            "robust_invariance",
            "noise and rooms, two views",
            "robustdistiller",
            (*_HEADS, *_ENHANCEMENT, "objectives.enhancement.weight=0", "objectives.invariance.weight=0.5"),
            corrupted=True,
            tests="what agreement of two corruptions of an utterance adds to corrupted input",
        ),
        Student(
            "correlation",
            "correlation, setup 2",
            "correlation",
            _HEADS,
            corrupted=True,
            tests="cross- and self-correlation, teacher and student under corruptions of their own",
        ),
        Student("skill_heads", "layer groups", "skill_heads", tests="means of similar layers as targets"),
        Student("dphubert", "pruned, clean", "dphubert", _LAYERS, pruned=True, tests="pruning, clean speech only"),
        Student("skill", "pruned, layer groups", "skill", pruned=True, tests="SKILL: pruning towards groups"),
        Student(
            "robustdistiller_dpwavlm",
            "pruned, noise and rooms",
            "robustdistiller_dpwavlm",
            (*_LAYERS, *_ENHANCEMENT),
            corrupted=True,
            pruned=True,
            tests="pruning with the robust recipe",
        ),
        Student(
            "robust_skill",
            "pruned, noise and rooms, layer groups",
            "ours",
            (
                *_ENHANCEMENT,
                *("objectives.enhancement.weight=0", "objectives.cross_correlation=0", "objectives.self_correlation=0"),
            ),
            corrupted=True,
            pruned=True,
            tests="pruning under corruption towards groups, without further terms",
        ),
        Student(
            "ours",
            "ours",
            "ours",
            _ENHANCEMENT,
            corrupted=True,
            pruned=True,
            tests="what this project recommends: pruning, corrupted input, groups, correlation terms, enhancement",
        ),
        Student(
            "ours_views",
            "ours, two views",
            "ours",
            (*_ENHANCEMENT, "objectives.invariance={weight: 0.1, features: last_hidden}"),
            corrupted=True,
            pruned=True,
            tests="what agreement of two corruptions of an utterance adds to our recipe",
        ),
    )
}

REFERENCE = "distilhubert"
BASELINES = {
    "teacher": "teacher",
    "random": "untrained student",
    "fbank": "log-mel spectrum with deltas",
}


@dataclass(frozen=True)
class Question:
    """A question that the difference between two upstreams answers.

    Attributes:
        text: the question.
        treatment: the upstream it is about.
        reference: what it is compared with.

    >>> QUESTIONS[0].reference
    'distilhubert'
    """

    text: str
    treatment: str
    reference: str


QUESTIONS = (
    Question("Does the robust recipe beat plain distillation?", "robustdistiller", REFERENCE),
    Question("Does our recipe beat plain distillation?", "ours", REFERENCE),
    Question("Does our recipe beat the robust one?", "ours", "robustdistiller"),
    Question("Does our recipe beat pruning without corruption?", "ours", "dphubert"),
    Question("Does our recipe beat pruning with the robust recipe?", "ours", "robustdistiller_dpwavlm"),
    Question("Does our student beat its teacher?", "ours", "teacher"),
    Question("Does pruning with the robust recipe beat the robust one?", "robustdistiller_dpwavlm", "robustdistiller"),
    Question("Do the further terms add to pruning under corruption?", "ours", "robust_skill"),
    Question("Does agreement of two views add to our recipe?", "ours_views", "ours"),
    Question("What does corrupted input alone add?", "robust_plain", REFERENCE),
    Question("What does enhancement from the conv features add?", "robustdistiller", "robust_plain"),
    Question("What does enhancement from the last layer add?", "robustdistiller_paper", "robust_plain"),
    Question("What do correlation terms add to corrupted input?", "robust_correlation", "robust_plain"),
    Question("What do layer groups add to corrupted input?", "robust_groups", "robust_plain"),
    Question("What does agreement of two views add to corrupted input?", "robust_invariance", "robust_plain"),
    Question("Does the correlation recipe beat plain distillation?", "correlation", REFERENCE),
    Question("What do layer groups add on clean speech?", "skill_heads", REFERENCE),
    Question("What do layer groups add to pruning?", "skill", "dphubert"),
    Question("What does pruning add?", "dphubert", REFERENCE),
    Question("What does pruning add to the robust recipe?", "robustdistiller_dpwavlm", "robustdistiller_paper"),
)


def choose(names: Sequence[str] | None) -> list[Student]:
    """Students by name, all of them by default.

    Raises:
        ValueError: a name is unknown.

    >>> choose(["plain"])
    Traceback (most recent call last):
    ValueError: unknown student 'plain'; known: distilhubert, robust_plain, robustdistiller, ...
    """
    for name in names or ():
        if name not in STUDENTS:
            raise ValueError(f"unknown student {name!r}; known: {', '.join(STUDENTS)}")
    return [student for name, student in STUDENTS.items() if not names or name in names]


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
