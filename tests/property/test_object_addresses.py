"""Laws of the addresses of object caches: the short form names the same cache, without secrets."""

from hypothesis import example, given, reject
from hypothesis import strategies as st

from kitcache.errors import UsageError
from kitcache.options.attributes import join_attributes
from kitcache.options.objectcaches import parse_object_cache

TEXTS = st.text(max_size=12)
SECRET = "H-U-S-H"
NAMES = st.text(alphabet="abc-./ %?&=#;é:", max_size=8)
PAIRS = st.fixed_dictionaries(
    {
        "bucket": NAMES.filter(bool).map(lambda name: name.replace("/", "-")),
        "region": NAMES.filter(bool),
    },
    optional={
        "prefix": NAMES,
        "blobs_prefix": NAMES,
        "manifests_prefix": NAMES,
        "touch_refresh": st.from_regex(r"[0-9]{1,4}(h|m|s|ms|ns)", fullmatch=True),
        "endpoint_url": st.sampled_from(["http://h:1", f"https://{SECRET}:x@h/p?{SECRET}"]),
        "use_path_style": st.sampled_from(["true", "false"]),
        "access_key_id": st.just(SECRET),
        "secret_access_key": st.just(SECRET),
        "session_token": st.just(SECRET),
        "retry_mode": st.sampled_from(["standard", "adaptive"]),
        "retry_max_attempts": st.sampled_from(["1", "20"]),
    },
)
AZURE = st.fixed_dictionaries(
    {"container": NAMES, "account_url": st.sampled_from(["http://acct.h", f"http://h?{SECRET}"])},
    optional={
        "prefix": NAMES,
        "blobs_prefix": NAMES,
        "manifests_prefix": NAMES,
        "account_name": st.sampled_from(["acct", "other"]),
        "secret_access_key": st.just(SECRET),
    },
)


@given(
    st.one_of(
        PAIRS.map(lambda p: {"type": "s3", **p}), AZURE.map(lambda p: {"type": "azblob", **p})
    )
)
@example({"type": "s3", "bucket": "b?#", "region": "&=+", "prefix": "a?b#%20é&=+ ;/"})
@example(
    {
        "type": "azblob",
        "container": "c",
        "account_url": "http://a",
        "prefix": "/",
        "blobs_prefix": "",
    }
)
def test_the_short_form_names_the_same_cache_without_secrets(attrs: dict[str, str]) -> None:
    try:
        cache = parse_object_cache(join_attributes(attrs.items()), {})
    except UsageError:
        reject()
    assert cache is not None
    again = parse_object_cache(cache.address, {})
    assert again is not None
    assert again.address == cache.address
    bare = cache._replace(access_key_id="", secret_access_key="", session_token="", warnings=())
    if SECRET in bare.endpoint_url:
        bare = bare._replace(endpoint_url=again.endpoint_url)
    assert again._replace(warnings=()) == bare
    assert SECRET not in f"{cache} {cache!r} {cache.warnings} {again!r}"


@given(st.sampled_from(["type=", "type=s3,", "s3://", "azblob://", ""]), TEXTS)
def test_any_text_is_a_cache_a_directory_or_a_usage_error(start: str, text: str) -> None:
    try:
        cache = parse_object_cache(start + text, {"AWS_REGION": "r", "AWS_BUCKET": "b"})
    except UsageError:
        return
    assert cache is None or parse_object_cache(str(cache), {}) is not None
