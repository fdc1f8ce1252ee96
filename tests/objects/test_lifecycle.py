"""store/objects/lifecycle.py: rules of a bucket that delete blobs which roots still name."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kitcache.options.objectcaches import DAY_NS, ObjectCache
from kitcache.store.objects.lifecycle import LifecycleRule, find_risks
from tests.hostile.command import run
from tests.objects.buckets import S3Bucket, load_fixture, open_client

CACHE = ObjectCache("s3", "bucket", "ci/", "ci/blobs/", ("ci/manifests/",))


def risks(*rules: LifecycleRule, has_versions: bool = False, cache: ObjectCache = CACHE) -> str:
    return "; ".join(find_risks(rules, cache, has_versions=has_versions))


@pytest.mark.parametrize("prefix", ["", "ci/", "ci/blobs/", "ci/blobs/sha256:a", "ci"])
def test_a_rule_that_deletes_blobs_is_a_risk(prefix: str) -> None:
    assert "'monthly' deletes blobs 30 days after their last upload or renewal" in risks(
        LifecycleRule("monthly", prefix, 30)
    )


@pytest.mark.parametrize(
    "rule",
    [
        LifecycleRule("others", "logs/", 30),
        LifecycleRule("roots", "ci/manifests/", 30),
        LifecycleRule("versions", "", None, deletes_versions=True),
    ],
)
def test_other_rules_are_not_risks(rule: LifecycleRule) -> None:
    assert risks(rule) == ""


def test_roots_must_expire_before_their_blobs() -> None:
    """A blob can be as much older than its root as touch_refresh allows."""
    roots = LifecycleRule("roots", "ci/manifests/", 30)
    assert risks(roots, LifecycleRule("blobs", "ci/blobs/", 32)) == ""
    assert "and roots only after 30 days" in risks(roots, LifecycleRule("blobs", "ci/blobs/", 31))
    slow = CACHE._replace(touch_refresh_ns=7 * DAY_NS)
    assert "'blobs'" in risks(roots, LifecycleRule("blobs", "ci/blobs/", 37), cache=slow)
    assert risks(roots, LifecycleRule("blobs", "ci/blobs/", 38), cache=slow) == ""
    both = LifecycleRule("both", "ci/", 30)
    assert "'both' deletes blobs 30 days" in risks(both)


def test_a_date_is_a_risk_on_any_day() -> None:
    assert "'reset' deletes blobs on a date, and roots never" in risks(
        LifecycleRule("reset", "ci/blobs/", 0)
    )


def test_superseded_roots_are_to_be_cleaned() -> None:
    assert "NoncurrentVersionExpiration of 1 day for ci/manifests/" in risks(has_versions=True)
    clean = LifecycleRule("clean", "ci/", None, deletes_versions=True)
    assert risks(clean, has_versions=True) == ""
    assert "NoncurrentVersionExpiration" in risks(
        clean._replace(prefix="ci/blobs/"), has_versions=True
    )


RULES: list[dict[str, Any]] = [
    {"ID": "old", "Status": "Enabled", "Prefix": "a/", "Expiration": {"Days": 3}},
    {"ID": "off", "Status": "Disabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 3}},
    {
        "ID": "tagged",
        "Status": "Enabled",
        "Filter": {"Tag": {"Key": "k", "Value": "v"}},
        "Expiration": {"Days": 3},
    },
    {
        "ID": "both",
        "Status": "Enabled",
        "Filter": {"And": {"Prefix": "b/", "Tags": [{"Key": "k", "Value": "v"}]}},
        "Expiration": {"Days": 3},
    },
    {
        "ID": "versions",
        "Status": "Enabled",
        "Filter": {"Prefix": "c/"},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
    },
]


class TestMoto:
    def test_the_rules_of_a_bucket_are_read(self, moto_bucket: S3Bucket) -> None:
        with closing(open_client(moto_bucket)) as client:
            assert client.read_lifecycle() == ()
        put_rules(moto_bucket, *RULES)
        with closing(open_client(moto_bucket)) as client:
            assert client.read_lifecycle() == (
                LifecycleRule("old", "a/", 3),
                LifecycleRule("versions", "c/", None, deletes_versions=True),
            )

    def test_verify_warns(self, moto_bucket: S3Bucket, tmp_path: Path) -> None:
        load_fixture(moto_bucket, "s3")
        put_rules(
            moto_bucket,
            {"ID": "monthly", "Status": "Enabled", "Prefix": "", "Expiration": {"Days": 30}},
        )
        answer = run(tmp_path, "verify", moto_bucket.attributes())
        assert answer.code == 0
        assert "the lifecycle rule 'monthly' deletes blobs 30 days after" in answer.err


def put_rules(bucket: S3Bucket, *rules: dict[str, Any]) -> None:
    bucket.client.put_bucket_lifecycle_configuration(
        Bucket=bucket.name, LifecycleConfiguration={"Rules": list(rules)}
    )
