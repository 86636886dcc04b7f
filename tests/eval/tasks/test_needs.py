"""A task is refused with everything it misses and the commands that bring it."""

from __future__ import annotations

import pytest

from robustdistiller.common.installation import InstallationError
from robustdistiller.eval import tasks
from robustdistiller.eval.tasks import needs as task_needs
from robustdistiller.upstream.s3prl.bridge import INSTALL_SOX


def test_missing_tools_and_packages_come_with_their_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(task_needs, "sox_path", lambda: None)
    assert not task_needs.look_at(tasks.get("KS")).missing, "16 kHz files need no sox"
    asv = task_needs.look_at(tasks.get("ASV"))
    assert asv.missing == ("sox",) and asv.commands == (INSTALL_SOX,)
    monkeypatch.setattr(task_needs.importlib.util, "find_spec", lambda _name: None)
    assert task_needs.look_at(tasks.get("QbE")).commands == ("pip install dtw-python lxml", INSTALL_SOX)
    with pytest.raises(InstallationError) as raised:
        task_needs.require(tasks.get("SE"))
    message = str(raised.value)
    assert message.startswith("SE (speech enhancement, VoiceBank-DEMAND) needs librosa, h5py, pesq, pystoi, not found")
    assert message.endswith(": pip install librosa h5py pesq pystoi")
    monkeypatch.undo()
    task_needs.require(tasks.get("IC"))
