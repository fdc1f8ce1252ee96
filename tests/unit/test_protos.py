"""The generated message classes are what the .proto files say."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROTOS = Path("kitcache/buildkit/proto")
SCRIPT = ROOT / "scripts" / "generate_protos.py"


def contents(directory: Path) -> dict[str, str]:
    found = (*directory.glob("*_pb2.py"), *directory.glob("*_pb2.pyi"))
    return {path.name: path.read_text() for path in found}


def test_the_generated_code_is_up_to_date(tmp_path: Path) -> None:
    """To mend it: .venv/bin/python scripts/generate_protos.py"""
    pytest.importorskip("grpc_tools")
    subprocess.run([sys.executable, SCRIPT, tmp_path], check=True, timeout=60)
    made = contents(tmp_path / PROTOS)
    assert made == contents(ROOT / "src" / PROTOS)
    names = {path.stem for path in (ROOT / "src" / PROTOS).glob("*.proto")}
    assert set(made) == {f"{name}_pb2{ending}" for name in names for ending in (".py", ".pyi")}


def test_package_names_are_ours_and_so_clash_with_no_other_library() -> None:
    """Two libraries that register one name with protobuf cannot be imported together."""
    packages = [
        line
        for path in (ROOT / "src" / PROTOS).glob("*.proto")
        for line in path.read_text().splitlines()
        if line.startswith("package ")
    ]
    assert packages
    assert all(line.startswith("package kitcache.") for line in packages)
