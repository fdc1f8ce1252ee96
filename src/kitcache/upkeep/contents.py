"""`ls DIR TAG`: the blobs of one tag, with their sizes, roles and steps."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from threading import Event

from kitcache.errors import Damaged, KitcacheError, Unreadable, Unsafe
from kitcache.gc.control import Control
from kitcache.gc.ls import Reader, kind_below, platform_of, read_image_config
from kitcache.gc.reach import links_below, reach, reached_elsewhere
from kitcache.gc.survey import take_survey
from kitcache.gc.values import Root, Survey, Tally, key_of
from kitcache.oci.cacheconfig import read_cacheconfig
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.oci.links import Link
from kitcache.store.open import StoreAddress, address_text, open_store
from kitcache.store.protocol import CacheStore
from kitcache.upkeep.naming.tagnames import unknown_tag_error
from kitcache.upkeep.project import CacheDocuments
from kitcache.upkeep.results import CachedStep, HeldBlob, TagContents
from kitcache.upkeep.trimming.steporder import rank_steps
from kitcache.upkeep.trimming.trimplan import layer_uses, read_cache


def ls_tag(path: StoreAddress, tag: str, *, cancel: Event | None = None) -> TagContents:
    """List the blobs that a tag reaches, largest first, and the bytes that only this tag needs.

    A layer of a build cache is listed with the step that created it. A layer of an image is listed
    with its command in the image's history. No lock is acquired.

    Args:
        tag: A ref name, or the full digest of an entry.

    Raises:
        NotFound: There is no such tag.
        Damaged: index.json is invalid.
        NotACache, Unsafe, Cancelled: As du.
        KitcacheError: An I/O error.
    """
    control = Control(address_text(path), None, cancel)
    with open_store(path) as store:
        survey = take_survey(store, control)
        roots = _roots_of(store, survey, tag)
        descriptors = list(dict.fromkeys(root.descriptor for root in roots if root.descriptor))
        links = _first_links(survey, descriptors)
        reader = Reader(store)
        reader.root = roots[0]
        lines = dict(chain.from_iterable(_history(reader, survey, d) for d in descriptors))
        elsewhere = reached_elsewhere(survey, [root.position for root in roots])
        steps = dict(chain.from_iterable(_steps(reader, survey, d, elsewhere) for d in descriptors))
    own = [reach(survey, descriptor, with_subjects=False) for descriptor in descriptors]
    kinds = {kind_below(survey, d, reached) for d, reached in zip(descriptors, own, strict=True)}
    blobs = [
        HeldBlob(
            digest=digest,
            bytes=survey.live.get(digest),
            unique_bytes=0 if digest in elsewhere else survey.live.get(digest, 0),
            role=link.role,
            media_type=link.descriptor.media_type,
            platform=lines.get(digest, ("", ""))[0],
            created_by=lines.get(digest, ("", ""))[1],
            step=steps.get(digest),
        )
        for digest, link in links.items()
    ]
    blobs.sort(key=lambda blob: -(blob.bytes or 0))
    existing = [blob for blob in blobs if blob.bytes is not None]
    unique = [blob.bytes or 0 for blob in existing if blob.digest not in elsewhere]
    return TagContents(
        path=control.path,
        ref_name=roots[0].ref_name,
        digests=tuple(descriptor.digest for descriptor in descriptors),
        kind=kinds.pop() if len(kinds) == 1 else "unknown",
        size=Tally(len(existing), sum(blob.bytes or 0 for blob in existing)),
        unique=Tally(len(unique), sum(unique)),
        blobs=tuple(blobs),
        damage=(*survey.damage, *reader.damage),
    )


def _roots_of(store: CacheStore, survey: Survey, tag: str) -> list[Root]:
    roots = [root for root in survey.roots if root.ref_name == tag]
    roots = roots or [r for r in survey.roots if r.descriptor and str(r.descriptor.digest) == tag]
    if roots:
        return roots
    names = [root.ref_name for root in survey.roots]
    raise unknown_tag_error(store, f"the tag or digest {tag!r}", tag, names, effect="")


def _first_links(survey: Survey, descriptors: Sequence[Descriptor]) -> dict[Digest, Link]:
    """Return every reachable digest with the first link to it."""
    links: dict[Digest, Link] = {}
    for descriptor in descriptors:
        links = reach(survey, descriptor) | links
    return links


def _history(
    reader: Reader, survey: Survey, descriptor: Descriptor
) -> Iterator[tuple[Digest, tuple[str, str]]]:
    """Yield each layer of an image with its platform and the command that created it, if known."""
    for link in links_below(survey, descriptor, with_subjects=False):
        below = survey.links.get(key_of(link.descriptor), ())
        config = read_image_config(reader, below)
        if config is not None:
            layers = [each.descriptor.digest for each in below if each.role == "layer"]
            commands = _commands(config, len(layers))
            platform = platform_of(config)
            yield from ((d, (platform, c)) for d, c in zip(layers, commands, strict=True))


def _commands(config: Mapping[str, object], count: int) -> list[str]:
    """Return the command of each layer; empty strings if the history does not match the layers.

    Source: OCI image-spec, config.md. history[] has one entry per layer, and entries with
    empty_layer that have no layer.
    """
    history = config.get("history")
    lines = history if isinstance(history, list) else []
    commands = [
        str(line.get("created_by") or line.get("comment") or "")
        for line in lines
        if isinstance(line, dict) and line.get("empty_layer") is not True
    ]
    return commands if len(commands) == count else [""] * count


def _steps(
    reader: Reader, survey: Survey, descriptor: Descriptor, elsewhere: Collection[Digest]
) -> Iterator[tuple[Digest, CachedStep]]:
    """Yield each layer of a build cache with the step that created it."""
    cache: CacheDocuments | None = None
    try:
        with suppress(Damaged, Unsafe):
            cache = read_cache(reader.store, descriptor)
    except Unreadable as error:
        reader.add_damage(descriptor, error)
    if cache is None:
        return
    config = read_cacheconfig(cache.config)
    used: Mapping[Digest, int] = {}
    with suppress(KitcacheError):  # The last use of each step is unknown then.
        used = layer_uses(reader.store)
    for ranked in rank_steps([cache], used, reader.store.now_ns()):
        record = config.records[ranked.key[0]]
        result = record.results[ranked.key[1]]
        read_ns = used.get(config.layers[result.chain[-1]].digest) if result.chain else None
        sizes = {layer: survey.live.get(layer, 0) for layer in ranked.layers}
        unique = sum(size for layer, size in sizes.items() if layer not in elsewhere)
        size = sum(sizes.values())
        step = CachedStep(record.digest, result.created_ns, read_ns, size, unique)
        yield from ((layer, step) for layer in ranked.layers)
