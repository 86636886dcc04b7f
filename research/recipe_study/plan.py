"""The plan of the study, read strictly from YAML: students, how they are scored, which of them are finalists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import yaml
from pydantic import Field

from robustdistiller.acoustics import Condition
from robustdistiller.common.names import did_you_mean
from robustdistiller.common.settings import SettingsError, read
from robustdistiller.common.written import load_yaml
from robustdistiller.eval.results.identity import CLEAN

Count = Annotated[int, Field(ge=1)]
STAGES = ("screening", "finalists")
TEACHER = "teacher"


@dataclass
class Student:
    """A student of the study.

    Attributes:
        recipe: of `robustdistiller distill`.
        about: what it is there for.
        settings: over those of all students, `dotted.key=value` each.
    """

    short_form: ClassVar[str] = "recipe"

    recipe: str
    about: str = ""
    settings: list[str] = field(default_factory=list)


@dataclass
class Way:
    """What else is made of finished students without training, and scored beside them; one of three things.

    Attributes:
        students: that it is made of.
        export: the kind of file of `robustdistiller export` that onnxruntime computes.
        options: of the upstream, such as ``{chunk_frames: 8, look_ahead_frames: 4}`` for a stream.
        merge: with this student, from the same seed, half and half.
    """

    students: list[str]
    export: Literal["onnx", "onnx-int8-dynamic"] | None = None
    options: dict[str, int] = field(default_factory=dict)
    merge: str | None = None

    def __post_init__(self) -> None:
        if sum(map(bool, (self.export, self.options, self.merge))) != 1:
            raise ValueError("a way has either export, options or merge")


@dataclass
class Plan:
    """A study.

    Attributes:
        students: by name.
        steps: optimizer steps of each, of all stages where a recipe has several.
        settings: of all students, over their recipes.
        pruned_settings: of those whose recipe prunes, besides.
        teacher: its checkpoint; empty is the shipped mini teacher.
        baselines: s3prl's or this project's upstreams, by name, that are scored beside the students and the teacher.
        others: checkpoints that are scored beside them, by name; they were not made by the study.
        tasks: names of the pool's tasks and of the shipped ones, with the learning rate of their heads.
        conditions: of the scored audio.
        head_steps: of each head; its learning rate falls to zero in a line.
        measure_every_steps: steps between two measurements of feature distance and linear probe.
        finalists: student to its number of seeds. They are 1, 2, ...; screening has seed 0.
        ways: what else is made of students, by name; what "int8" makes of "ours" is scored as "ours, int8".
    """

    students: dict[str, Student]
    steps: Count
    tasks: dict[str, float]
    conditions: list[str]
    settings: list[str] = field(default_factory=list)
    pruned_settings: list[str] = field(default_factory=list)
    teacher: str = ""
    baselines: list[str] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)
    head_steps: Count = 600
    measure_every_steps: Count = 500
    finalists: dict[str, Count] = field(default_factory=dict)
    ways: dict[str, Way] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.finalists:
            self.check(name, self.students, "finalists")
        for way in self.ways.values():
            for name in [*way.students, *([way.merge] if way.merge else [])]:
                self.check(name, self.students, "ways")
        for text in self.conditions:
            Condition.parse(text)
        names = [*self.students, TEACHER, *self.baselines, *self.others]
        if len(set(names)) < len(names):
            raise ValueError(f"a student, a baseline and one of others cannot have the same name, or that of {TEACHER}")

    def check(self, name: str, known: object, where: str) -> None:
        """Raise ValueError for a name that is not known."""
        if name not in known:
            raise ValueError(f"{where}: there is no {name!r}{did_you_mean(name, known)}")

    def systems(self) -> list[str]:
        """Names of all that is scored: students, what else is made of them, what was not made here."""
        return [*self.students, *self.made_of(self.students), *self.given()]

    def given(self) -> list[str]:
        """Names of what is scored and was not made by the study."""
        return [TEACHER, *self.baselines, *self.others]

    def made_of(self, students: Iterable[str]) -> list[str]:
        """Names of what else is made of some students."""
        return [made_name(name, way) for way in self.ways for name in self.ways[way].students if name in students]

    def seeds(self, stage: str) -> dict[str, list[int]]:
        """The seeds of each student in a stage."""
        if stage == "screening":
            return {name: [0] for name in self.students}
        return {name: list(range(1, count + 1)) for name, count in self.finalists.items()}


def made_name(student: str, way: str) -> str:
    """How it is called what a way makes of a student.

    >>> made_name("ours", "int8")
    'ours, int8'
    """
    return f"{student}, {way}"


@dataclass
class Comparison:
    """A question that the difference between two upstreams answers.

    Attributes:
        question: that it answers.
        treatment: the upstream that it is about: a student, ``teacher``, a baseline or one of the plan's others.
        reference: the one that it is compared with.
        over: conditions whose mean is compared: ``clean``, ``corrupted`` for all others, ``all``, or a list of them.
        tasks: whose mean is compared; all where none is given.
    """

    question: str
    treatment: str
    reference: str
    over: Literal["clean", "corrupted", "all"] | list[str] = "corrupted"
    tasks: list[str] = field(default_factory=list)

    def conditions(self, plan: Plan) -> list[str]:
        """The conditions in their one-line form."""
        every = [str(Condition.parse(text)) for text in plan.conditions]
        if isinstance(self.over, str):
            return [one for one in every if self.over == "all" or (one == CLEAN) == (self.over == CLEAN)]
        return [str(Condition.parse(text)) for text in self.over]

    def resolved(self, plan: Plan) -> Comparison:
        """The same with conditions and tasks spelled out, which no later change of the plan touches."""
        return replace(self, over=self.conditions(plan), tasks=self.tasks or list(plan.tasks))

    def check(self, plan: Plan) -> None:
        """Raise ValueError where the finalists cannot answer it."""
        finalists = [*plan.finalists, *plan.made_of(plan.finalists), *plan.given()]
        for name in (self.treatment, self.reference):
            plan.check(name, finalists, self.question)
        for task in self.tasks:
            plan.check(task, plan.tasks, self.question)
        unknown = set(self.conditions(plan)) - {str(Condition.parse(text)) for text in plan.conditions}
        if unknown:
            raise ValueError(f"{self.question}: the plan has no condition {unknown.pop()!r}")


def load_plan(path: Path) -> Plan:
    """Read a plan.

    A file may begin with ``over: plan.yaml``: what that file beside it says holds where this one says nothing, and its
    students are there too.

    Raises:
        SettingsError: it cannot be read, or says what makes no sense; with the file's name.
    """
    return _named(path, lambda text: read(Plan, _values(path, text)))


def _values(path: Path, text: str) -> dict:
    values = load_yaml(text)
    if not isinstance(values, dict):
        raise ValueError("no settings; expected those of a plan")
    if "over" not in values:
        return values
    below = _named(path.with_name(str(values.pop("over"))), lambda text: _values(path, text))
    return {**below, **values, "students": {**below["students"], **values.get("students", {})}}


def load_comparisons(path: Path, plan: Plan) -> list[Comparison]:
    """Read what is to be compared with what.

    Raises:
        SettingsError: the file is not there, empty, or asks what the finalists of the plan cannot answer.
    """

    def parse(text: str) -> list[Comparison]:
        found = [read(Comparison, one) for one in yaml.safe_load(text) or []]
        for one in found:
            one.check(plan)
        if not found:
            raise ValueError("no comparisons; expected a list of question, treatment, reference and over")
        return found

    return _named(path, parse)


def _named(path: Path, parse):
    if not path.is_file():
        raise SettingsError(f"{path}: no such file")
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: {error}") from error
