import sys
from pathlib import Path

import pytest

from kitcache.errors import KitcacheError
from kitcache.wrap.argv import ClientFailed
from kitcache.wrap.query import entries_of, is_remote, read_answer, run_query


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_the_object_that_a_client_prints() -> None:
    words = python("import sys; print(sys.stdin.read())")
    assert read_answer(words, run_query(words, {}, b'{"a": 1}').stdout) == {"a": 1}


def test_a_client_that_refuses_is_quoted() -> None:
    with pytest.raises(ClientFailed) as caught:
        run_query(python("import sys; sys.stderr.write('no'); sys.exit(3)"), {}, None)
    assert (caught.value.exit_code, caught.value.stderr) == (3, b"no")


@pytest.mark.parametrize("text", ["", "[]", "Usage:", "[" * 100_000])
def test_what_is_no_object_is_no_plan(text: str) -> None:
    with pytest.raises(KitcacheError, match="did not print its build plan"):
        read_answer(["docker"], text.encode())


def test_entries_of_older_and_newer_clients() -> None:
    new = {"dest": "a,b", "mode": "max", "type": "local"}
    assert entries_of(["user/app", new]) == ("user/app", 'type=local,"dest=a,b",mode=max')
    assert entries_of(None) == ()
    assert entries_of("type=inline") == ("type=inline",)


def test_what_is_fetched(tmp_path: Path) -> None:
    for word in ("https://x/y.git", "git@github.com:x/y", "oci://x", "github.com/x/y", "git://x"):
        assert is_remote(word)
    assert not is_remote("docker-bake.hcl")
    assert not is_remote("target")
