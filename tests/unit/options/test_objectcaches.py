"""options/objectcaches.py: a cache in an object store, named as --cache-to names it."""

import re
from pathlib import Path

import pytest

from kitcache.errors import UsageError
from kitcache.options.objectcaches import DAY_NS, ObjectCache, parse_object_cache, secrets_of

ROOT = Path(__file__).parents[3]
HOUR_NS = 3600 * 10**9
S3 = "type=s3,bucket=b,region=r"
URL = "https://acct.blob.core.windows.net"
AZURE = f"type=azblob,account_url={URL}"
ENVIRON_S3 = {"AWS_BUCKET": "b", "AWS_REGION": "r"}
NOT_SET = "either ${BUILDKIT_AZURE_STORAGE_ACCOUNT_URL} or account_url attribute is required"
REFUSED = {
    "type=s3,region=r": "bucket ($AWS_BUCKET) not set for s3 cache",
    "type=s3,bucket=,region=r": "bucket ($AWS_BUCKET) not set for s3 cache",
    "type=s3,bucket=b": "region ($AWS_REGION) not set for s3 cache",
    "s3://b/ci/": "region ($AWS_REGION) not set for s3 cache",
    "s3:///ci/?region=r": "bucket ($AWS_BUCKET) not set for s3 cache",
    "type=s3,bucket=b/ci,region=r": (
        "bucket=b/ci is not the name of a bucket: it contains a slash"
    ),
    f"{S3},retry_mode=never": 'retry_mode must be "standard" or "adaptive"',
    f"{S3},retry_mode=": 'retry_mode must be "standard" or "adaptive"',
    f"{S3},retry_max_attempts=0": "retry_max_attempts must be a positive integer",
    f"{S3},upload_parallelism=many": "upload_parallelism must be a positive integer",
    f"{S3},endpoint_url=localhost:9000": (
        "endpoint_url is not a URL that begins with http:// or https://"
    ),
    f"{S3},endpoint_url=http://[": "endpoint_url is not a URL that begins with http:// or https://",
    f"{S3},prefix=a\0": "prefix has a NUL in it",
    f"{S3},prefix=\udcff": "prefix is not UTF-8",
    "s3://b/%FF?region=r": "prefix is not UTF-8",
    f"{S3},bare": "invalid value bare",
    f"{S3},manifests_prefix=": (
        "blobs_prefix and manifests_prefix overlap: the blobs blobs/sha256:… would be roots too,"
        ' as all keys that begin with ""'
    ),
    f"{S3},prefix=p/,blobs_prefix=all/blobs/,manifests_prefix=all/": (
        "blobs_prefix and manifests_prefix overlap: the blobs p/all/blobs/sha256:… would be roots"
        ' too, as all keys that begin with "p/all/"'
    ),
    f"{S3},prefix=p/,manifests_prefix=k": (
        'all keys that begin with "p/k" would be roots, also kitcache\'s own objects p/kitcache/…'
    ),
    "type=azblob": f"{NOT_SET} for azblob cache",
    "azblob://c/ci": f"{NOT_SET} for azblob cache",
    "type=azblob,account_url=acct.blob.core.windows.net": (
        "account_url is not a URL that begins with http:// or https://"
    ),
    f"{AZURE},account_name=": (
        "unable to retrieve account name from account url or"
        " ${BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME} or account_name attribute for azblob cache"
    ),
    f"{AZURE},prefix=../x": 'prefix "../x" leaves the container',
    f"{AZURE},prefix=ci,blobs_prefix=../x": 'prefix "../x" leaves "ci/"',
    "type=local,dest=/cache": "type=local: a local cache is named by its directory",
    "type=gha": "type=gha: only caches in directories, on S3 and on Azure Blob can be named here",
    "type=S3,bucket=b": 'unknown cache type "S3"',
    "type=": 'unknown cache type ""',
}
WARNED = {
    f"{S3},bukcet=x": 's3 cache: unknown attribute "bukcet"; did you mean bucket?',
    f"{S3},region=q": "s3 cache: attribute region is given twice, the last one counts",
    f"{S3},name=main": "s3 cache: name=main has no effect here, because all names count",
    f"{S3},touch_refresh=7d": (
        "s3 cache: touch_refresh means 24h, because '7d' has the unknown unit 'd'; the longest is h"
    ),
    f"{S3},use_path_style=true": "s3 cache: use_path_style has no effect without endpoint_url",
    f"{S3},use_path_style=yes": (
        "s3 cache: use_path_style=yes is neither true nor false and means false"
    ),
    f"{S3},session_token=hush": (
        "s3 cache: session_token has no effect without both access_key_id and secret_access_key"
    ),
    f"{S3},prefix=proj-": (
        "s3 cache: prefix=proj- does not end in a slash, so blobs are proj-blobs/sha256:…"
    ),
    f"{AZURE},region=r": 'azblob cache: unknown attribute "region"; known: ',
}


def parse(text: str, environ: dict[str, str] | None = None) -> ObjectCache:
    cache = parse_object_cache(text, environ or {})
    assert cache is not None
    return cache


@pytest.mark.parametrize(
    "text", ["cache", "./type=s3,bucket=b", "/srv/s3:", "S3://b", "gs://b/x", "", "s3:/b", "types"]
)
def test_a_path_is_a_directory(text: str) -> None:
    assert parse_object_cache(text, {}) is None


@pytest.mark.parametrize("text", REFUSED)
def test_what_buildkit_refuses_is_refused_in_its_words(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.problem == REFUSED[text]


def test_refusals_say_what_to_write() -> None:
    hints = {
        "type=local,dest=/cache": "name the directory: /cache",
        "type=local,src=/old": "name the directory: /old",
        "type=local": "name the directory: DIR",
        "type=S3": "did you mean s3?",
        "type=s3": "add bucket=BUCKET",
        "type=s3,bucket=b/ci/x,region=r": "write bucket=b,prefix=ci/x/",
    }
    for text, hint in hints.items():
        with pytest.raises(UsageError) as caught:
            parse(text)
        assert caught.value.hints[0] == hint


@pytest.mark.parametrize("text", WARNED)
def test_what_has_no_effect_is_said(text: str) -> None:
    (warning,) = parse(text).warnings
    assert warning.startswith(WARNED[text])


def test_the_line_of_an_export_is_taken_as_it_is() -> None:
    cache = parse(
        "type=s3,mode=max,region=eu-west-1,bucket=b,prefix=ci/,name=main;pr-1,ignore-error=true,"
        "endpoint_url=http://127.0.0.1:8333,use_path_style=true,touch_refresh=1h30m,reset=true,"
        "access_key_id=AKIA,secret_access_key=hush,session_token=silence,upload_parallelism=8,"
        "retry_mode=adaptive,retry_max_attempts=3,disable_accept_encoding=true"
    )
    assert cache._replace(warnings=()) == ObjectCache(
        "s3",
        "b",
        "ci/",
        "ci/blobs/",
        ("ci/manifests/",),
        HOUR_NS * 3 // 2,
        "eu-west-1",
        "http://127.0.0.1:8333",
        use_path_style=True,
        access_key_id="AKIA",
        secret_access_key="hush",
        session_token="silence",
        retry_mode="adaptive",
        retry_max_attempts=3,
    )
    assert cache.warnings == (
        "s3 cache: name=main;pr-1 has no effect here, because all names count",
    )


def test_defaults_and_environment() -> None:
    assert parse("type=s3", ENVIRON_S3) == ObjectCache("s3", "b", region="r")
    assert parse("type=s3,bucket=x,region=y", ENVIRON_S3) == ObjectCache("s3", "x", region="y")
    variable = "BUILDKIT_AZURE_STORAGE_"
    environ = {f"{variable}ACCOUNT_URL": URL}
    bare = ObjectCache("azblob", "buildkit-cache", endpoint_url=URL, account_name="acct")
    assert parse("type=azblob", environ) == bare
    environ |= {f"{variable}{key}": key.lower() for key in ("ACCOUNT_NAME", "CONTAINER", "PREFIX")}
    full = bare._replace(
        bucket="container",
        account_name="account_name",
        prefix="prefix/",
        blobs_key="prefix/blobs/",
        manifests_keys=("prefix/manifests/",),
    )
    assert parse("type=azblob", environ) == full


def test_keys_of_s3_are_concatenated() -> None:
    cache = parse(f"{S3},prefix=proj-,blobs_prefix=b:,manifests_prefix=../m//")
    assert (cache.blobs_key, cache.manifests_keys) == ("proj-b:", ("proj-../m//",))


@pytest.mark.parametrize(
    ("prefix", "blobs", "key"),
    [
        ("ci", "blobs", "ci/blobs/"),
        ("ci//x/", "./blobs/", "ci/x/blobs/"),
        ("a/../b", "", "b/"),
        ("/", "blobs", "/blobs/"),
        ("//ci", "/blobs", "/ci/blobs/"),
        (".", "b", "b/"),
        ("..x", "b", "..x/b/"),
    ],
)
def test_keys_of_azure_are_joined_as_a_path(prefix: str, blobs: str, key: str) -> None:
    cache = parse(f"{AZURE},prefix={prefix},blobs_prefix={blobs},manifests_prefix=m")
    assert cache.blobs_key == key
    assert cache.prefix in ("", *(key[: at + 1] for at, c in enumerate(key) if c == "/"))


def test_several_manifests_prefixes() -> None:
    several = f"{S3},prefix=p/,manifests_prefix=a/;b/,manifests_prefix=c/,manifests_prefix=a/"
    cache = parse(several)
    assert (cache.manifests_keys, cache.warnings) == (("p/a/", "p/b/", "p/c/"), ())
    nested = parse(f"{S3},manifests_prefix=m/x/;m/")
    assert nested.manifests_keys == ("m/",)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("0", 0), ("-1h", 0), ("+1.5h", HOUR_NS * 3 // 2), ("90m", HOUR_NS * 3 // 2), ("", DAY_NS)],
)
def test_touch_refresh(text: str, nanoseconds: int) -> None:
    assert parse(f"{S3},touch_refresh={text}").touch_refresh_ns == nanoseconds


def test_short_forms() -> None:
    cache = parse("s3://b/a%20b/?region=r&endpoint_url=http://h:1&use_path_style=true")
    assert (cache.bucket, cache.prefix, cache.endpoint_url) == ("b", "a b/", "http://h:1")
    assert cache.address == "s3://b/a%20b/?region=r&endpoint_url=http://h:1&use_path_style=true"
    assert parse("s3://b", ENVIRON_S3).address == "s3://b/?region=r"
    azure = parse(f"azblob://c/ci?account_url={URL}")
    assert azure.address == f"azblob://c/ci/?account_url={URL}"
    assert parse(azure.address) == azure


def test_the_addresses_on_the_page_are_read() -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    pasted, short, azure = re.findall(r"^\| `((?:type=|s3:|azblob:)[^`]+)` \|", page, re.MULTILINE)
    assert parse(pasted) == parse(short)
    assert parse(short).address == short
    assert parse(azure).address == azure


def test_no_secret_is_shown() -> None:
    sas = f"{URL}/?sv=1&sig=hush"
    pasted = f"{S3},access_key_id=hush,secret_access_key=hush,session_token=hush"
    pasted += ",endpoint_url=http://hush:hush@host/x"
    caches = (
        parse(pasted),
        parse(f'type=azblob,"account_url={sas}",secret_access_key=hush'),
        parse("s3://b/x?region=r&access_key_id=hush&secret_access_key=hush"),
    )
    for cache in caches:
        assert "hush" not in f"{cache} {cache!r} {cache.warnings}"
    assert [secrets_of(cache) for cache in caches] == [
        ("secret_access_key", "session_token", "the password in endpoint_url"),
        ("secret_access_key", "the SAS in account_url"),
        ("secret_access_key",),
    ]
    assert secrets_of(parse(S3)) == ()
    with pytest.raises(UsageError) as caught:
        parse(f"{S3},secret_access_key=hu,sh")
    assert "sh" not in caught.value.problem
