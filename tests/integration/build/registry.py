"""Debian's docker-registry with one login, on a free port of 127.0.0.1."""

import base64
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

START_TIMEOUT_S = 30.0
USER = "kitty"
PASSWORD = "open-sesame-4711"
# Of that password, with bcrypt: docker-registry knows no other kind.
_HTPASSWD = f"{USER}:$2y$04$abcdefghijklmnopqrstuuo6bT7LAS3oDMO8ApB/N/H/clbsiEgqi\n"
_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_CONFIG = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}/data}}}}
http: {{addr: {host}}}
auth: {{htpasswd: {{realm: kit, path: {root}/htpasswd}}}}
"""


class Registry:
    """A running registry. Context manager. host: as it stands in the name of an image."""

    def __init__(self, root: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
        self._root = root
        (root / "htpasswd").write_text(_HTPASSWD)
        (root / "config.yml").write_text(_CONFIG.format(root=root, host=self.host))

    def __enter__(self) -> Self:
        self._log = open(self._root / "log", "wb")
        command = ["setpriv", "--pdeathsig", "TERM", "docker-registry", "serve"]
        self._child = subprocess.Popen(
            [*command, str(self._root / "config.yml")], stdout=self._log, stderr=self._log
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            assert self._child.poll() is None, (self._root / "log").read_text()
            assert time.monotonic() < deadline, (self._root / "log").read_text()
            time.sleep(0.02)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._child.terminate()
        self._child.wait()
        self._log.close()

    def _answers(self) -> bool:
        try:
            self.ask("")
        except urllib.error.HTTPError:
            raise
        except OSError:
            return False
        return True

    def ask(self, path: str) -> Any:
        """What the registry's own API says below /v2/, as JSON."""
        request = urllib.request.Request(f"http://{self.host}/v2/{path}")
        request.add_header("Authorization", f"Basic {login()}")
        request.add_header("Accept", ", ".join(_MANIFESTS))
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read())

    def tags(self, name: str) -> list[str]:
        """The tags of a repository; none where there is no such repository."""
        if name not in self.ask("_catalog?n=1000")["repositories"]:
            return []
        try:
            return self.ask(f"{name}/tags/list")["tags"] or []
        except urllib.error.HTTPError as error:
            error.close()
            return []


def login(password: str = PASSWORD) -> str:
    """The login as config.json has it."""
    return base64.b64encode(f"{USER}:{password}".encode()).decode()


def write_helper(directory: Path, host: str, password: str = PASSWORD) -> None:
    """A credential helper, docker-credential-kit, which knows one registry."""
    directory.mkdir(exist_ok=True)
    program = directory / "docker-credential-kit"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, sys\n"
        f"if sys.argv[1:] != ['get'] or sys.stdin.read().strip() != {host!r}:\n"
        "    print('credentials not found in native keychain')\n"
        "    sys.exit(1)\n"
        f"print(json.dumps({{'Username': {USER!r}, 'Secret': {password!r}}}))\n"
    )
    program.chmod(0o755)
