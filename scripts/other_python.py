"""Create a venv with a second supported Python, if the machine has one.

usage: other_python.py VENV
"""

import shutil
import subprocess
import sys
from pathlib import Path

SUPPORTED = ((3, 13), (3, 12), (3, 11))


def find_other() -> str | None:
    for major, minor in SUPPORTED:
        found = shutil.which(f"python{major}.{minor}")
        if found and (major, minor) != sys.version_info[:2] and works(found, (major, minor)):
            return found
    return None


def works(python: str, version: tuple[int, int]) -> bool:
    """Return True if it is that Python: a version manager's shim may name a missing one."""
    probe = [python, "-c", "import sys; print(*sys.version_info[:2])"]
    answer = subprocess.run(probe, capture_output=True, text=True, check=False)
    return answer.returncode == 0 and tuple(map(int, answer.stdout.split())) == version


def main() -> None:
    venv = Path(sys.argv[1])
    shutil.rmtree(venv, ignore_errors=True)
    other = find_other()
    if other is None:
        print(f"setup: no second Python but {sys.version.split()[0]}: its tests are left out")
        venv.mkdir()
        return
    subprocess.run([sys.executable, "-m", "virtualenv", "--quiet", "-p", other, venv], check=True)
    pip = [
        venv / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    needs = ("--editable", ".", "--requirement", "requirements-dev.txt")
    subprocess.run([*pip, *needs], check=True)


if __name__ == "__main__":
    main()
