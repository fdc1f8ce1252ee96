"""The ls command: the entries of index.json with age, size, kind and platforms."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from threading import Event
from typing import Any, Literal

from kitcache.errors import Damaged, KitcacheError, Unreadable, Unsafe
from kitcache.gc.control import Control
from kitcache.gc.lastuse import Use, last_use, made_uses, recorded_uses
from kitcache.gc.reach import reach
from kitcache.gc.refusals import describe_damage
from kitcache.gc.results import TagInfo, TagList
from kitcache.gc.survey import take_survey
from kitcache.gc.values import NO_ROOT, DamagedPath, Root, Survey, Tally, key_of
from kitcache.oci.cacheconfig import parse_time
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.oci.links import Link, kind_in_place, kind_of
from kitcache.store.open import StoreAddress, open_store
from kitcache.store.protocol import CacheStore

TagKind = Literal["cache", "image", "artifact", "unknown"]
Read = Callable[[Descriptor], dict[str, Any]]
"""Reads a blob as a JSON object; empty if it is not one."""

_IMAGE_CONFIGS = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
_NO_PLATFORM = ("unknown/unknown", "unknown")


def ls(path: StoreAddress, *, cancel: Event | None = None) -> TagList:
    """Return the tags of a cache: age, last use, size, kind, layers, platforms, missing blobs.

    A tag that is damaged, or that cannot be read completely, is listed with its problem. ls
    acquires no lock.

    Raises:
        NotACache: There is no cache at that path.
        Damaged: index.json itself is damaged.
        KitcacheError: As du.
    """
    with open_store(path) as store:
        control = Control(store.path, None, cancel)
        survey = take_survey(store, control)
        reader = Reader(store)
        tags = tuple(_tags(survey, reader, store.now_ns()))
    return TagList(control.path, tags, (*survey.damage, *reader.damage))


class Reader:
    """Reads blobs as JSON objects, and lists the blobs that cannot be read.

    Attributes:
        root: The entry that the blobs are read for.
        damage: The blobs that could not be read.
    """

    def __init__(self, store: CacheStore) -> None:
        self.store = store
        self.root = Root(NO_ROOT, None, None)
        self.damage: list[DamagedPath] = []

    def __call__(self, descriptor: Descriptor) -> dict[str, Any]:
        try:
            return read_object(self.store, descriptor)
        except Unreadable as error:
            self.add_damage(descriptor, error)
            return {}

    def add_damage(self, descriptor: Descriptor, error: Unreadable) -> None:
        """Add a blob, or the blob that references it, to the damage."""
        steps = dict.fromkeys(filter(None, (self.root.descriptor, descriptor)))
        self.damage.append(DamagedPath(self.root, tuple(steps), "unreadable", error.clause))


def _tags(survey: Survey, reader: Reader, now_ns: int) -> Iterator[TagInfo]:
    """Yield a tag for each root. A root that many entries name is read once."""
    damage = {path.chain[-1].digest: path for path in survey.damage if path.chain}
    missing = {blob.digest for blob in survey.missing_blobs}
    missing |= {digest for digest, path in damage.items() if path.kind == "missing"}
    known: dict[Descriptor, tuple[TagInfo, tuple[Use, ...]]] = {}
    tags = []
    for root in survey.roots:
        if root.descriptor is None:
            fault = next(d for d in survey.damage if d.root == root and not d.chain)
            problem = describe_damage(fault)
            tag = TagInfo(root.ref_name, None, "unknown", None, None, Tally(), 0, (), 0, problem)
            tags.append((tag, tuple[Use]()))
            continue
        descriptor = root.descriptor._replace(ref_name=None)
        if descriptor not in known:
            reader.root = root
            tag, times = _read_tag(reader, survey, descriptor, damage, missing)
            uses = tuple[Use]()
            if times is not None:
                uses = tuple(made_uses(reader.store, descriptor.digest, times, now_ns))
            known[descriptor] = tag, uses
        tag, own_uses = known[descriptor]
        tags.append((tag._replace(ref_name=root.ref_name), own_uses))
    return _add_uses(reader.store, tags, now_ns)


def _add_uses(
    store: CacheStore, tags: Sequence[tuple[TagInfo, tuple[Use, ...]]], now_ns: int
) -> Iterator[TagInfo]:
    """Yield the tags with their last uses. Entries with the same ref name share one."""
    try:
        records = store.read_tag_uses()
    except KitcacheError:  # unread records may name a later use
        yield from (tag for tag, _ in tags)
        return
    uses = {name: list(recorded_uses(record)) for name, record in records.items()}
    for tag, own_uses in tags:
        if tag.ref_name is not None:
            uses.setdefault(tag.ref_name, []).extend(own_uses)
    for tag, own_uses in tags:
        known = own_uses if tag.ref_name is None else uses[tag.ref_name]
        used_ns, used_from = last_use(known, now_ns)
        yield tag._replace(last_used_ns=used_ns if known else None, last_used_from=used_from)


def _read_tag(
    reader: Reader,
    survey: Survey,
    descriptor: Descriptor,
    damage: Mapping[Digest, DamagedPath],
    missing: Collection[Digest],
) -> tuple[TagInfo, list[int] | None]:
    """Return a tag, and the times of its results; None if a blob cannot be read."""
    reached = reach(survey, descriptor)
    own = reach(survey, descriptor, with_subjects=False)
    live = [digest for digest in reached if digest in survey.live]
    known_damage = len(reader.damage)
    times = result_times(reader, own)
    created_ns, created_from = _created(reader, descriptor, times)
    platforms = _platforms(reader, descriptor, own)
    unread = reader.damage[known_damage:]
    if unread and created_from == "manifest":
        created_ns = created_from = None
    fault = next((damage[digest] for digest in reached if digest in damage), None)
    fault = fault or next(iter(unread), None)
    tag = TagInfo(
        ref_name=None,
        digest=descriptor.digest,
        kind=kind_below(survey, descriptor, own),
        created_ns=created_ns,
        created_from=created_from,
        size=Tally(len(live), sum(survey.live[digest] for digest in live)),
        layers=sum(
            link.role == "layer" and kind_in_place(link) in ("leaf", None) for link in own.values()
        ),
        platforms=platforms,
        missing=sum(digest in missing for digest in reached),
        problem=describe_damage(fault) if fault else "",
    )
    return tag, None if unread else times


def kind_below(survey: Survey, descriptor: Descriptor, reached: dict[Digest, Link]) -> TagKind:
    """Return the kind of a root.

    Args:
        reached: The blobs that it reaches, without the subjects of artifacts.
    """
    types = {link.descriptor.media_type for link in reached.values()}
    if "cacheconfig" in map(kind_of, types):
        return "cache"
    if types.intersection(_IMAGE_CONFIGS):
        return "image"
    return "artifact" if survey.links.get(key_of(descriptor)) else "unknown"


def _created(
    reader: Reader, descriptor: Descriptor, times: Sequence[int]
) -> tuple[int | None, Literal["cacheconfig", "manifest"] | None]:
    if times:
        return max(times), "cacheconfig"
    stat = reader.store.stat_blob(descriptor.digest)
    return (stat.mtime_ns, "manifest") if stat else (None, None)


def result_times(read: Read, reached: dict[Digest, Link]) -> list[int]:
    """Return the times of the results of all cacheconfigs among these blobs, in ns since 1970."""
    return [
        time
        for link in reached.values()
        if kind_in_place(link) == "cacheconfig"
        for time in _record_times(read(link.descriptor))
    ]


def _record_times(config: dict[str, Any]) -> Iterable[int]:
    """Yield the valid times of all results of a cacheconfig, in ns since 1970.

    Source: BuildKit's cache/remotecache/v1/spec.go: records[].layers[] and records[].chains[].
    """
    for record in _dicts(config.get("records")):
        for result in (*_dicts(record.get("layers")), *_dicts(record.get("chains"))):
            created = parse_time(result.get("createdAt"))
            if created is not None:
                yield created


def _platforms(read: Read, root: Descriptor, reached: dict[Digest, Link]) -> tuple[str, ...]:
    named = [root.platform, *(link.descriptor.platform for link in reached.values())]
    listed = dict.fromkeys(p for p in named if p and p not in _NO_PLATFORM)
    if listed:
        return tuple(listed)
    configs = [
        read(link.descriptor)
        for link in reached.values()
        if link.descriptor.media_type in _IMAGE_CONFIGS
    ]
    return tuple(dict.fromkeys(filter(None, map(platform_of, configs))))


def platform_of(config: Mapping[str, Any]) -> str:
    """Return the platform of an image config, such as linux/arm64; "" if it names none."""
    words = [config.get(key) for key in ("os", "architecture", "variant")]
    platform = "/".join(word for word in words if isinstance(word, str) and word)
    return "" if platform in _NO_PLATFORM else platform


def read_image_config(read: Read, links: Iterable[Link]) -> dict[str, Any] | None:
    """Return the image config that a manifest references; None if there is none."""
    for link in links:
        if link.role == "config" and link.descriptor.media_type in _IMAGE_CONFIGS:
            return read(link.descriptor)
    return None


def read_object(store: CacheStore, descriptor: Descriptor) -> dict[str, Any]:
    """Return a blob as a JSON object; empty if it is missing, damaged or not an object.

    Raises:
        Unreadable: It exists and cannot be read.
        KitcacheError: The process may not open more files.
    """
    try:
        value = json.loads(store.read_blob(descriptor.digest, descriptor.size) or b"")
    except (Damaged, Unsafe, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
