import pytest

from kitcache.errors import UsageError
from kitcache.wrap.cacheflags import (
    asks_for_reset,
    drop_reset,
    raw_fields,
    read_cache,
    rewrite_export,
    show_word,
)


def test_only_reset_goes() -> None:
    text = '"DEST=a ""b"", c",reset=1,Type=local,"Reset=true",mode=max'
    assert rewrite_export(text) == '"DEST=a ""b"", c",Type=local,mode=max'
    assert rewrite_export(text, "x,y") == '"dest=x,y",Type=local,mode=max'


@pytest.mark.parametrize("text", ["", "a", "a,b", "user/app:cache", "type=inline", "ref=x,dest=c"])
def test_what_is_not_local_is_left_alone(text: str) -> None:
    assert read_cache(text)[0] != "local"
    assert drop_reset(text) == text


def test_what_does_not_parse_is_said_in_the_clients_words() -> None:
    with pytest.raises(UsageError, match="invalid value b"):
        read_cache("type=local,b")


def test_a_command_that_asks_for_a_reset() -> None:
    assert asks_for_reset(["x", "--cache-to=type=local,dest=c,reset=true"])
    assert asks_for_reset(["--set=x.cache-to=type=s3,reset=1", "reset"])
    assert not asks_for_reset(["reset", "--cache-to=type=local,reset=true,dest=", "type=x,reset=1"])


def test_fields_as_they_were_written() -> None:
    assert raw_fields('a,"b,""c""",,d') == ("a", '"b,""c"""', "", "d")


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("type=local,dest=c,reset=true", "type=local,dest=c"),
        ("type=registry,ref=x,reset=true", "type=registry,ref=x,reset=true"),
        ("x/y:c", "x/y:c"),
        ("type=local,reset", "type=local,reset"),
        ('Type=s3,"prefix=a,b",Reset=true,NAME=c', 'Type=s3,"prefix=a,b",NAME=c'),
        ("reset=0,type=azblob", "type=azblob"),
    ],
)
def test_no_reset_where_nothing_else_is_to_be_said(text: str, rest: str) -> None:
    assert drop_reset(text) == rest


@pytest.mark.parametrize("prefix", ["", "--cache-to=", "a.cache-to=", "--set=*.cache-from+="])
def test_secrets_are_not_shown(prefix: str) -> None:
    word = f'{prefix}Type=s3,"secret_access_key=4,2",bucket=b'
    assert show_word(word) == f"{prefix}type=s3,secret_access_key=…,bucket=b"
    assert show_word(f"{prefix}token=x,type=gha") == f"{prefix}token=…,type=gha"


@pytest.mark.parametrize(
    "word",
    ["", ".", "--build-arg=TOKEN=x", "--cache-to", "--cache-to=Type=local,dest=c", '--x="', "a,b",
     "--secret=id=token,type=env", "a.args.token=type=x"],
)  # fmt: skip
def test_all_else_is_shown_as_it_is(word: str) -> None:
    assert show_word(word) == word
