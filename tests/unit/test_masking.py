"""masking.py: what is a password in a text, and what only looks like one."""

import pytest

from kitcache.errors import KitcacheError
from kitcache.masking import find_users, hide_password

HIDDEN = {
    "https://user:pw@host/x.git#main": "https://…@host/x.git#main",
    "https://token@host/x": "https://…@host/x",
    "git+https://token@host/x": "git+https://…@host/x",
    "https://user:@host": "https://…@host",
    "a https://u:p@ss@host/ b": "a https://…@host/ b",
    "https://u:pa/ss@host/x": "https://…@host/x",
    "ssh://u:pw@host": "ssh://…@host",
    "socks5://u:pw@host:1080": "socks5://…@host:1080",
    "A=http://u:p@a:1/ B='http://u:p@b'": "A=http://…@a:1/ B='http://…@b'",
}
ATTRIBUTES = {
    "type=s3,access_key_id=AKIA,secret_access_key=a/b+c=,bucket=b": (
        "type=s3,access_key_id=…,secret_access_key=…,bucket=b"
    ),
    "s3://b/x?session_token=t&region=r": "s3://b/x?session_token=…&region=r",
    "account_url=https://a/?sv=1&sig=x%3D": "account_url=https://a/?sv=1&sig=…",
}
SHOWN = [
    "mysig=x",
    "secret_access_key",
    "secret_access_key=",
    "",
    "://",
    "a:b@c",
    "ssh://git@host/x",
    "git@github.com:a/b.git",
    "https://host:80/a@b",
    "https://host/@scope/x?a=b@c",
    "docker-image://alpine:3@sha256:aa",
    "oci-layout://dir:tag@sha256:aa",
    "https://@host",
]


@pytest.mark.parametrize("text", HIDDEN)
def test_what_is_hidden(text: str) -> None:
    assert hide_password(text) == HIDDEN[text]
    assert find_users(text)
    assert hide_password(HIDDEN[text]) == HIDDEN[text]


@pytest.mark.parametrize("text", ATTRIBUTES)
def test_attributes_that_are_hidden(text: str) -> None:
    assert hide_password(text) == ATTRIBUTES[text]
    assert hide_password(ATTRIBUTES[text]) == ATTRIBUTES[text]


@pytest.mark.parametrize("text", SHOWN)
def test_what_is_shown(text: str) -> None:
    assert hide_password(text) == text
    assert find_users(text) == []


@pytest.mark.parametrize("part", ["://a:b", "://a:b/", "://:", "://a@", "a:", "-"])
def test_a_long_text_takes_no_long_time(part: str) -> None:
    """Ten minutes, where each beginning were followed to the end."""
    assert hide_password(part * 200_000).count("://") == (part * 200_000).count("://")


def test_no_error_holds_a_password() -> None:
    url = "https://user:hunter2@host/x"
    error = KitcacheError(url, f"no {url}", details=(url,), hints=(f"try {url}",))
    held = (str(error), repr(error), error.path, error.problem, *error.details, *error.hints)
    assert not any("hunter2" in text for text in held)
    assert str(error).count("https://…@host/x") == 4
