"""buildkit/caches.py with exports to object stores, which the daemon writes to itself."""

import pytest

from kitcache.cli.cachetext import cache_lines
from kitcache.errors import UsageError
from kitcache.options.caches import CacheExport, parse_cache_export
from kitcache.options.prunepolicy import PrunePolicy, PruneRule
from tests.unit.buildkit.cachekit import open_caches

NOWHERE = "bucket=b,region=r,endpoint_url=http://127.0.0.1:1,retry_max_attempts=1"
S3 = f"type=s3,{NOWHERE},access_key_id=i,secret_access_key=hush"
PATH = "s3://b/?region=r&endpoint_url=http://127.0.0.1:1&retry_max_attempts=1"
LAST_ONE = PrunePolicy(rules=(PruneRule(keep_last=1),))


def test_without_a_reset_it_is_the_daemons_alone() -> None:
    with open_caches([parse_cache_export(S3)], ()) as caches:
        assert caches.publish() == ()


def test_the_daemon_gets_all_but_reset_and_each_name_has_a_result() -> None:
    with open_caches([parse_cache_export(f"{S3},name=a;b,reset=true")], ()) as caches:
        ((kind, attrs),) = caches.export_entries
        first, last = caches.publish()
    assert (kind, attrs["name"], "reset" in attrs) == ("s3", "a;b", False)
    assert (first.path, first.tag, first.reset) == (PATH, "a", None)
    assert (last.tag, last.outcome, last.digest, last.exit_code) == ("b", "published", None, 0)
    assert last.reset is not None
    assert last.reset.outcome == "refused"
    assert "hush" not in f"{first}{last}"


def test_an_export_that_failed_with_ignore_error_is_not_swept() -> None:
    export = parse_cache_export(f"{S3},reset=true,ignore-error=true")
    with open_caches([export], ()) as caches:
        (result,) = caches.publish({}, {"exporting cache to Amazon S3": "no such bucket"})
    assert (result.outcome, result.problem, result.reset) == ("failed", "no such bucket", None)
    assert (result.exit_code, list(cache_lines([result]))) == (0, [])


def test_the_names_of_one_cache_are_swept_once() -> None:
    exports = [parse_cache_export(f"{S3},reset=true,name={name}") for name in "ab"]
    with open_caches(exports, ()) as caches:
        results = caches.publish()
    assert [(result.tag, result.reset is None) for result in results] == [("a", True), ("b", False)]


@pytest.mark.parametrize("kind", ["s3", "azblob"])
def test_a_reset_needs_the_address_and_a_policy_does_not(kind: str) -> None:
    warnings: list[str] = []
    with (
        pytest.raises(UsageError) as caught,
        open_caches([CacheExport(kind, reset=True)], (), warn=warnings.append),
    ):
        pass
    assert caught.value.effect == "nothing was built"
    with open_caches([CacheExport(kind)], (), policy=LAST_ONE, warn=warnings.append) as caches:
        assert caches.publish() == ()
    assert [warning.partition(": ")[0] for warning in warnings] == [
        f"the policy does not apply to type={kind}"
    ]
