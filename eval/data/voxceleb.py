"""VoxCeleb1 (SID, ASV): the tree in the layout s3prl reads, the split list, the trials."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from robustdistiller.common.files import write_text
from robustdistiller.eval.data.build import link
from robustdistiller.eval.data.checks import Lines, Where, audio_below, not_there
from robustdistiller.eval.data.plan import MISSING, OK, Input, Plan, Recipe, Roots
from robustdistiller.eval.tasks.corpora import VOXCELEB1

SPLIT_LISTS = ("iden_split.txt", "veri_test_class.txt")
TRIAL_LISTS = ("voxceleb1_test_v2.txt", "veri_test.txt")
DEV_SPEAKERS, DEV_TRIALS, _SEED = 40, 20_000, 0
_FIRST, _LAST = 10_001, 11_251
_TREE = "{dev,test}/wav/idXXXXX/VIDEO/NNNNN.wav"
_SPLIT_FORM, _TRIAL_FORM = "1|2|3 idXXXXX/VIDEO/NNNNN.wav", "1|0 PATH PATH"
_OFFICIAL = "take the official list"
#: Where audio of dev and test is in the layout s3prl reads, as the archives are named, and all in one folder.
TREES = (("dev/wav", "test/wav"), ("vox1_dev_wav/wav", "vox1_test_wav/wav"), ("wav", "wav"))
_FIX = "unpack vox1_dev_wav.zip in dev/ and vox1_test_wav.zip in test/; each holds a folder wav"


def _plan_sid(plan: Plan, roots: Roots) -> None:
    tree = _look_at_tree(plan, roots["file_path"][0])
    split = _find_list(plan, roots, "meta_data", SPLIT_LISTS, f"lines '{_SPLIT_FORM}'")
    if tree is not None:
        _link(plan, tree, held_out=None)
        if split is not None:
            _look_at_split(plan, tree, split)


def _plan_asv(plan: Plan, roots: Roots) -> None:
    """The tree, the official trials, and a list of trials among training speakers, which s3prl opens."""
    tree = _look_at_tree(plan, roots["file_path"][0])
    trials = _find_list(plan, roots, "test_meta_data", TRIAL_LISTS, f"lines '{_TRIAL_FORM}'")
    if tree is None or trials is None:
        return
    pairs = Lines(trials.name, r"[01]\s+(\S+)\s+(\S+)", _TRIAL_FORM, _OFFICIAL).look(plan, trials.parent)
    if pairs is None:
        return
    plan.count("trials", len(pairs), VOXCELEB1.counts["trials"], "trials")
    compared = list(dict.fromkeys(path for pair in pairs for path in pair.groups()))
    of_first_release = "a list with names instead of ids is of the first release: take voxceleb1_test_v2.txt"
    fix = f"unpack vox1_test_wav.zip; {of_first_release}"
    plan.listed("audio of the trials", not_there(tree["test"], compared), len(compared), fix)
    held_out = {path.split("/")[0] for path in compared}
    _link(plan, tree, held_out)
    speakers = [name for name in _speakers(tree["dev"]) if tree["dev"] != tree["test"] or name not in held_out]
    if roots.get("dev_meta_data"):
        dev_trials = roots["dev_meta_data"][0]
        state = OK if dev_trials.is_file() else MISSING
        plan.note("dev trials", f"lines '{_TRIAL_FORM}'", str(dev_trials), state)
    elif len(speakers) < 2:
        plan.note("dev speakers", "two or more", f"{len(speakers)}", MISSING, "unpack vox1_dev_wav.zip")
        return
    else:
        stamp = f"{tree['dev'].absolute()} {len(speakers)} speakers"
        make = partial(_write_trials, tree["dev"], speakers)
        expected = "any: s3prl opens them, and scores none"
        dev_trials = plan.add("dev_trials.txt", "dev trials", expected, make, DEV_TRIALS, stamp)
    plan.set("dev_meta_data", dev_trials)
    plan.set("test_meta_data", trials)


def _look_at_tree(plan: Plan, given: Path) -> dict[str, Path] | None:
    """Where the audio of dev and test is; the same folder for both where they were unpacked into one."""
    patterns = (("dev/wav/id*", "test/wav/id*"), ("vox1_dev_wav/wav/id*",), ("wav/id*",))
    found = [(folder, parts) for holds, parts in zip(patterns, TREES) if (folder := Where(holds).locate(given))]
    if not found:
        plan.find(given, Where(patterns[0], _TREE, "no such tree", _FIX))
        return None
    folder, (dev, test) = found[0]
    official = VOXCELEB1.counts
    if dev == test:
        count = len(audio_below(folder / dev, ".wav"))
        plan.count("dev and test in one folder", count, official["dev"] + official["test"], "wav files")
    else:  # whether what is needed is there, the lists say
        for part, below in (("dev", dev), ("test", test)):
            count = len(audio_below(folder / below, ".wav"))
            plan.count(part, count, official[part], "wav files", needed=False)
    return {"dev": folder / dev, "test": folder / test}


def _speakers(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.glob("id*") if child.is_dir()) if folder.is_dir() else []


def _link(plan: Plan, tree: dict[str, Path], held_out: set[str] | None) -> None:
    """Point s3prl at the tree; where its layout is another one, at a tree of links.

    s3prl finds training audio of ASV by walking the folders, which does not follow links to folders: where one folder
    holds everything, each file is linked. `held_out` are the speakers of the test set; None where any place will do
    (SID).
    """
    if (tree["dev"].parts[-2:], tree["test"].parts[-2:]) == (("dev", "wav"), ("test", "wav")):
        plan.set("file_path", tree["dev"].parents[1])
        return
    plan.set("file_path", plan.out / "voxceleb1")
    together = tree["dev"] == tree["test"]
    for part, folder in tree.items():
        target, source = f"voxceleb1/{part}/wav", str(folder.absolute())
        if together and held_out is not None:
            chosen = [name for name in _speakers(folder) if (name in held_out) == (part == "test")]
            stamp, make = f"{source} {len(chosen)} speakers", partial(_link_files, folder, chosen)
            found = f"{len(chosen)} speakers in {folder}"
            plan.add(target, f"links of {part}", f"{part}/wav/", make, len(chosen), stamp, found)
        else:
            plan.add(target, f"link to {part}", f"{part}/wav/", partial(link, folder), 1, source, f"in {folder}")
            if together:
                return  # SID takes everything from one place


def _link_files(folder: Path, speakers: Sequence[str], work: Path, bar: tqdm) -> Path:
    for speaker in speakers:
        for name in audio_below(folder / speaker, ".wav"):
            link = work / "result" / speaker / name
            if not link.is_symlink():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to((folder / speaker / name).absolute())
        bar.update()
    return work / "result"


def _find_list(plan: Plan, roots: Roots, name: str, usual: tuple[str, ...], what: str) -> Path | None:
    """A list that was given, or that lies in the corpus's folder under its usual name."""
    given = roots.get(name)
    places = given or [roots["file_path"][0] / one for one in usual]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        state = f"no file {given[0]}" if given else "not given, and not in the folder"
        plan.note(name, what, state, MISSING, f"--root {name}=FILE: {' or '.join(usual)}, from the corpus's page")
        return None
    if not given:
        plan.note(name, what, found.name, OK)
    plan.set(name, found)
    return found


def _look_at_split(plan: Plan, tree: dict[str, Path], file: Path) -> None:
    form = r"(?P<part>[123]) (?P<path>(?P<speaker>id\d+)/.*)"
    lines = Lines(file.name, form, _SPLIT_FORM, _OFFICIAL).look(plan, file.parent)
    if lines is None:
        return
    strange = [line["speaker"] for line in lines if not _FIRST <= int(line["speaker"][2:]) <= _LAST]
    expected, fix = f"speakers id{_FIRST} to id{_LAST}", "take the list of VoxCeleb1"
    if plan.odd(file.name, expected, strange[:1], "{names}, which s3prl has no class for", fix):
        return
    for part in "123":
        paths = [line["path"].strip() for line in lines if line["part"] == part]
        plan.count(f"part {part} of the split", len(paths), VOXCELEB1.counts[f"split {part}"], "utterances")
        missing = not_there(tree["dev"], paths)
        if tree["test"] != tree["dev"]:
            missing = not_there(tree["test"], missing)
        plan.listed(f"audio of part {part}", missing, len(paths), "unpack the archives again")


def _write_trials(folder: Path, speakers: list[str], work: Path, bar: tqdm) -> Path:
    """Pairs of utterances of training speakers, half of them of one speaker, always the same ones.

    A line is ``1 PATH PATH`` for one speaker, ``0 PATH PATH`` for two.
    """
    generator = random.Random(_SEED)
    chosen = sorted(generator.sample(sorted(speakers), min(DEV_SPEAKERS, len(speakers))))
    files = {speaker: [f"{speaker}/{name}" for name in audio_below(folder / speaker, ".wav")] for speaker in chosen}
    chosen = [speaker for speaker in chosen if files[speaker]]
    lines = []
    for number in range(DEV_TRIALS):
        same = number % 2 == 0
        first, second = [generator.choice(chosen)] * 2 if same else generator.sample(chosen, 2)
        lines.append(f"{int(same)} {generator.choice(files[first])} {generator.choice(files[second])}\n")
        bar.update()
    return write_text(work / "result", "".join(lines))


SID = Recipe(
    (
        Input("file_path", f"VoxCeleb1: {_TREE}"),
        Input("meta_data", f"the split list, {SPLIT_LISTS[0]}; default: in the folder", required=False),
    ),
    _plan_sid,
)
ASV = Recipe(
    (
        Input("file_path", f"VoxCeleb1: {_TREE}"),
        Input("test_meta_data", f"the official trials, {TRIAL_LISTS[0]}; default: in the folder", required=False),
        Input("dev_meta_data", "trials among training speakers; default: drawn", required=False),
    ),
    _plan_asv,
)
