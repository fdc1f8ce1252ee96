"""Certificates of a connection: which files they are in.

Sources: docker's `docs/protect access`, buildctl's --tlsdir (cmd/buildctl/common).
"""

import os
from typing import NamedTuple

from kitcache.errors import UsageError

# As docker names them, and as Kubernetes and cert-manager do.
_NAMES = (("ca.pem", "cert.pem", "key.pem"), ("ca.crt", "tls.crt", "tls.key"))


class TlsConfig(NamedTuple):
    """Paths of PEM files, and what is proven with them.

    ca: who may have signed the daemon's certificate (None: whom the system trusts). cert, key: our
    own, both or none. server_name: the name in the daemon's certificate, where it is not the host
    of the address. verify False: any certificate will do.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None
    verify: bool = True


def tls_from_directory(path: str) -> TlsConfig:
    """What a directory holds: ca.pem, cert.pem, key.pem, or ca.crt, tls.crt, tls.key.

    Raises UsageError where it holds none of them, or a certificate without its key.
    """
    for names in _NAMES:
        ca, cert, key = (_present(path, name) for name in names)
        if ca or cert or key:
            return check_key_pair(TlsConfig(ca, cert, key))
    raise UsageError(
        "no certificates there",
        path=path,
        hints=("a directory with ca.pem, cert.pem and key.pem, or ca.crt, tls.crt, tls.key",),
    )


def check_key_pair(tls: TlsConfig) -> TlsConfig:
    """The same. Raises UsageError for a certificate without its key, or a key without its own."""
    if bool(tls.cert) != bool(tls.key):
        has, lacks = ("certificate", "key") if tls.cert else ("key", "certificate")
        raise UsageError(f"a client {has} without its {lacks}", path=tls.cert or tls.key or "")
    return tls


def _present(directory: str, name: str) -> str | None:
    path = os.path.join(directory, name)
    return path if os.path.exists(path) else None
