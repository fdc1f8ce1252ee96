"""Fuzzes `kitcache.options` and `kitcache.buildkit.inputs`: any words of a user.

Laws: nothing but UsageError is raised, in time that does not explode; a message can be printed;
no secret is in a message, a warning or a repr.
"""

import os
from collections.abc import Callable

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kitcache.buildkit.inputs import find_inputs, is_archive, is_remote, parse_build_context
from kitcache.errors import UsageError
from kitcache.options.attests import parse_attests
from kitcache.options.attributes import parse_attributes
from kitcache.options.build import BuildRequest
from kitcache.options.caches import parse_cache_export, parse_cache_import
from kitcache.options.imagenames import normalize_tag
from kitcache.options.outputs import parse_output
from kitcache.options.secrets import parse_secret
from kitcache.options.ulimits import parse_memory, parse_ulimit

thorough = settings(
    deadline=None,
    max_examples=int(os.environ.get("KITCACHE_EXAMPLES", "60")),
    suppress_health_check=[HealthCheck.too_slow],
)
PARSERS: list[Callable[[str], object]] = [
    parse_attributes,
    parse_cache_export,
    parse_cache_import,
    parse_output,
    lambda text: parse_secret(text, {"id": "x"}),
    lambda text: parse_attests([text]),
    parse_build_context,
    normalize_tag,
    parse_ulimit,
    parse_memory,
]
WORDS = st.sampled_from(
    ["type=", "local", "s3", "gha", "dest=", "src=", "tag=", "digest=sha256:", "reset=", "mode=",
     "compression-level=", "id=", "env=", "name=", "tar=", "disabled=", ",", "=", '"', '""', ":",
     "@", "/", "docker.io", "[::1]", "\n", "\x1b[31m", "\udcff", "٣", "1", "true", "nofile="]
)  # fmt: skip
TEXTS = st.lists(WORDS | st.text(max_size=6), max_size=10).map("".join)
SECRET_KEYS = st.sampled_from(["token", "ghtoken", "secret_access_key", "session_token"])
HUSH = "hush-hush"


def tried(parse: Callable[[str], object], text: str) -> str:
    """All that could be shown of it."""
    try:
        value = parse(text)
    except UsageError as error:
        return str(error)
    return repr(value) + repr(getattr(value, "warnings", ()))


@thorough
@given(st.sampled_from(PARSERS), TEXTS)
@example(parse_cache_export, '"' * 100_001)
@example(parse_cache_export, "type=local,dest=x" + ",a" * 50_000)
@example(normalize_tag, "a" * 100_000)
@example(normalize_tag, "a-" * 100_000 + "/b")
@example(normalize_tag, "a_" * 100_000)
@example(parse_memory, "9" * 5_000)
@example(parse_memory, "9" * 400 + "p")
@example(parse_ulimit, "nofile=" + "9" * 5_000)
def fuzz_words(parse: Callable[[str], object], text: str) -> None:
    shown = ""
    try:
        parse(text)
    except UsageError as error:
        shown = str(error)
    assert shown.replace("\n", "").isprintable()


@thorough
@given(TEXTS, TEXTS, SECRET_KEYS, st.sampled_from([parse_cache_export, parse_cache_import]))
@example("type=s3", "x", "secret_access_key", parse_cache_export)
@example("bucket=b", "x=1", "secret_access_key", parse_cache_export)
def fuzz_secrets(before: str, after: str, key: str, parse: Callable[[str], object]) -> None:
    """A value that stands where a secret belongs is never repeated."""
    assert HUSH not in tried(parse, f"{before.replace(chr(34), '')},{key}={HUSH},{after}")


@thorough
@given(TEXTS, TEXTS, TEXTS, TEXTS, st.booleans(), st.booleans())
@example("a:" + "b" * 100_000, "", "x", "oci-layout://" + "@" * 50_000, False, False)
@example("https://[", "", "x", "https://]", False, False)
@example("github.com/[?x", "", "x", "", False, False)
def fuzz_inputs(
    context: str, file: str, name: str, place: str, is_directory: bool, is_tar: bool
) -> None:
    request = BuildRequest(context, file or None, build_contexts=((name, place),))
    for text in (context, place):
        is_remote(text)
    try:
        inputs = find_inputs(request, lambda path: is_directory, stdin_is_archive=is_tar)
    except UsageError:
        return
    assert "filename" in dict(inputs.attrs)
    # Only what this command line named is ever offered to the daemon.
    folders = {context, place, file.rpartition("/")[0], ".", "/"}
    assert {path.rstrip("/") for _, path in inputs.sources} <= {
        path.rstrip("/") for path in folders
    }


@thorough
@given(st.binary(max_size=600))
@example(bytes(148) + b"0o17\0\0\0\0" + bytes(356))
@example(bytes(148) + b"-1_0 \0\0\0" + bytes(356))
def fuzz_archives(header: bytes) -> None:
    assert is_archive(header) in (True, False)
