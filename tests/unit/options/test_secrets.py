"""options/secrets.py: --secret as buildx reads it, and never shown."""

import pytest

from kitcache.errors import UsageError
from kitcache.options.secrets import Secret, parse_secret

ENVIRON = {"TOKEN": "hush", "BYTES": "\udcff", "EMPTY": ""}
UNDERSTOOD = {
    "id=a,src=file": Secret("a", "file"),
    "ID=a,Source=file": Secret("a", "file"),
    "id=a,src=file,type=file": Secret("a", "file"),
    "id=a,env=TOKEN": Secret("a", data=b"hush"),
    "id=a,type=env,src=TOKEN": Secret("a", data=b"hush"),
    "id=a,type=env,env=TOKEN": Secret("a", data=b"hush"),
    "id=a,src=file,env=TOKEN": Secret("a", data=b"hush"),
    "id=TOKEN": Secret("TOKEN", data=b"hush"),
    "id=EMPTY": Secret("EMPTY", data=b""),
    "id=file": Secret("file", "file"),
    "id=a,env=NOWHERE": Secret("a", data=b""),
    "id=a,env=BYTES": Secret("a", data=b"\xff"),
    '"id=a","src=x,y"': Secret("a", "x,y"),
}
REFUSED = {
    "src=file": "secret missing ID",
    "id=,src=file": "secret missing ID",
    "file": "invalid field 'file' must be a key=value pair",
    "id=a,type=foo": 'unsupported secret type "foo"',
    "id=a,scr=file": "unexpected key 'scr' in 'scr=file'",
    'a"b': (
        "failed to parse csv secret: cannot be read at column 2:"
        ' a " inside of a field that does not begin with one'
    ),
    "": "failed to parse csv secret: the value is empty",
}


@pytest.mark.parametrize("text", UNDERSTOOD)
def test_where_a_secret_comes_from(text: str) -> None:
    read, meant = parse_secret(text, ENVIRON), UNDERSTOOD[text]
    assert (read.id, read.path, read.data) == (meant.id, meant.path, meant.data)


@pytest.mark.parametrize("text", REFUSED)
def test_a_secret_is_refused_in_buildxs_words(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_secret(text, ENVIRON)
    assert caught.value.problem == REFUSED[text]


def test_a_mistyped_key_is_guessed() -> None:
    with pytest.raises(UsageError) as caught:
        parse_secret("id=a,scr=x", {})
    assert caught.value.hints == ("did you mean src?",)


def test_a_secret_is_not_shown() -> None:
    secret = parse_secret("id=a,env=TOKEN", ENVIRON)
    for shown in (repr(secret), str(secret), f"{secret}", repr((secret,))):
        assert "hush" not in shown
        assert "'a'" in shown
