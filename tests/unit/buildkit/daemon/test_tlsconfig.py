"""Which files a directory of certificates is made of."""

from pathlib import Path

import pytest

from kitcache.buildkit.daemon.tlsconfig import TlsConfig, tls_from_directory
from kitcache.errors import UsageError


@pytest.mark.parametrize(
    "names", [("ca.pem", "cert.pem", "key.pem"), ("ca.crt", "tls.crt", "tls.key")]
)
def test_both_families_of_names_are_known(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert tls_from_directory(str(tmp_path)) == TlsConfig(*(str(tmp_path / name) for name in names))


def test_the_cas_name_alone_is_enough(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    assert tls_from_directory(str(tmp_path)) == TlsConfig(str(tmp_path / "ca.pem"))


@pytest.mark.parametrize(
    ("names", "problem"),
    [((), "no certificates"), (("cert.pem",), "without its key"), (("tls.key",), "without its c")],
)
def test_an_incomplete_directory_is_refused(
    tmp_path: Path, names: tuple[str, ...], problem: str
) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=problem) as caught:
        tls_from_directory(str(tmp_path))
    assert str(tmp_path) in str(caught.value)
