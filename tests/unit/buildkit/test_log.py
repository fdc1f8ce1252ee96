"""buildkit/log.py: the logger says what is sent where, and no secret; hpack is quiet."""

import logging
from pathlib import Path

import pytest

from kitcache.buildkit.buildoptions import BuildOptions
from kitcache.buildkit.client import Client
from kitcache.buildkit.session.registry import Credentials
from kitcache.options.build import BuildRequest
from kitcache.options.caches import CacheExport
from kitcache.options.secrets import Secret
from tests.hostile.fake_daemon import Answer, FakeDaemon, Solve

CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
GET_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
WORD = "hunter2"


def script(solve: Solve) -> Answer:
    solve.session.unary(CREDENTIALS, b"\x0a\x01x")
    solve.session.unary(GET_SECRET, b"\x0a\x05token")
    return {}


def test_it_says_what_is_sent_where_and_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    request = BuildRequest(
        str(tmp_path),
        build_args=(("PASSWORD", WORD),),
        secrets=(Secret("token", data=WORD.encode()),),
        cache_to=(CacheExport("s3", (("secret_access_key", WORD),)),),
    )
    caplog.set_level(logging.DEBUG)
    with FakeDaemon(script) as daemon, Client(daemon.address) as client:
        client.run(request, BuildOptions(credentials=lambda _: Credentials(WORD, WORD)))
        url = daemon.address.url
    told = [record.getMessage() for record in caplog.records if record.name == "kitcache"]
    assert told[0].startswith(f"connected to {url}")
    (sent,) = (line for line in told if ": sources {" in line)
    for part in (str(tmp_path), "['token']", "build-arg:PASSWORD", "cache to ['s3']"):
        assert part in sent
    assert [line for line in told if line.endswith("login for x: sent")]
    assert "secret token: sent" in told
    assert [line for line in told if line.endswith(f"the daemon calls {GET_SECRET}")]
    assert WORD not in caplog.text
    assert not [record for record in caplog.records if record.name.startswith("hpack")]


def test_nothing_is_printed_where_nobody_listens() -> None:
    assert logging.getLogger("kitcache").level == logging.NOTSET
    assert not logging.getLogger("kitcache").handlers
