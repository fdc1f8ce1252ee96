"""options/caches.py: --cache-to and --cache-from, with BuildKit's defaults and error texts."""

import pytest

from kitcache.errors import UsageError
from kitcache.options.caches import (
    CacheExport,
    CacheImport,
    complete_cache,
    left_out_warning,
    parse_cache_export,
    parse_cache_import,
)

DAEMON = "failed to configure local cache exporter: "
SYNTAX = '"yes" is neither true nor false'
REFUSED_EXPORTS = {
    "type=local": "local cache exporter requires dest",
    "type=local,dest=": "local cache exporter requires dest",
    "type=local,dest=a\0b": "dest='a\\x00b' is not a name: it has a NUL in it",
    "type=local,dest=D,reset=yes": f"failed to parse reset attribute: {SYNTAX}",
    "type=local,dest=D,compression=xz": f"{DAEMON}unsupported compression type xz",
    "type=local,dest=D,compression-level=max": (
        f'{DAEMON}compression-level: "max" is not a whole number'
    ),
    "type=local,dest=D,force-compression=yes": (f"{DAEMON}force-compression: {SYNTAX}"),
    "type=local,dest=D,oci-mediatypes=yes": f"{DAEMON}failed to parse oci-mediatypes: {SYNTAX}",
    "type=local,dest=D,image-manifest=yes": f"{DAEMON}failed to parse image-manifest: {SYNTAX}",
    "type=local,dest=D,image-manifest=true,oci-mediatypes=false": (
        "invalid configuration for remote cache, OCI mediatypes are required for image-manifest"
        " cache format"
    ),
    "mode=max": '"mode=max" does not name the type of the cache',
    "type=,dest=D": '"type=,dest=D" does not name the type of the cache',
    "a,b": "invalid value a",
}
REFUSED_IMPORTS = {
    "type=local": "local cache importer requires src",
    "type=local,src=D,tag=": "the tag is empty: was a variable not set?",
    "type=local,src=D,digest=latest": 'invalid digest "latest": invalid checksum digest format',
    "type=local,src=D,digest=md5:00": 'invalid digest "md5:00": unsupported digest algorithm',
    "type=local,src=D,digest=sha256:0": 'invalid digest "sha256:0": invalid checksum digest length',
    f"type=local,src=D,digest=sha256:{'A' * 64}": (
        f'invalid digest "sha256:{"A" * 64}": invalid checksum digest format'
    ),
}
GITHUB = {"ACTIONS_RUNTIME_TOKEN": "hush", "ACTIONS_CACHE_URL": "https://one"}
AMAZON = {
    "AWS_ACCESS_KEY_ID": "AKIA",
    "AWS_SECRET_ACCESS_KEY": "hush",
    "AWS_SESSION_TOKEN": "silence",
}


def problem_of(text: str, *, is_import: bool = False) -> UsageError:
    with pytest.raises(UsageError) as caught:
        (parse_cache_import if is_import else parse_cache_export)(text)
    return caught.value


def test_defaults_of_an_export() -> None:
    export = parse_cache_export("type=local,dest=D")
    assert export == CacheExport("local", (), "D", "latest", False, ())
    assert not export.ignore_error


def test_path_tag_and_reset_stay_with_the_client_and_all_else_is_sent() -> None:
    text = (
        "type=local,dest=a/b,tag=main,reset=true,mode=max,compression=zstd,compression-level=-1,"
        "force-compression=,image-manifest=false,oci-mediatypes=false,ignore-error=1"
    )
    export = parse_cache_export(text)
    assert (export.dest, export.tag, export.reset, export.warnings) == ("a/b", "main", True, ())
    assert dict(export.attrs) == {
        "mode": "max",
        "compression": "zstd",
        "compression-level": "-1",
        "force-compression": "",
        "image-manifest": "false",
        "oci-mediatypes": "false",
        "ignore-error": "1",
    }
    assert export.ignore_error


def test_docker_types_are_an_index_unless_it_is_said_otherwise() -> None:
    assert parse_cache_export("type=local,dest=D,oci-mediatypes=false").warnings == ()


def test_a_quoted_directory_may_hold_a_comma() -> None:
    assert parse_cache_export('type=local,"dest=a,b",mode=max').dest == "a,b"


@pytest.mark.parametrize("text", REFUSED_EXPORTS)
def test_an_export_is_refused_in_buildkits_words(text: str) -> None:
    assert problem_of(text).problem == REFUSED_EXPORTS[text]


@pytest.mark.parametrize("text", REFUSED_IMPORTS)
def test_an_import_is_refused_in_buildkits_words(text: str) -> None:
    assert problem_of(text, is_import=True).problem == REFUSED_IMPORTS[text]


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("type=local,dst=D", 'write dest=DIR, not "dst"'),
        ("type=local, dest=D", 'write dest=DIR, not " dest"'),
        ("type=local,src=D", "write dest=DIR, not src=DIR"),
        ("type=local", "add dest=DIR"),
        ("type=local,dest=", "add dest=DIR"),
        ("type=local,dest=D,compression=zst", "did you mean zstd?"),
    ],
)
def test_a_refusal_says_what_to_do_next(text: str, step: str) -> None:
    assert problem_of(text).hints == (step,)


def test_mistyped_attributes_warn_and_are_sent_along() -> None:
    export = parse_cache_export("type=local,dest=D,rest=true,mode=mx,ignore-error=yes")
    assert dict(export.attrs) == {"rest": "true", "mode": "mx", "ignore-error": "yes"}
    assert not export.reset
    assert not export.ignore_error
    assert export.warnings == (
        'local cache export: unknown attribute "rest"; did you mean reset?',
        "local cache export: mode=mx is neither min nor max and means min; did you mean max?",
        "local cache export: ignore-error=yes is neither true nor false and means false",
    )


EMPTY_TAGS = (
    "type=local,dest=D,tag=",
    "type=local,src=D,tag=",
    f"type=local,src=D,tag=,digest=sha256:{'0' * 64}",
)


@pytest.mark.parametrize("text", EMPTY_TAGS)
def test_an_empty_tag_is_a_variable_that_was_not_set(text: str) -> None:
    error = problem_of(text, is_import="src" in text)
    assert error.problem == "the tag is empty: was a variable not set?"
    assert error.hints == ("write tag=NAME, or no tag=",)


def test_an_import_has_a_tag_or_a_digest() -> None:
    digest = f"sha256:{'0' * 64}"
    assert parse_cache_import("type=local,src=D") == CacheImport("local", (), "D")
    assert parse_cache_import("type=local,src=D,tag=main").tag == "main"
    assert parse_cache_import(f"type=local,src=D,digest={digest}").digest == digest
    assert parse_cache_import("type=local,src=D,mode=max").warnings == (
        'local cache import: unknown attribute "mode"; known: type, src, tag, digest',
    )


def test_a_bare_name_is_a_registrys() -> None:
    assert parse_cache_export("user/app:cache") == CacheExport(
        "registry", (("ref", "user/app:cache"),)
    )
    assert parse_cache_import("user/app:cache").attrs == (("ref", "user/app:cache"),)


@pytest.mark.parametrize(
    "text",
    [
        "type=registry,ref=a,mode=max,image-manifest=true,oci-mediatypes=true,compression=zstd",
        "type=inline",
        "type=gha,scope=x,url=u,token=t,mode=max",
        "type=s3,bucket=b,region=r,name=a;b,access_key_id=i,secret_access_key=s,mode=max",
        "type=azblob,account_url=u,secret_access_key=s,mode=max,ignore-error=true",
        "type=gcs,bucket=b",
    ],
)
def test_other_kinds_pass_through_as_they_are(text: str) -> None:
    export = parse_cache_export(text)
    assert (
        ",".join(f"{key}={value}" for key, value in (("type", export.kind), *export.attrs)) == text
    )
    assert export.warnings == ()


def test_a_mistyped_kind_warns() -> None:
    assert parse_cache_export("type=Locl,dest=D").warnings == (
        'unknown cache type "Locl"; did you mean local?',
    )


@pytest.mark.parametrize("kind", ["s3", "azblob"])
def test_reset_of_an_object_store_stays_with_the_client(kind: str) -> None:
    export = parse_cache_export(f"type={kind},name=a;b,RESET=1,touch_refresh=1h,mode=max")
    assert (export.kind, export.reset, export.names) == (kind, True, ("a", "b"))
    assert export.attrs == (("name", "a;b"), ("touch_refresh", "1h"), ("mode", "max"))
    assert not parse_cache_export(f"type={kind}").reset
    assert parse_cache_export(f"type={kind}").names == ("buildkit",)
    assert parse_cache_export(f"type={kind},name=").names == ("",)
    with pytest.raises(UsageError, match="failed to parse reset attribute"):
        parse_cache_export(f"type={kind},reset=maybe")


def test_reset_of_a_registry_warns() -> None:
    (warning,) = parse_cache_export("type=registry,ref=a,reset=true").warnings
    assert 'registry cache export: unknown attribute "reset"' in warning


def test_githubs_credentials_come_from_the_environment() -> None:
    export = complete_cache(parse_cache_export("type=gha,mode=max"), GITHUB)
    assert dict(export.attrs) == {"mode": "max", "token": "hush", "url": "https://one"}
    assert export.is_active
    second = {**GITHUB, "ACTIONS_CACHE_SERVICE_V2": "1", "ACTIONS_RESULTS_URL": "https://two"}
    sent = dict(complete_cache(parse_cache_import("type=gha,token=mine"), second).attrs)
    assert sent == {"token": "mine", "url": "https://one", "url_v2": "https://two"}


def test_why_githubs_cache_is_left_out_elsewhere() -> None:
    export = complete_cache(parse_cache_export("type=gha"), {})
    assert not export.is_active
    assert not complete_cache(CacheImport("gha"), {"ACTIONS_RUNTIME_TOKEN": "t"}).is_active
    assert left_out_warning(export, has_environ=True).startswith(
        "gha cache export: skipped, because"
    )
    assert "no environ=" not in left_out_warning(export, has_environ=True)
    assert "no environ=" in left_out_warning(CacheImport("gha"), has_environ=False)


def test_amazons_credentials_come_from_the_environment() -> None:
    sent = dict(complete_cache(parse_cache_export("type=s3,bucket=b"), AMAZON).attrs)
    assert sent["secret_access_key"] == "hush"
    assert sent["session_token"] == "silence"
    half = {"AWS_ACCESS_KEY_ID": "AKIA"}
    assert complete_cache(parse_cache_export("type=s3"), half).attrs == ()


def test_a_pair_of_the_users_own_goes_without_the_environments_session() -> None:
    text = "type=s3,access_key_id=i,secret_access_key=s"
    assert dict(complete_cache(parse_cache_export(text), AMAZON).attrs) == {
        "access_key_id": "i",
        "secret_access_key": "s",
    }


@pytest.mark.parametrize("parse", [parse_cache_export, parse_cache_import])
def test_secrets_are_not_in_a_repr(parse: type) -> None:
    for text, environ in (("type=s3,bucket=b", AMAZON), ("type=gha", GITHUB)):
        shown = repr(complete_cache(parse(text), environ))
        assert "hush" not in shown
        assert "silence" not in shown
        assert "…" in shown


def test_secrets_are_not_in_an_error() -> None:
    assert "hush" not in str(problem_of("bucket=b,secret_access_key=hush"))
