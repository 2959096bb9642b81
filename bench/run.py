"""All benchmarks, one after another: `make bench`. Figures hold for this machine, in this run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FIRST = ["cluster.py"]


def main() -> int:
    here = Path(__file__).parent
    others = sorted(p.name for p in here.glob("*.py") if p.name not in (*FIRST, "run.py", "load.py"))
    failed = 0
    for name in [*FIRST, *others]:
        print(f"\n== {name}", flush=True)
        failed |= subprocess.run([sys.executable, str(here / name)], check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
