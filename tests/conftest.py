"""Shared set-up: one thread per process, no network, no waiting for the disk, no file outside a test's own folders."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import pytest
import torch

if TYPE_CHECKING:
    from robustdistiller.mini import MiniCorpus

torch.set_num_threads(1)
os.fsync = lambda descriptor: None  # nothing here has to outlive a crash of the machine; a seventh of some tests' time
# `research` is not installed. With the repository root on the path `eval`, `upstream` and `pretrain` would be top-level
# packages too, and s3prl has some of these names; hence a folder in which `research` is alone.
_BESIDE = tempfile.TemporaryDirectory()
Path(_BESIDE.name, "research").symlink_to(Path(__file__).parents[1] / "research")
sys.path.append(_BESIDE.name)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A suite that a script runs in its background ignores Ctrl-C, and so would the processes that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # under nohup, likewise
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave `slow` tests out unless -m asks for them."""
    if config.getoption("markexpr"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.fixture
def integer_products() -> None:
    """onnxruntime multiplies integers rightly on this processor."""
    from robustdistiller.upstream.export.runtime import require_integer_products

    try:
        require_integer_products()
    except ValueError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def bridge(tmp_path_factory) -> None:
    """s3prl can be imported."""
    from robustdistiller.upstream.s3prl.bridge import install

    install(tmp_path_factory.mktemp("s3prl"))


@pytest.fixture(scope="session")
def toy_student(tmp_path_factory) -> Path:
    """A checkpoint of a tiny random student."""
    from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint

    torch.manual_seed(0)
    config = EncoderConfig(
        conv_layers=((16, 10, 5), *((16, 3, 2),) * 4, *((16, 2, 2),) * 2),
        embed_dim=16,
        num_layers=1,
        num_heads=2,
        ffn_dim=32,
        position_groups=4,
        prediction_layers=(2,),
    )
    path = tmp_path_factory.mktemp("student") / "student.ckpt"
    save_checkpoint(path, SpeechEncoder(config), {})
    return path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> MiniCorpus:
    """The mini corpus, built once for all processes that share the tests."""
    from robustdistiller.common.locks import locked
    from robustdistiller.mini import build

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "mini-corpus"
    with locked(folder.with_suffix(".lock")):
        return build(folder)
