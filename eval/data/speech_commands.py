"""Speech Commands (KS): words, background noise and the test set's twelve folders."""

from __future__ import annotations

from pathlib import Path

from robustdistiller.acoustics.audio.files import audio_info
from robustdistiller.eval.data.checks import audio_below, find, locate
from robustdistiller.eval.data.plan import DIFFERS, MISSING, OK, Plan, Recipe, Roots
from robustdistiller.eval.tasks.corpora import SPEECH_COMMANDS

KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
BACKGROUND = "_background_noise_"
CLASSES = (*KEYWORDS, "_unknown_", "_silence_")
TRAIN_NAME, TEST_NAME = "speech_commands_v0.01", "speech_commands_test_set_v0.01"
_UNPACK = "the archives hold no folder of their own: mkdir {name} && tar -xzf {name}.tar.gz -C {name}"
_CROP_S = 1.0


def _plan_ks(plan: Plan, roots: Roots) -> None:
    given = roots["speech_commands_root"][0]
    places = (*roots.get("speech_commands_test_root", ()), given / TEST_NAME, given.parent / TEST_NAME)
    test = next((found for place in places if (found := locate(place, *CLASSES))), None)
    if test is None:
        fix = f"--root speech_commands_test_root=FOLDER; {_UNPACK.format(name=TEST_NAME)}"
        plan.note("test set", f"twelve folders, in {TEST_NAME}", "not given and not beside it", MISSING, fix)
    else:
        _look_at_test_set(plan, test)
        plan.set("speech_commands_test_root", test)
    expected = f"folders of words and {BACKGROUND}"
    train = find(plan, given, [BACKGROUND], expected, _UNPACK.format(name=TRAIN_NAME))
    _look_at_words(plan, train)
    plan.set("speech_commands_root", train)


def _words(folder: Path) -> dict[str, list[str]]:
    return {child.name: audio_below(child, ".wav") for child in sorted(folder.iterdir()) if child.is_dir()}


def _look_at_words(plan: Plan, folder: Path) -> None:
    words, official = _words(folder), SPEECH_COMMANDS.counts
    background = words.pop(BACKGROUND)
    plan.count("words", sum(map(len, words.values())), official["words"], "wav files")
    absent = [word for word in KEYWORDS if not words.get(word)]
    expected, fix = ", ".join(KEYWORDS), "these are never trained"
    plan.odd("keywords", expected, absent, "none of {names}", fix, DIFFERS, most=len(KEYWORDS))
    plan.count(BACKGROUND, len(background), official["background"], "wav files")
    # A class that s3prl crops one second from, at random.
    short = [name for name in background if audio_info(folder / BACKGROUND / name).duration_s < _CROP_S]
    plan.odd(BACKGROUND, "recordings of 1 s or more", short, "shorter ones: {names}", "remove them")


def _look_at_test_set(plan: Plan, folder: Path) -> None:
    found = _words(folder)
    fix = "give the unpacked test set, not the training set; s3prl fails at other folders"
    foreign = sorted(found.keys() - set(CLASSES))
    plan.odd("test set", "folders of the twelve classes only", foreign, "also {names}", fix)
    absent = [name for name in CLASSES if not found.get(name)]
    expected, fix = "all twelve classes", "not the official test set"
    if not plan.odd("test set", expected, absent, "none of {names}", fix, DIFFERS, most=len(CLASSES)):
        plan.note("test set", expected, "all twelve", OK)
    plan.count("test set", sum(map(len, found.values())), SPEECH_COMMANDS.counts["test"], "wav files")


KS = Recipe(
    {
        "speech_commands_root": f"{TRAIN_NAME}: folders of words, {BACKGROUND}",
        "speech_commands_test_root": f"{TEST_NAME}; default: beside or below the other",
    },
    _plan_ks,
)
