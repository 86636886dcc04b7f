"""Speech Commands (KS): words, background noise and the test set's twelve folders."""

from __future__ import annotations

from pathlib import Path

from robustdistiller.acoustics.audio.files import audio_info
from robustdistiller.eval.data.looking import audio_below, locate
from robustdistiller.eval.data.plan import DIFFERS, MISSING, OK, Input, Plan, Recipe, Roots, named
from robustdistiller.eval.tasks import Task
from robustdistiller.eval.tasks.corpora import SPEECH_COMMANDS

KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
BACKGROUND, OTHER = "_background_noise_", ("_unknown_", "_silence_")
_TRAIN_NAME, _TEST_NAME = "speech_commands_v0.01", "speech_commands_test_set_v0.01"
_CROP = 16000
_ARCHIVE = "the archives hold no folder of their own: mkdir {name} && tar -xzf {name}.tar.gz -C {name}"


def plan_ks(task: Task, roots: Roots, out: Path) -> Plan:
    """Plan of KS: nothing is made.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> plan_ks(tasks.get("KS"), {"speech_commands_root": [Path("nowhere")]}, Path("out")).ok
        False
    """
    plan = Plan(task, out)
    given = roots["speech_commands_root"][0]
    train = locate(given, [BACKGROUND])
    if train is None:
        found = "no such folder" if not given.is_dir() else f"no {BACKGROUND}"
        plan.note(str(given), f"folders of words and {BACKGROUND}", found, MISSING, _ARCHIVE.format(name=_TRAIN_NAME))
    else:
        _look_at_words(plan, train)
        plan.set("speech_commands_root", train)
    test = _test_folder(roots, given)
    if test is None:
        fix = f"--root speech_commands_test_root=FOLDER; {_ARCHIVE.format(name=_TEST_NAME)}"
        plan.note("test set", f"twelve folders, in {_TEST_NAME}", "not given and not beside it", MISSING, fix)
        return plan
    _look_at_test_set(plan, test)
    plan.set("speech_commands_test_root", test)
    return plan


def _look_at_words(plan: Plan, folder: Path) -> None:
    words = {child.name: audio_below(child, ".wav") for child in sorted(folder.iterdir()) if child.is_dir()}
    background = words.pop(BACKGROUND)
    total = sum(map(len, words.values()))
    plan.count("words", total, SPEECH_COMMANDS.counts["words"], "wav files")
    absent = [word for word in KEYWORDS if not words.get(word)]
    if absent:
        plan.note("keywords", ", ".join(KEYWORDS), f"none of {', '.join(absent)}", DIFFERS, "these are never trained")
    plan.count(BACKGROUND, len(background), SPEECH_COMMANDS.counts["background"], "wav files")
    # A class that s3prl crops one second from, at random.
    short = [name for name in background if audio_info(folder / BACKGROUND / name).duration_s * _CROP < _CROP]
    if short:
        plan.note(BACKGROUND, "recordings of 1 s or more", f"shorter ones: {named(short)}", MISSING, "remove them")


def _test_folder(roots: Roots, given: Path) -> Path | None:
    """The test set: given, or in a folder of its usual name beside or below the training set."""
    candidates = [*roots.get("speech_commands_test_root", ()), given / _TEST_NAME, given.parent / _TEST_NAME]
    return next((found for one in candidates if (found := locate(one, [*OTHER, *KEYWORDS]))), None)


def _look_at_test_set(plan: Plan, folder: Path) -> None:
    classes = {child.name: audio_below(child, ".wav") for child in sorted(folder.iterdir()) if child.is_dir()}
    foreign = sorted(set(classes) - {*KEYWORDS, *OTHER})
    if foreign:
        fix = "give the unpacked test set, not the training set; s3prl fails at other folders"
        plan.note("test set", "folders of the twelve classes only", f"also {named(foreign)}", MISSING, fix)
    absent = [name for name in (*KEYWORDS, *OTHER) if not classes.get(name)]
    if absent:
        plan.note(
            "test set", "all twelve classes", f"none of {', '.join(absent)}", DIFFERS, "not the official test set"
        )
    else:
        plan.note("test set", "all twelve classes", "all twelve", OK)
    plan.count("test set", sum(map(len, classes.values())), SPEECH_COMMANDS.counts["test"], "wav files")


KS = Recipe(
    (
        Input("speech_commands_root", f"{_TRAIN_NAME}: folders of words, {BACKGROUND}"),
        Input("speech_commands_test_root", f"{_TEST_NAME}; default: beside or below the other", required=False),
    ),
    plan_ks,
)
