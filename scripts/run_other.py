"""Run tests with the second Python that other_python.py set up, if there is one.

usage: run_other.py VENV TESTS...
"""

import subprocess
import sys
from pathlib import Path


def main() -> int:
    python = Path(sys.argv[1]) / "bin" / "python"
    if not python.exists():
        print("no second Python on this machine: tested on one only")
        return 0
    pytest = [python, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", *sys.argv[2:]]
    return subprocess.run(pytest, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
