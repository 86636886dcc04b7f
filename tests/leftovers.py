"""What a process that was killed while it wrote a file leaves behind."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path


def leave_temporary_file(folder: Path) -> Path:
    """A half-written file of ``write_atomically`` in ``folder``, of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    host = re.sub(r"\W", "_", socket.gethostname())
    path = folder / f".a.ckpt.tmp-{host}-{process.pid}-00000000"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("half")
    return path
