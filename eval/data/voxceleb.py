"""VoxCeleb1 (SID, ASV): the tree in the layout s3prl reads, the split list, the trials."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from robustdistiller.eval.data.build import link
from robustdistiller.eval.data.checks import audio_below, find, locate, not_there, read_lines
from robustdistiller.eval.data.plan import MISSING, OK, Plan, Recipe, Roots
from robustdistiller.eval.tasks.corpora import VOXCELEB1

SPLIT_LISTS = ("iden_split.txt", "veri_test_class.txt")
TRIAL_LISTS = ("voxceleb1_test_v2.txt", "veri_test.txt")
_FIRST, _LAST = 10_001, 11_251
_TREE = "{dev,test}/wav/idXXXXX/VIDEO/NNNNN.wav"
_SPLIT_FORM, _TRIAL_FORM = "1|2|3 idXXXXX/VIDEO/NNNNN.wav", "1|0 PATH PATH"
#: Where audio of dev and test is in the layout s3prl reads, as the archives are named, and all in one folder.
TREES = (("dev/wav", "test/wav"), ("vox1_dev_wav/wav", "vox1_test_wav/wav"), ("wav", "wav"))


def _plan_sid(plan: Plan, roots: Roots) -> None:
    split = _find_list(plan, roots, "meta_data", SPLIT_LISTS, _SPLIT_FORM)
    dev, test = _find_tree(plan, roots["file_path"][0])
    _link(plan, dev, test, held_out=None)
    if split is not None:
        _look_at_split(plan, dev, test, split)


def _plan_asv(plan: Plan, roots: Roots) -> None:
    trials = _find_list(plan, roots, "test_meta_data", TRIAL_LISTS, _TRIAL_FORM)
    dev, test = _find_tree(plan, roots["file_path"][0])
    fix = "take the official list"
    pairs = trials and read_lines(plan, trials, r"[01]\s+(\S+)\s+(\S+)", _TRIAL_FORM, fix)
    if pairs is None:
        return
    plan.count("trials", len(pairs), VOXCELEB1.counts["trials"], "trials")
    compared = list(dict.fromkeys(path for pair in pairs for path in pair.groups()))
    of_first_release = "a list with names instead of ids is of the first release: take voxceleb1_test_v2.txt"
    fix = f"unpack vox1_test_wav.zip; {of_first_release}"
    plan.listed("audio of the trials", not_there(test, compared), len(compared), fix)
    held_out = {path.split("/")[0] for path in compared}
    _link(plan, dev, test, held_out)
    speakers = [name for name in _speakers(dev) if dev != test or name not in held_out]
    if len(speakers) < 2:
        plan.note("dev speakers", "two or more", f"{len(speakers)}", MISSING, "unpack vox1_dev_wav.zip")
    plan.set("dev_meta_data", trials)  # s3prl opens a list of dev trials, and scores none


def _find_list(plan: Plan, roots: Roots, name: str, usual: tuple[str, ...], form: str) -> Path | None:
    """A list that was given, or that lies in the corpus's folder under its usual name."""
    given = roots.get(name)
    places = given or [roots["file_path"][0] / one for one in usual]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        state = f"no file {given[0]}" if given else "not given, and not in the folder"
        fix = f"--root {name}=FILE: {' or '.join(usual)}, from the corpus's page"
        plan.note(name, f"lines '{form}'", state, MISSING, fix)
        return None
    plan.note(name, f"lines '{form}'", found.name, OK)
    plan.set(name, found)
    return found


def _find_tree(plan: Plan, given: Path) -> tuple[Path, Path]:
    """Where the audio of dev and test is; the same folder for both where they were unpacked into one."""
    found = [(folder, parts) for parts in TREES if (folder := locate(given, *(f"{part}/id*" for part in parts)))]
    fix = "unpack vox1_dev_wav.zip in dev/ and vox1_test_wav.zip in test/; each holds a folder wav"
    if not found:
        find(plan, given, ["dev/wav/id*"], _TREE, fix)  # says that it is not there
    folder, parts = found[0]
    counts = [len(audio_below(folder / part, ".wav")) for part in dict.fromkeys(parts)]
    official = VOXCELEB1.counts
    if len(counts) == 1:
        plan.count("dev and test in one folder", counts[0], official["dev"] + official["test"], "wav files")
    else:  # whether what is needed is there, the lists say
        for part, count in zip(("dev", "test"), counts):
            plan.count(part, count, official[part], "wav files", needed=False)
    return folder / parts[0], folder / parts[1]


def _speakers(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.glob("id*") if child.is_dir())


def _link(plan: Plan, dev: Path, test: Path, held_out: set[str] | None) -> None:
    """Point s3prl at the tree; where its layout is another one, at a tree of links.

    s3prl finds training audio of ASV by walking the folders, which does not follow links to folders: where one folder
    holds everything, each file is linked. `held_out` are the speakers of the test set; None where any place will do
    (SID).
    """
    if (dev.parts[-2:], test.parts[-2:]) == (("dev", "wav"), ("test", "wav")):
        plan.set("file_path", dev.parents[1])
        return
    plan.set("file_path", plan.out / "voxceleb1")
    for part, folder in {"dev": dev, "test": test}.items() if held_out or dev != test else [("dev", dev)]:
        stamp, found, items, make = str(folder.absolute()), f"in {folder}", 1, partial(link, folder)
        if dev == test and held_out:
            chosen = [name for name in _speakers(folder) if (name in held_out) == (part == "test")]
            stamp, found, items = f"{stamp} {len(chosen)} speakers", f"{len(chosen)} speakers {found}", len(chosen)
            make = partial(_link_files, folder, chosen)
        plan.add(f"voxceleb1/{part}/wav", f"links of {part}", f"{part}/wav/", make, items, stamp, found)


def _link_files(folder: Path, speakers: Sequence[str], result: Path, bar: tqdm) -> None:
    for speaker in speakers:
        for name in audio_below(folder / speaker, ".wav"):
            place = result / speaker / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            place.symlink_to((folder / speaker / name).absolute())
        bar.update()


def _look_at_split(plan: Plan, dev: Path, test: Path, file: Path) -> None:
    form = r"(?P<part>[123]) (?P<path>(?P<speaker>id\d+)/.*)"
    lines = read_lines(plan, file, form, _SPLIT_FORM, "take the official list")
    if lines is None:
        return
    strange = [line["speaker"] for line in lines if not _FIRST <= int(line["speaker"][2:]) <= _LAST]
    expected, fix = f"speakers id{_FIRST} to id{_LAST}", "take the list of VoxCeleb1"
    if plan.odd(file.name, expected, strange[:1], "{names}, which s3prl has no class for", fix):
        return
    for part in "123":
        paths = [line["path"] for line in lines if line["part"] == part]
        plan.count(f"part {part} of the split", len(paths), VOXCELEB1.counts[f"split {part}"], "utterances")
        plan.listed(f"audio of part {part}", not_there(test, not_there(dev, paths)), len(paths))


SID = Recipe(
    {
        "file_path": f"VoxCeleb1: {_TREE}",
        "meta_data": f"the split list, {SPLIT_LISTS[0]}; default: in the folder",
    },
    _plan_sid,
)
ASV = Recipe(
    {
        "file_path": f"VoxCeleb1: {_TREE}",
        "test_meta_data": f"the official trials, {TRIAL_LISTS[0]}; default: in the folder",
    },
    _plan_asv,
)
