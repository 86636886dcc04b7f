"""Tries this package beside several versions of PyTorch and torchaudio, each pair in a virtual environment of its own.

Not part of the suite: every environment is a download of gigabytes and some minutes. From the repository's root::

    python tests/try_environments.py                      # all, one after the other, removed afterwards
    python tests/try_environments.py --only newest fork   # some
    python tests/try_environments.py --work FOLDER --keep # keep the environments, to look into them

In each: what ``robustdistiller doctor`` says, ``register()``, and an IC head on the mini corpus, trained for a few
steps and evaluated clean and in noise with s3prl unchanged. The table goes to standard output as Markdown.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Environment:
    """What to install.

    Attributes:
        about: what is proved.
        requirements: beside this package; they are constraints for everything else too.
        extra: of this package.
        without: packages to remove again.
    """

    about: str
    requirements: tuple[str, ...] = ()
    extra: str = "superb"
    without: tuple[str, ...] = ()


ENVIRONMENTS = {
    "pair": Environment("both of one release", ("torch==2.11.0", "torchaudio==2.11.0")),
    "misfit": Environment("torchaudio's library is for a later torch", ("torch==2.11.0", "torchaudio==2.11.1")),
    "newest": Environment("the newest of everything"),
    # A CPU build where the index or the links that pip is configured with hold one; the table shows what was installed.
    "cpu": Environment("torchaudio's library wants CUDA", ("torch==2.13.0", "torchaudio==2.11.1")),
    "oldest": Environment("the oldest that is supported", ("torch==2.8.0", "torchaudio==2.8.0")),
    "fork": Environment("ESPnet's fork of s3prl", extra="superb-espnet"),
    "absent": Environment("torchaudio is missing", without=("torchaudio",)),
}

TRIAL = """
import json, sys
from pathlib import Path
from robustdistiller.eval.run.launcher import main
from robustdistiller.upstream import register
folder = Path(sys.argv[1])
register()
from robustdistiller import mini
corpus = mini.build(folder / "corpus")
steps = 40
settings = {
    **corpus.overrides("fluent_commands"), **corpus.head_options("fluent_commands"),
    "config.downstream_expert.datarc.num_workers": 0, "config.runner.total_steps": steps,
    "config.runner.eval_step": steps, "config.runner.save_step": steps, "config.runner.eval_dataloaders": ["dev"],
}
settings["config.scheduler"] = {**settings["config.scheduler"], "num_warmup_steps": 5}
override = ",,".join(f"{key}={value!r}" for key, value in settings.items())
head, records = str(folder / "head"), str(folder / "records")
train = ["-m", "train", "-u", "robustdistiller_mini", "-d", "fluent_commands", "-p", head, "--device", "cpu"]
evaluate = ["-m", "evaluate", "-e", head, "--device", "cpu", "--records", records]
assert main([*train, "-o", override]) == 0
assert main([*evaluate, "--condition", "clean", "--condition", "noise:snr_db=10"]) == 0
from robustdistiller.eval.results.files import read_records
found = {r.condition: r.metrics[0].value for r in read_records(records)}
versions = read_records(records)[0].versions
print(json.dumps({"scores": found, "versions": versions}))
"""


def try_environment(name: str, environment: Environment, work: Path) -> dict[str, str]:
    """Install and try one; returns the cells of its row."""
    folder = work / name
    folder.mkdir(parents=True)
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{requirement}\n" for requirement in environment.requirements))
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    source = folder / "source"  # a wheel built in the checkout itself would leave its build folder there
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".git", ".venv*", "build", "*.egg-info", "quickstart"))
    subprocess.run([*pip, "-c", constraints, *environment.requirements, f"{source}[{environment.extra}]"], check=True)
    if environment.without:
        subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", *environment.without], check=True)
    row = {"environment": name, "about": environment.about}
    said = _run(python, ["-m", "robustdistiller.cli", "doctor", "--json"], folder)
    report = json.loads(said.stdout) if said.stdout.startswith("{") else {"ok": False, "core": []}
    checks = {check["name"]: check for check in report["core"]}
    for package in ("torch", "torchaudio"):
        row[package] = checks.get(package, {}).get("found", said.stderr.strip()[-200:])
    fixes = [check["fix"] for check in report["core"] if not check["ok"] and check["required"]]
    row["doctor"] = "ok" if report["ok"] else "; ".join(fixes)
    done = _run(python, ["-c", TRIAL, str(folder / "trial")], folder)
    (folder / "trial.log").write_text(done.stdout + done.stderr)
    if done.returncode:
        row["head"] = "failed: " + (done.stderr.strip().splitlines() or ["?"])[-1]
    else:
        last = json.loads(done.stdout.strip().splitlines()[-1])
        row["s3prl"] = last["versions"]["s3prl"]
        row["head"] = ", ".join(f"{condition} {score:.2f}" for condition, score in sorted(last["scores"].items()))
    return row


def _run(python: Path, arguments: list[str], folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run([python, *arguments], cwd=folder, capture_output=True, text=True)


def main() -> None:
    """Try what the command line names and print the table."""
    about = textwrap.dedent(__doc__)
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ENVIRONMENTS, default=list(ENVIRONMENTS), help="which ones")
    parser.add_argument("--work", type=Path, help="where the environments go; default: a temporary folder")
    parser.add_argument("--keep", action="store_true", help="do not remove them")
    options = parser.parse_args()
    columns = ("environment", "about", "torch", "torchaudio", "s3prl", "doctor", "head")
    sys.stdout.write("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|\n")
    work = options.work or Path(tempfile.mkdtemp(prefix="robustdistiller-environments-"))
    for name in options.only:
        try:
            row = try_environment(name, ENVIRONMENTS[name], work)
        except subprocess.CalledProcessError as error:
            row = {"environment": name, "head": f"could not be installed: {error}"}
        finally:
            if not options.keep:
                shutil.rmtree(work / name, ignore_errors=True)
        cells = (row.get(column, "").replace("|", "\\|") for column in columns)
        sys.stdout.write("| " + " | ".join(cells) + " |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
