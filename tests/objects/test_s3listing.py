"""The parser of S3's listings: exact for any key, and complete or nothing."""

from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitcache.store.objects.client import ObjectInfo
from kitcache.store.objects.s3listing import (
    convert_listing,
    group_versions,
    nanoseconds,
    parse_listing,
    replace_parsing,
)

DATE = "2026-11-29T10:20:30.000Z"
DATE_NS = 1_795_947_630 * 10**9


def contents(key: str, *, size: object = 5, date: str = DATE) -> str:
    return (
        f"<Contents><Key>{key}</Key><LastModified>{date}</LastModified>"
        f"<ETag>&quot;e&quot;</ETag><Size>{size}</Size><Owner><ID>i</ID></Owner></Contents>"
    )


def listing(
    *entries: str, truncated: str = "false", encoding: str = "url", more: str = ""
) -> bytes:
    encoded = f"<EncodingType>{encoding}</EncodingType>" if encoding else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{encoded}'
        f"<IsTruncated>{truncated}</IsTruncated>{''.join(entries)}{more}</ListBucketResult>"
    ).encode()


@given(st.lists(st.one_of(st.text().map(str.encode), st.binary())))
@pytest.mark.parametrize("encode", [quote, quote_plus])
def test_an_encoded_key_is_the_key_that_was_written(
    encode: Callable[..., str], keys: list[bytes]
) -> None:
    names = [key.decode("utf-8", "surrogateescape") for key in keys if key]
    parsed = parse_listing(listing(*[contents(encode(key)) for key in keys if key]))
    assert parsed is not None
    assert parsed.objects == [ObjectInfo(name, 5, DATE_NS, '"e"') for name in names]


def test_a_key_that_is_not_encoded_stays_as_it_is() -> None:
    key = "a+b%41 <&>\n  "
    parsed = parse_listing(listing(contents(escape(key)), encoding=""))
    assert parsed is not None
    assert [info.key for info in parsed.objects] == [key]


def test_spaces_between_elements_belong_to_no_key() -> None:
    body = listing(contents("k")).replace(b"<", b"\n  <").strip()
    body = body.replace(b"\n  </", b"</")
    parsed = parse_listing(body)
    assert parsed is not None
    assert parsed.objects == [ObjectInfo("k", 5, DATE_NS, '"e"')]


@pytest.mark.parametrize("end", range(0, len(listing(contents("k"))), 7))
def test_a_truncated_body_is_not_a_listing(end: int) -> None:
    assert parse_listing(listing(contents("k"))[:end]) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>log in</body></html>",
        b"<Error><Code>InternalError</Code></Error>",
        listing(contents("k"), truncated="perhaps"),
        listing("<Contents><Size>1</Size></Contents>"),
        listing("<Contents><Key>k</Key><Size>1</Size></Contents>"),
        listing(f"<Contents><Key>k</Key><LastModified>{DATE}</LastModified></Contents>"),
        listing(contents("k")).replace(b"<IsTruncated>false</IsTruncated>", b""),
    ],
)
def test_an_incomplete_document_is_left_to_botocore(body: bytes) -> None:
    answer = {"status_code": 200, "body": body}
    parsed: dict[str, object] = {}
    replace_parsing(answer, parsed)
    assert answer["body"] == body
    assert not parsed


def test_an_error_is_left_to_botocore() -> None:
    answer = {"status_code": 403, "body": listing(contents("k"))}
    parsed: dict[str, object] = {}
    replace_parsing(answer, parsed)
    assert not parsed


def test_versions_and_markers() -> None:
    body = listing(
        f"<Version><Key>k</Key><VersionId>v2</VersionId><IsLatest>false</IsLatest>"
        f"<LastModified>{DATE}</LastModified><ETag>e</ETag><Size>3</Size></Version>"
        f"<DeleteMarker><Key>k</Key><VersionId>v3</VersionId><IsLatest>true</IsLatest>"
        f"<LastModified>{DATE}</LastModified></DeleteMarker>",
        truncated="true",
        more="<NextKeyMarker>a+%2B</NextKeyMarker><NextVersionIdMarker>v3</NextVersionIdMarker>",
    ).replace(b"ListBucketResult", b"ListVersionsResult")
    parsed = parse_listing(body)
    version = ObjectInfo("k", 3, DATE_NS, "e", "v2", is_current=False)
    marker = ObjectInfo("k", 0, DATE_NS, "", "v3", is_marker=True)
    assert parsed is not None
    assert parsed.objects == [version, marker]
    assert parsed.next_page == {"KeyMarker": "a +", "VersionIdMarker": "v3"}
    assert group_versions(parsed.objects) == {"k": [marker, version]}


def test_what_botocore_has_parsed_itself_is_the_same() -> None:
    entry = {"Key": "a+%2B", "VersionId": "v", "ETag": "e", "Size": 3, "IsLatest": True}
    entry["LastModified"] = datetime(2026, 11, 29, 10, 20, 30, tzinfo=UTC)
    marker = {"Key": "a+%2B", "VersionId": "w", "IsLatest": False} | {
        "LastModified": entry["LastModified"]
    }
    answer = {
        "IsTruncated": True,
        "EncodingType": "url",
        "Versions": [entry],
        "DeleteMarkers": [marker],
        "NextKeyMarker": "%2B",
    }
    converted = convert_listing(answer)
    assert converted is not None
    assert converted.next_page == {"KeyMarker": "+"}
    assert converted.objects == [
        ObjectInfo("a +", 3, nanoseconds(entry["LastModified"]), "e", "v"),  # type: ignore[arg-type]
        ObjectInfo("a +", 0, DATE_NS, "", "w", is_current=False, is_marker=True),
    ]
    assert convert_listing({"Contents": []}) is None
