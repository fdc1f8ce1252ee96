"""Generate the message classes from src/kitcache/buildkit/proto/*.proto, next to them.

python scripts/generate_protos.py [DIRECTORY]    write below another directory, to compare
"""

import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent / "src"
PROTOS = ROOT / "kitcache/buildkit/proto"


def main(into: Path) -> int:
    protos = sorted(str(path) for path in PROTOS.glob("*.proto"))
    well_known = Path(protoc.__file__).parent / "_proto"
    return protoc.main(
        [
            "protoc",
            f"--proto_path={ROOT}",
            f"--proto_path={well_known}",
            f"--python_out={into}",
            f"--pyi_out={into}",
            *protos,
        ]
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT))
