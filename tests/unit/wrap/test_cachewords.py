import pytest

from kitcache.errors import UsageError
from kitcache.wrap.cachewords import raw_fields, read_export, read_import, with_dest, without_reset


def test_only_reset_goes() -> None:
    text = '"DEST=a ""b"", c",reset=1,Type=local,"Reset=true",mode=max'
    assert without_reset(text) == '"DEST=a ""b"", c",Type=local,mode=max'
    assert with_dest(text, "x,y") == '"dest=x,y",reset=1,Type=local,"Reset=true",mode=max'


@pytest.mark.parametrize("text", ["", "a", "a,b", "user/app:cache", "type=inline", "ref=x,dest=c"])
def test_what_is_not_local_is_left_alone(text: str) -> None:
    assert read_export(text) is None
    assert read_import(text) is None


def test_what_does_not_parse_is_said_in_the_clients_words() -> None:
    with pytest.raises(UsageError, match="invalid value b"):
        read_export("type=local,b")
    with pytest.raises(UsageError, match="local cache importer requires src"):
        read_import("type=local")


def test_fields_as_they_were_written() -> None:
    assert raw_fields('a,"b,""c""",,d') == ("a", '"b,""c"""', "", "d")
