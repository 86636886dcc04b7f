"""``python -m robustdistiller.eval.doctor``: the report, where the command line's own packages are missing."""

import sys

from robustdistiller.eval.doctor.examination import examine
from robustdistiller.eval.doctor.report import as_text

if __name__ == "__main__":
    found = examine()
    sys.stdout.write(as_text(found) + "\n")
    sys.exit(not found.ok)
