"""A home directory with docker's and buildx's configuration in it, as their tools write it."""

import hashlib
import json
from pathlib import Path
from typing import Any


class Home:
    """`environ` sees only this home; a test adds variables to a copy of it."""

    def __init__(self, root: Path) -> None:
        self.config = root / ".docker"
        self.config.mkdir(parents=True)
        self.environ = {"HOME": str(root), "XDG_RUNTIME_DIR": str(root / "run")}

    def write(self, name: str, content: Any) -> Path:
        path = self.config / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def add_context(self, name: str, host: str, *, skip_verify: bool = False, **pem: str) -> None:
        key = hashlib.sha256(name.encode()).hexdigest()
        endpoint = {"Host": host, "SkipTLSVerify": skip_verify}
        meta = {"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}
        self.write(f"contexts/meta/{key}/meta.json", meta)
        for part, content in pem.items():
            self.write(f"contexts/tls/{key}/docker/{part}.pem", content)

    def certificate(self, context: str, name: str) -> str:
        key = hashlib.sha256(context.encode()).hexdigest()
        return str(self.config / f"contexts/tls/{key}/docker/{name}")

    def add_builder(self, name: str, driver: str, *endpoints: str, **options: str) -> None:
        nodes = [
            {"Name": f"{name.lower()}{i}", "Endpoint": endpoint, "DriverOpts": options or None}
            for i, endpoint in enumerate(endpoints)
        ]
        builder = {"Name": name, "Driver": driver, "Nodes": nodes, "Dynamic": False}
        self.write(f"buildx/instances/{name.lower()}", builder)

    def use_builder(self, name: str, key: str, *, is_global: bool = False) -> None:
        self.write("buildx/current", {"Key": key, "Name": name, "Global": is_global})

    def default_builder(self, name: str, key: str) -> None:
        digest = hashlib.sha256(key.encode()).hexdigest()
        self.write(f"buildx/defaults/{digest[:20]}", name)
