"""Links to the folders of this repository under the names they are installed by, in `build/linked`.

Tools that read sources without importing them find a package by its folder: mkdocs calls `on_startup`, and `make lint`
runs this file before mypy.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def on_startup(**_: object) -> None:
    """Make the links that are not there."""
    package = ROOT / "build" / "linked" / "robustdistiller"
    package.mkdir(parents=True, exist_ok=True)
    rooms = [
        path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name not in ("robustdistiller", "research")
    ]
    for source in (*rooms, *(ROOT / "robustdistiller").glob("*.*")):
        link = package / source.name
        if not link.exists():
            link.symlink_to(source)


if __name__ == "__main__":
    on_startup()
