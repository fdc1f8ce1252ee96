"""The certificate files of a connection.

Sources: docker's `docs/protect access`, buildctl's --tlsdir (cmd/buildctl/common).
"""

import os
from typing import NamedTuple

from kitcache.errors import UsageError

DOCKER_NAMES = ("ca.pem", "cert.pem", "key.pem")
_KUBERNETES_NAMES = ("ca.crt", "tls.crt", "tls.key")


class TlsConfig(NamedTuple):
    """Paths of PEM files, and how the daemon's certificate is verified.

    Attributes:
        ca: The authority that signed the daemon's certificate; None for those of the system.
        cert: The client's certificate, None for none.
        key: The key of `cert`; both or neither.
        server_name: The name in the daemon's certificate, if it is not the host of the address.
        verify: False accepts any certificate.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None
    verify: bool = True


def find_certificates(directory: str, names: tuple[str, str, str] = DOCKER_NAMES) -> TlsConfig:
    """Return the files among these three that exist: authority, certificate and key."""
    paths = [os.path.join(directory, name) for name in names]
    ca, cert, key = (path if os.path.exists(path) else None for path in paths)
    return TlsConfig(ca, cert, key)


def tls_from_directory(path: str) -> TlsConfig:
    """Return the certificates in a directory, by docker's or by Kubernetes' names.

    Raises UsageError if it holds none of them, or a certificate without its key.
    """
    for names in (DOCKER_NAMES, _KUBERNETES_NAMES):
        found = find_certificates(path, names)
        if found != TlsConfig():
            return check_key_pair(found)
    raise UsageError(
        "no certificates in this directory",
        path=path,
        hints=("name a directory with ca.pem, cert.pem, key.pem, or ca.crt, tls.crt, tls.key",),
    )


def check_key_pair(tls: TlsConfig) -> TlsConfig:
    """Return the argument. Raises UsageError for a certificate without its key, or the reverse."""
    if bool(tls.cert) != bool(tls.key):
        has, lacks = ("certificate", "key") if tls.cert else ("key", "certificate")
        raise UsageError(f"a client {has} without its {lacks}", path=tls.cert or tls.key or "")
    return tls
