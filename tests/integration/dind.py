"""docker:dind as a GitLab job sees it: an engine behind TLS, and the files of its clients."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .daemon import Daemon
from .listener import into_socket, listen_tcp, make_certificates

HOST = "tcp://docker:2376"
CERTIFICATES = "/certs/client"
CREATE = "docker buildx create --use --bootstrap dind"


class Dind(NamedTuple):
    """An engine behind TLS.

    Attributes:
        env: The environment of a client that has no setting of its own.
        certificates: The directory of the client's files.
    """

    env: dict[str, str]
    host: str
    certificates: str

    def localize(self, line: str) -> str:
        """Return a recipe's line for this engine.

        A builder with a container of its own needs an image that cannot be pulled here. So the
        builder is only created, and the build goes to the engine of the same context.
        """
        line = line.replace(HOST, self.host).replace(CERTIFICATES, self.certificates)
        return line.replace(CREATE, "docker buildx create dind && docker context use dind")


@contextmanager
def dind(daemon: Daemon, directory: Path) -> Iterator[Dind]:
    """Put the daemon behind TLS that wants a client's certificate."""
    certificates, home = directory / "certs", directory / "home"
    certificates.mkdir()
    home.mkdir()
    server = make_certificates(certificates, mutual=True, protocols=("http/1.1",)).server
    env = {**daemon.env, "HOME": str(home), "DOCKER_CONFIG": str(home / ".docker")}
    del env["DOCKER_HOST"]
    with listen_tcp(into_socket(daemon.socket), tls=server) as listener:
        yield Dind(env, f"tcp://127.0.0.1:{listener.port}", str(certificates))
