"""VoxCeleb1 (SID, ASV): the tree in the layout s3prl reads, the split list, the trials."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from robustdistiller.common.files import write_text
from robustdistiller.eval.data.looking import audio_below, lines_of, locate, not_there
from robustdistiller.eval.data.plan import (
    MISSING,
    OK,
    Input,
    Plan,
    Recipe,
    Roots,
    Step,
)
from robustdistiller.eval.data.running import link_folder
from robustdistiller.eval.tasks import Task
from robustdistiller.eval.tasks.corpora import VOXCELEB1

SPLIT_LISTS = ("iden_split.txt", "veri_test_class.txt")
TRIAL_LISTS = ("voxceleb1_test_v2.txt", "veri_test.txt")
DEV_SPEAKERS, DEV_TRIALS, _SEED = 40, 20_000, 0
_FIRST, _LAST = 10_001, 11_251
_TREE = "{dev,test}/wav/idXXXXX/VIDEO/NNNNN.wav"
_UNPACKED = {"dev": "vox1_dev_wav/wav", "test": "vox1_test_wav/wav"}


def plan_sid(task: Task, roots: Roots, out: Path) -> Plan:
    """Plan of SID: the tree and the split list.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> plan_sid(tasks.get("SID"), {"file_path": [Path("nowhere")]}, Path("out")).ok
        False
    """
    plan = Plan(task, out)
    tree = _look_at_tree(plan, roots["file_path"][0])
    split = _find_list(plan, roots, "meta_data", SPLIT_LISTS, "lines '1|2|3 idXXXXX/VIDEO/NNNNN.wav'")
    if tree is None:
        return plan
    _link(plan, tree, speakers=None)
    if split is not None:
        _look_at_split(plan, tree, split)
    return plan


def plan_asv(task: Task, roots: Roots, out: Path) -> Plan:
    """Plan of ASV: the tree, the official trials, and a list of trials among training speakers, which s3prl opens.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> plan_asv(tasks.get("ASV"), {"file_path": [Path("nowhere")]}, Path("out")).ok
        False
    """
    plan = Plan(task, out)
    tree = _look_at_tree(plan, roots["file_path"][0])
    trials = _find_list(plan, roots, "test_meta_data", TRIAL_LISTS, "lines '1|0 PATH PATH'")
    if tree is None or trials is None:
        return plan
    pairs = [line.split() for line in lines_of(trials)]
    odd = [" ".join(pair) for pair in pairs if len(pair) != 3 or pair[0] not in ("0", "1")]
    if odd:
        plan.note(trials.name, "lines '1|0 PATH PATH'", repr(odd[0]), MISSING, "take the official list")
        return plan
    plan.count("trials", len(pairs), VOXCELEB1.counts["trials"], "trials")
    heard = list(dict.fromkeys(path for pair in pairs for path in pair[1:]))
    fix = (
        "unpack vox1_test_wav.zip; a list with names instead of ids is of the first release: take voxceleb1_test_v2.txt"
    )
    plan.absent("audio of the trials", not_there(tree["test"], heard), len(heard), fix)
    held_out = {path.split("/")[0] for path in heard}
    _link(plan, tree, speakers=held_out)
    speakers = [name for name in _speakers(tree["dev"]) if tree["dev"] != tree["test"] or name not in held_out]
    if roots.get("dev_meta_data"):
        given = roots["dev_meta_data"][0]
        plan.note("dev trials", "lines '1|0 PATH PATH'", str(given), OK if given.is_file() else MISSING)
    elif len(speakers) < 2:
        plan.note("dev speakers", "two or more", f"{len(speakers)}", MISSING, "unpack vox1_dev_wav.zip")
        return plan
    else:
        given = plan.add(_dev_trials(tree["dev"], speakers), "any: s3prl opens them, and scores none")
    plan.set("dev_meta_data", given)
    plan.set("test_meta_data", trials)
    return plan


def _look_at_tree(plan: Plan, given: Path) -> dict[str, Path] | None:
    """Where the audio of dev and test is; the same folder for both where they were unpacked into one."""
    plain = locate(given, ["dev/wav/id*", "test/wav/id*"])
    unpacked = locate(given, [f"{_UNPACKED['dev']}/id*"])
    mixed = locate(given, ["wav/id*"])
    if plain is not None:
        tree = {"dev": plain / "dev/wav", "test": plain / "test/wav"}
    elif unpacked is not None:
        tree = {part: unpacked / below for part, below in _UNPACKED.items()}
    elif mixed is not None:
        tree = {"dev": mixed / "wav", "test": mixed / "wav"}
    else:
        found = "no such folder" if not given.is_dir() else "no such tree"
        fix = "unpack vox1_dev_wav.zip in dev/ and vox1_test_wav.zip in test/; each holds a folder wav"
        plan.note(str(given), _TREE, found, MISSING, fix)
        return None
    if tree["dev"] == tree["test"]:
        total = VOXCELEB1.counts["dev"] + VOXCELEB1.counts["test"]
        plan.count("dev and test in one folder", len(audio_below(tree["dev"], ".wav")), total, "wav files")
        return tree
    for part, folder in tree.items():
        # Whether what is needed is there, the lists say.
        plan.count(part, len(audio_below(folder, ".wav")), VOXCELEB1.counts[part], "wav files", needed=False)
    return tree


def _speakers(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.glob("id*") if child.is_dir()) if folder.is_dir() else []


def _link(plan: Plan, tree: dict[str, Path], speakers: set[str] | None) -> None:
    """Point s3prl at the tree; where its layout is another one, at a tree of links.

    s3prl finds training audio of ASV by walking the folders, which does not follow links to folders: where one folder
    holds everything, each file is linked. `speakers` are those of the test set; None where any place will do (SID).
    """
    if tree["dev"].parts[-2:] == ("dev", "wav") and tree["test"].parts[-2:] == ("test", "wav"):
        plan.set("file_path", tree["dev"].parents[1])
        return
    plan.set("file_path", plan.out / "voxceleb1")
    for part, folder in tree.items():
        target, where = f"voxceleb1/{part}/wav", str(folder.absolute())
        if tree["dev"] != tree["test"] or speakers is None:
            step = Step(target, f"link to {part}", where, 1, partial(link_folder, folder))
            plan.add(step, f"{part}/wav/", f"in {folder}")
            if tree["dev"] == tree["test"]:
                return  # SID takes everything from one place
        else:
            chosen = [name for name in _speakers(folder) if (name in speakers) == (part == "test")]
            stamp = f"{where} {len(chosen)} speakers"
            step = Step(target, f"links of {part}", stamp, len(chosen), partial(_link_files, folder, chosen))
            plan.add(step, f"{part}/wav/", f"{len(chosen)} speakers in {folder}")


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
    folder = roots["file_path"][0]
    candidates = [*roots.get(name, ()), *(folder / one for one in usual)]
    found = next((one for one in candidates if one.is_file()), None)
    if found is None or (roots.get(name) and found != roots[name][0]):
        state = f"no file {roots[name][0]}" if roots.get(name) else "not given, and not in the folder"
        fix = f"--root {name}=FILE: {' or '.join(usual)}, from the corpus's page"
        plan.note(name, what, state, MISSING, fix)
        return None
    if not roots.get(name):
        plan.note(name, what, found.name, OK)
    plan.set(name, found)
    return found


def _look_at_split(plan: Plan, tree: dict[str, Path], file: Path) -> None:
    parts: dict[str, list[str]] = {"1": [], "2": [], "3": []}
    for line in lines_of(file):
        part, _, path = line.partition(" ")
        speaker = path.split("/")[0]
        if part not in parts or not speaker.startswith("id") or not speaker[2:].isdigit():
            plan.note(file.name, "lines '1|2|3 idXXXXX/VIDEO/NNNNN.wav'", repr(line), MISSING, "take the official list")
            return
        if not _FIRST <= int(speaker[2:]) <= _LAST:
            found = f"{speaker}, which s3prl has no class for"
            plan.note(file.name, f"speakers id{_FIRST} to id{_LAST}", found, MISSING, "take the list of VoxCeleb1")
            return
        parts[part].append(path.strip())
    for part, paths in parts.items():
        plan.count(f"part {part} of the split", len(paths), VOXCELEB1.counts[f"split {part}"], "utterances")
        missing = not_there(tree["dev"], paths)
        if tree["test"] != tree["dev"]:
            missing = not_there(tree["test"], missing)
        plan.absent(f"audio of part {part}", missing, len(paths), "unpack the archives again")


def _dev_trials(folder: Path, speakers: list[str]) -> Step:
    stamp = f"{folder.absolute()} {len(speakers)} speakers"
    return Step("dev_trials.txt", "dev trials", stamp, DEV_TRIALS, partial(_write_trials, folder, speakers))


def _write_trials(folder: Path, speakers: list[str], work: Path, bar: tqdm) -> Path:
    return write_text(work / "result", "".join(f"{line}\n" for line in draw_trials(folder, speakers, bar)))


def draw_trials(folder: Path, speakers: Sequence[str], bar: tqdm | None = None) -> list[str]:
    """Pairs of utterances of training speakers, half of them of one speaker, always the same ones.

    Args:
        folder: of the training speakers.
        speakers: their names.
        bar: progress.

    Returns:
        Lines ``1 PATH PATH`` for one speaker, ``0 PATH PATH`` for two.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for speaker in ("id1", "id2"):
        ...     (folder / speaker / "video").mkdir(parents=True)
        ...     (folder / speaker / "video" / "1.wav").touch()
        >>> sorted(set(draw_trials(folder, ["id1", "id2"])))[-1]
        '1 id2/video/1.wav id2/video/1.wav'
    """
    generator = random.Random(_SEED)
    chosen = sorted(generator.sample(sorted(speakers), min(DEV_SPEAKERS, len(speakers))))
    files = {speaker: [f"{speaker}/{name}" for name in audio_below(folder / speaker, ".wav")] for speaker in chosen}
    chosen = [speaker for speaker in chosen if files[speaker]]
    lines = []
    for number in range(DEV_TRIALS):
        same = number % 2 == 0
        first, second = [generator.choice(chosen)] * 2 if same else generator.sample(chosen, 2)
        lines.append(f"{int(same)} {generator.choice(files[first])} {generator.choice(files[second])}")
        if bar is not None:
            bar.update()
    return lines


SID = Recipe(
    (
        Input("file_path", f"VoxCeleb1: {_TREE}"),
        Input("meta_data", f"the split list, {SPLIT_LISTS[0]}; default: in the folder", required=False),
    ),
    plan_sid,
)
ASV = Recipe(
    (
        Input("file_path", f"VoxCeleb1: {_TREE}"),
        Input("test_meta_data", f"the official trials, {TRIAL_LISTS[0]}; default: in the folder", required=False),
        Input("dev_meta_data", "trials among training speakers; default: drawn", required=False),
    ),
    plan_asv,
)
