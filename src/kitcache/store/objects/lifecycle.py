"""The lifecycle rules of a bucket, and their effects on a cache. No I/O.

A rule knows ages only. If it deletes a blob that a root still names, builds that need it fail.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kitcache.options.objectcaches import DAY_NS, ObjectCache

_FOREVER = 10**6


class LifecycleRule(NamedTuple):
    """An enabled rule that deletes objects which have no tags, as those of BuildKit.

    Attributes:
        prefix: Of the keys that it applies to.
        days: The age at which it deletes current objects, 0 for a date; None if it deletes none.
        deletes_versions: It deletes superseded versions.
    """

    name: str
    prefix: str
    days: int | None
    deletes_versions: bool = False


def find_risks(
    rules: Sequence[LifecycleRule], cache: ObjectCache, *, has_versions: bool
) -> Iterator[str]:
    """Yield a sentence for each setting of the bucket that endangers the cache, or wastes space."""
    keys = cache.manifests_keys
    root_days = max((_days_of(rules, key) for key in keys), default=_FOREVER)
    renewed_days = -(-cache.touch_refresh_ns // DAY_NS)
    for rule in rules:
        applies = rule.days is not None and _overlaps(rule.prefix, cache.blobs_key)
        if applies and (rule.days or 0) <= root_days + renewed_days:
            roots = "never" if root_days == _FOREVER else f"only after {root_days} days"
            yield (
                f"the lifecycle rule {rule.name!r} deletes blobs {_describe(rule)}, and roots"
                f" {roots}: builds that need such a blob fail. Remove the rule, and let kitcache"
                " delete what no root names"
            )
    cleaned = any(r.deletes_versions and keys[0].startswith(r.prefix) for r in rules)
    if has_versions and not cleaned:
        yield (
            "the bucket keeps the superseded versions of roots for ever: add a lifecycle rule with"
            f" NoncurrentVersionExpiration of 1 day for {keys[0]}"
        )


def _days_of(rules: Sequence[LifecycleRule], key: str) -> int:
    """Return the age at which rules delete all objects below a key."""
    days = [rule.days for rule in rules if rule.days is not None and key.startswith(rule.prefix)]
    return min(days, default=_FOREVER)


def _overlaps(prefix: str, key: str) -> bool:
    return key.startswith(prefix) or prefix.startswith(key)


def _describe(rule: LifecycleRule) -> str:
    if not rule.days:
        return "on a date"
    days = "1 day" if rule.days == 1 else f"{rule.days:,} days"
    return f"{days} after their last upload or renewal"
