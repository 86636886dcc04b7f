"""Settings: read by their types, refused in plain words, and the same again after writing and reading."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field

from robustdistiller.common.settings import SettingsError, override, read, read_yaml
from robustdistiller.common.written import dump_yaml, load_yaml


@dataclass
class Teacher:
    checkpoint: str | None = None
    layers: Literal["auto"] | tuple[int | tuple[int, ...], ...] = (4, 8)
    mode: Literal["none", "mean"] = "none"


@dataclass(frozen=True)
class Source:
    short_form: ClassVar[str] = "path"

    path: str
    weight: float = 1.0


@dataclass
class Run:
    out_dir: str = "exp"
    steps: Annotated[int, Field(ge=1)] = 10
    rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    quiet: bool = False
    seconds: float | None = 1.0
    speech: list[str] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    teacher: Teacher = field(default_factory=Teacher)
    other: Teacher | None = None
    free: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.out_dir == "forbidden":
            raise ValueError("out_dir is forbidden")


def given(*overrides: str) -> Run:
    return read_yaml(Run, "", overrides)


@pytest.mark.parametrize(
    "text",
    [
        "4711_3",
        "47_113",
        "007",
        "1.10",
        "12:30",
        "0x1f",
        "exp/run #3",
        "a: b",
        "[x",
        "{x}",
        "true",
        "2024-01-01",
        "1e3",
    ],
)
def test_a_text_setting_takes_what_is_typed(text: str) -> None:
    run = given(f"out_dir={text}", f"teacher.checkpoint={text}", f"other.checkpoint={text}")
    assert (run.out_dir, run.teacher.checkpoint, run.other.checkpoint) == (text, text, text)
    assert read_yaml(Run, dump_yaml(run)) == run


@pytest.mark.parametrize("text", ["4711_3", "007", "1.10", "12:30", "0x1f", "2024-01-01", "yes", "null"])
def test_a_text_setting_takes_what_a_file_says(text: str) -> None:
    assert read_yaml(Run, f"out_dir: {text}\nspeech: [{text}]") == Run(out_dir=text, speech=[text])


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("steps=1_000", "steps", 1000),
        ("steps=5.0", "steps", 5),
        ("rate=2e-4", "rate", 2e-4),
        ("rate=3", "rate", 3.0),
        ("betas=[0, 1]", "betas", (0.0, 1.0)),
        ("quiet=yes", "quiet", True),
        ("seconds=null", "seconds", None),
        ("seconds=none", "seconds", None),
        ("speech=run #3", "speech", ["run #3"]),
        ("speech=[a, 007, 'x, y']", "speech", ["a", "007", "x, y"]),
        ("out_dir='007'", "out_dir", "007"),
        ("out_dir=a=b", "out_dir", "a=b"),
        ("out_dir=none", "out_dir", "none"),
        ("sources=[{path: 1, weight: 2}, rain]", "sources", [Source("1", 2.0), Source("rain")]),
        ("free={a: 1, b: x}", "free", {"a": 1, "b": "x"}),
        ("other={}", "other", Teacher()),
        ("other=null", "other", None),
    ],
)
def test_others_are_read_by_their_type(word: str, name: str, value: Any) -> None:
    run = given(word)
    assert getattr(run, name) == value
    assert read_yaml(Run, dump_yaml(run)) == run


@pytest.mark.parametrize(("word", "value"), [("auto", "auto"), ("4", (4,)), ("[1, [2, 3]]", (1, (2, 3))), ("[]", ())])
def test_unions(word: str, value: Any) -> None:
    assert given(f"teacher.layers={word}").teacher == Teacher(layers=value)


def test_null_is_text_where_text_must_be() -> None:
    assert given("teacher.checkpoint=none").teacher.checkpoint is None
    assert given("teacher.mode=none").teacher.mode == "none"
    assert read_yaml(Run, "teacher: {checkpoint: 'null'}").teacher.checkpoint == "null"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("stpes=1", "unknown key 'stpes'; did you mean 'steps'?"),
        ("teacher.mod=mean", "unknown key 'teacher.mod'; did you mean 'mode'?"),
        ("teacher.betas=1", "unknown key 'teacher.betas'; known: checkpoint, layers, mode; elsewhere there is betas"),
        ("steps=many", "steps: found 'many', expected a whole number"),
        ("steps=1.5", "steps: found 1.5, expected a whole number"),
        ("steps=true", "steps: found True, expected a whole number"),
        ("steps=null", "steps: found None, expected a whole number"),
        ("steps=0", "steps: found 0, expected at least 1"),
        ("quiet=1", "quiet: found 1, expected true or false"),
        ("seconds=long", "seconds: found 'long', expected a number or null"),
        ("rate=", "rate: found None, expected a number"),
        ("betas=[1]", "betas: found [1], expected 2 values"),
        ("betas=[1, 2, 3]", "betas: found [1, 2, 3], expected 2 values"),
        ("teacher.mode=max", "teacher.mode: found 'max', expected 'none' or 'mean'"),
        ("teacher.layers=atuo", "teacher.layers: found 'atuo', expected 'auto' or a list"),
        ("teacher.layers=[1, x]", "teacher.layers[1]: found 'x', expected a whole number or a list"),
        ("teacher=fast", "teacher: found 'fast', expected keys and values"),
        ("sources=[{weight: 2}]", "sources[0].path is missing"),
        ("out_dir=forbidden", "out_dir is forbidden"),
        ("seed", "override 'seed': expected key=value, for example trainer.max_steps=1000"),
        ("a..b=1", "override 'a..b=1': expected key=value, for example trainer.max_steps=1000"),
    ],
)
def test_refusals_say_where_what_and_what_instead(word: str, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        given(word)
    assert str(error.value) == message


def test_a_list_that_is_not_yaml() -> None:
    with pytest.raises(SettingsError, match=r"override 'speech=\[a': the value is not valid YAML"):
        given("speech=[a")
    with pytest.raises(SettingsError, match="not YAML"):
        read_yaml(Run, "a: [")
    with pytest.raises(SettingsError, match=r"settings: found \['a'\], expected keys and values"):
        read_yaml(Run, "[a]")


def test_all_problems_are_named() -> None:
    with pytest.raises(SettingsError) as error:
        read(Run, {"stpes": 1, "rate": "x", "teacher": {"mode": "max"}}, "run")
    assert str(error.value).splitlines() == [
        "unknown key 'run.stpes'; did you mean 'steps'?",
        "run.rate: found 'x', expected a number",
        "run.teacher.mode: found 'max', expected 'none' or 'mean'",
    ]


def test_precedence_is_command_line_then_file_then_default() -> None:
    run = read_yaml(Run, "steps: 5\nteacher: {mode: mean, layers: [1]}", ["steps=6", "teacher.layers=[2]"])
    assert (run.steps, run.teacher, run.rate) == (6, Teacher(layers=(2,), mode="mean"), 1e-3)


def test_nothing_given_is_changed() -> None:
    values = {"teacher": {"mode": "mean"}, "sources": [{"path": "a"}]}
    override(Run, values, ["teacher.mode=none", "sources=[b]"])
    read(Run, values)
    assert values == {"teacher": {"mode": "mean"}, "sources": [{"path": "a"}]}


def test_words_in_quotes_are_text_and_impossible_dates_do_no_harm() -> None:
    assert load_yaml("'1'") == "1" and not hasattr(load_yaml("'1'"), "value")
    assert load_yaml("2024-99-99") == "2024-99-99"
