"""ls: each entry of index.json as people speak of it. Reads a little more than the survey did."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from threading import Event
from typing import Any, Literal, NamedTuple

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
"""Reads a blob as a JSON object."""

_IMAGE_CONFIGS = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
_NO_PLATFORM = ("unknown/unknown", "unknown")


def ls(path: StoreAddress, *, cancel: Event | None = None) -> TagList:
    """The tags of a cache: age, last use, size, kind, layers, platforms, missing blobs.

    A damaged tag is listed with its problem, and so is one of which something cannot be read. Takes
    no lock. Raises NotACache, Unsafe, Damaged (index.json itself), Cancelled, KitcacheError for I/O
    errors.
    """
    with open_store(path) as store:
        control = Control(store.path, None, cancel)
        survey = take_survey(store, control)
        reader = Reader(store)
        tags = tuple(_tags(survey, reader, store.now_ns()))
    return TagList(control.path, tags, (*survey.damage, *reader.damage))


class Reader:
    """Reads what only informs: a blob that cannot be read costs its facts, and is told as damage.

    root: the tag that it is read for.
    """

    def __init__(self, store: CacheStore) -> None:
        self.store = store
        self.root = Root(NO_ROOT, None, None)
        self.damage: list[DamagedPath] = []

    def __call__(self, descriptor: Descriptor) -> dict[str, Any]:
        try:
            return read_object(self.store, descriptor)
        except Unreadable as error:
            self.note(descriptor, error)
            return {}

    def note(self, descriptor: Descriptor, error: Unreadable) -> None:
        """Tell of what could not be read. descriptor: of it, or of what it stands below."""
        steps = dict.fromkeys(filter(None, (self.root.descriptor, descriptor)))
        self.damage.append(DamagedPath(self.root, tuple(steps), "unreadable", error.clause))


def _tags(survey: Survey, reader: Reader, now_ns: int) -> Iterator[TagInfo]:
    """What is said of each root; of one that many entries name it is found out once."""
    problems = _problems(survey)
    absent = frozenset(leaf.digest for leaf in survey.missing_blobs)
    known: dict[Descriptor, _Seen] = {}
    seen = []
    for root in survey.roots:
        if root.descriptor is None:
            seen.append(_Seen(_malformed(survey, root), ()))
            continue
        nameless = root.descriptor._replace(ref_name=None)
        if nameless not in known:
            reader.root = root
            tag, made = _tag(reader, survey, nameless, problems, absent)
            uses = () if made is None else made_uses(reader.store, nameless.digest, made, now_ns)
            known[nameless] = _Seen(tag, tuple(uses))
        tag, own = known[nameless]
        seen.append(_Seen(tag._replace(ref_name=root.ref_name), own))
    return _with_uses(reader.store, seen, now_ns)


class _Seen(NamedTuple):
    """A tag, and when it was of use as far as its own blobs tell."""

    tag: TagInfo
    uses: tuple[Use, ...]


def _with_uses(store: CacheStore, seen: Sequence[_Seen], now_ns: int) -> Iterator[TagInfo]:
    """The tags with their last uses: that of all entries with one name, as a policy counts it."""
    try:
        notes = store.read_tag_uses()
    except KitcacheError:  # there may be notes: no last use is known then
        yield from (tag for tag, _ in seen)
        return
    uses = {name: list(recorded_uses(note)) for name, note in notes.items()}
    for tag, own in seen:
        if tag.ref_name is not None:
            uses.setdefault(tag.ref_name, []).extend(own)
    for tag, own in seen:
        found = own if tag.ref_name is None else uses[tag.ref_name]
        used_ns, used_from = last_use(found, now_ns)
        yield tag._replace(last_used_ns=used_ns if found else None, last_used_from=used_from)


def _malformed(survey: Survey, root: Root) -> TagInfo:
    fault = next(d for d in survey.damage if d.root == root and not d.chain)
    problem = describe_damage(fault)
    return TagInfo(root.ref_name, None, "unknown", None, None, Tally(), 0, (), 0, problem)


def _problems(survey: Survey) -> dict[Digest, DamagedPath]:
    return {d.chain[-1].digest: d for d in survey.damage if d.chain}


def _tag(
    reader: Reader,
    survey: Survey,
    descriptor: Descriptor,
    problems: Mapping[Digest, DamagedPath],
    absent: Collection[Digest],
) -> tuple[TagInfo, list[int] | None]:
    """A tag, and when the results of its cacheconfigs were made; None where not all can be read."""
    found = reach(survey, descriptor)
    own = reach(survey, descriptor, with_subjects=False)
    there = [digest for digest in found if digest in survey.live]
    told = len(reader.damage)
    made = result_times(reader, own)
    created_ns, created_from = _created(reader, descriptor, made)
    platforms = _platforms(reader, descriptor, own)
    unread = reader.damage[told:]
    if unread and created_from == "manifest":
        created_ns = created_from = None
    broken = next((problems[digest] for digest in found if digest in problems), None)
    broken = broken or next(iter(unread), None)
    tag = TagInfo(
        ref_name=None,
        digest=descriptor.digest,
        kind=kind_below(survey, descriptor, own),
        created_ns=created_ns,
        created_from=created_from,
        size=Tally(len(there), sum(survey.live[digest] for digest in there)),
        layers=sum(_is_layer(link) for link in own.values()),
        platforms=platforms,
        missing=sum(digest in absent or _is_gone(problems.get(digest)) for digest in found),
        problem=describe_damage(broken) if broken else "",
    )
    return tag, None if unread else made


def _is_gone(damage: DamagedPath | None) -> bool:
    return damage is not None and damage.kind == "missing"


def _is_layer(link: Link) -> bool:
    return link.role == "layer" and kind_in_place(link) in ("leaf", None)


def kind_below(survey: Survey, descriptor: Descriptor, found: dict[Digest, Link]) -> TagKind:
    """What a root is. found: what it reaches, but for what its artifacts are about."""
    types = {link.descriptor.media_type for link in found.values()}
    if "cacheconfig" in map(kind_of, types):
        return "cache"
    if types.intersection(_IMAGE_CONFIGS):
        return "image"
    return "artifact" if survey.links.get(key_of(descriptor)) else "unknown"


def _created(
    reader: Reader, descriptor: Descriptor, made: Sequence[int]
) -> tuple[int | None, Literal["cacheconfig", "manifest"] | None]:
    if made:
        return max(made), "cacheconfig"
    written = reader.store.stat_blob(descriptor.digest)
    return (written.mtime_ns, "manifest") if written else (None, None)


def result_times(read: Read, found: dict[Digest, Link]) -> list[int]:
    """When the results of every cacheconfig among these blobs were made, in ns since 1970.

    Raises what `read` does.
    """
    return [
        time
        for link in found.values()
        if kind_in_place(link) == "cacheconfig"
        for time in _record_times(read(link.descriptor))
    ]


def _record_times(config: dict[str, Any]) -> Iterable[int]:
    """The createdAt of every result of a cacheconfig, in ns since 1970; odd ones are passed over.

    Source: BuildKit's cache/remotecache/v1/spec.go: records[].layers[] and records[].chains[].
    """
    for record in _dicts(config.get("records")):
        for result in (*_dicts(record.get("layers")), *_dicts(record.get("chains"))):
            created = parse_time(result.get("createdAt"))
            if created is not None:
                yield created


def _platforms(read: Read, root: Descriptor, found: dict[Digest, Link]) -> tuple[str, ...]:
    named = [root.platform, *(link.descriptor.platform for link in found.values())]
    listed = dict.fromkeys(p for p in named if p and p not in _NO_PLATFORM)
    if listed:
        return tuple(listed)
    configs = [
        read(link.descriptor)
        for link in found.values()
        if link.descriptor.media_type in _IMAGE_CONFIGS
    ]
    return tuple(dict.fromkeys(filter(None, map(platform_of, configs))))


def platform_of(config: Mapping[str, Any]) -> str:
    """The platform that an image config names, such as linux/arm64; "" where it names none."""
    words = [config.get(key) for key in ("os", "architecture", "variant")]
    platform = "/".join(word for word in words if isinstance(word, str) and word)
    return "" if platform in _NO_PLATFORM else platform


def read_image_config(read: Read, links: Iterable[Link]) -> dict[str, Any] | None:
    """The image config among what a manifest links to; None where there is none."""
    for link in links:
        if link.role == "config" and link.descriptor.media_type in _IMAGE_CONFIGS:
            return read(link.descriptor)
    return None


def read_object(store: CacheStore, descriptor: Descriptor) -> dict[str, Any]:
    """A blob as a JSON object; empty where it is proven to be none, or not to be there.

    Raises Unreadable, and KitcacheError where the process may open no more files.
    """
    try:
        value = json.loads(store.read_blob(descriptor.digest, descriptor.size) or b"")
    except (Damaged, Unsafe, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
