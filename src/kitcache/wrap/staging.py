"""Staging directories: the client exports to one; when complete, it is merged into the cache.

A staging directory is DIR/.kitcache/stage-…, so everything that excludes DIR (a context, a backup,
a CI cache) excludes it too, and it has DIR's permissions. It starts with hard links to the blobs
that the cache's tags reach, so the client does not write them again. Its own kitcache.lock is held
while it is in use. If no process holds that lock, its owner was killed.
"""

import os
import shutil
import time
from contextlib import ExitStack, closing, suppress
from typing import NamedTuple

from kitcache.errors import Cancelled, Damaged, KitcacheError, Unsafe
from kitcache.gc.survey import take_survey
from kitcache.gc.values import Tally
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from kitcache.oci.document import JsonObject, read_document
from kitcache.oci.index import NewEntry, add_entries, remove_entries
from kitcache.oci.links import kind_of, read_links
from kitcache.store.commit import replace_root_file
from kitcache.store.create import make_index
from kitcache.store.directory import DirectoryStore
from kitcache.store.files import INDEX, STATE_DIR
from kitcache.store.index import parse_index, read_index
from kitcache.store.ingest import Ingester
from kitcache.store.ioerrors import io_error
from kitcache.store.stages import STAGE_PREFIX, clear_stages, open_stage_directory
from kitcache.store.state import require_state_dir
from kitcache.store.transfer import copy_blob
from kitcache.upkeep.jobcaches import LockedCache, LockOptions
from kitcache.upkeep.publish import Problem, describe_missing, publish


class StagedMerge(NamedTuple):
    """The result of merging a staging directory into its cache.

    Attributes:
        linked, reused: Blobs that are new to the cache, and that existed in it.
        problem: Why nothing was published, or which blobs were lost afterwards.
        code: The exit code of that problem.
    """

    tags: tuple[str, ...] = ()
    linked: Tally = Tally()
    reused: Tally = Tally()
    problem: str = ""
    code: int = 0


def open_stage(
    cache: LockedCache, options: LockOptions, stack: ExitStack, *, is_seeded: bool
) -> LockedCache:
    """Make and lock a staging directory; closing the stack deletes it.

    First delete those of killed processes.

    Args:
        is_seeded: Start with hard links to the blobs that the cache's tags reach.

    Raises:
        KitcacheError: It cannot be made, or the cache's index.json is invalid.
    """
    cache.store.read_roots(time.sleep)
    state_fd = stack.enter_context(require_state_dir(cache.store))
    clear_stages(cache.store, state_fd)
    try:
        stage = None
        while stage is None:
            stage = _make_stage(cache, state_fd, options, stack)
        if is_seeded:
            _seed(cache.store, stage.store, options)
    except OSError as error:
        raise io_error(cache.store.path, "cannot make a staging directory", error) from None
    return stage


def _make_stage(
    cache: LockedCache, state_fd: int, options: LockOptions, stack: ExitStack
) -> LockedCache | None:
    """Make one directory. Return None if another process deleted it before it was locked."""
    name = f"{STAGE_PREFIX}{os.urandom(8).hex()}"
    os.mkdir(name, 0o755, dir_fd=state_fd)
    stack.callback(shutil.rmtree, name, ignore_errors=True, dir_fd=state_fd)
    store = open_stage_directory(cache.store, name, state_fd)
    if store is None:
        return None
    stack.enter_context(store)
    stage = LockedCache(store, os.path.join(cache.real_path, STATE_DIR, name))
    stack.callback(stage.release_lock)
    try:
        stage.lock(options.wait_policy(store))
    except KitcacheError:
        if os.fstat(store.root_fd).st_nlink:
            raise
    # A deleted directory has no links.
    return stage if os.fstat(store.root_fd).st_nlink else None


def _seed(cache: DirectoryStore, stage: DirectoryStore, options: LockOptions) -> None:
    """Link the intact blobs that the cache's tags reach, so the client does not write them."""
    try:
        survey = take_survey(cache, options.control(cache))
    except Cancelled:
        raise
    except KitcacheError:  # The merge reports it.
        return
    bad = {blob.digest for blob in survey.missing_blobs}
    bad |= {damage.chain[-1].digest for damage in survey.damage if damage.chain}
    os.mkdir("blobs", 0o755, dir_fd=stage.root_fd)
    for algorithm in cache.blobs:
        os.mkdir(f"blobs/{algorithm}", 0o755, dir_fd=stage.root_fd)
    stage.open_directories()
    for digest in survey.live:
        stat = cache.stat_blob(digest)
        if digest in bad or stat is None or stat.kind != "file":
            continue
        source, target = cache.blobs[digest.algorithm], stage.blobs[digest.algorithm]
        with suppress(OSError):
            os.link(
                digest.hex,
                digest.hex,
                src_dir_fd=source,
                dst_dir_fd=target,
                follow_symlinks=False,
            )


def merge(cache: LockedCache, stage: LockedCache, options: LockOptions) -> StagedMerge:
    """Merge all tags of a staging directory into the cache, whose shared lock the caller holds.

    Blobs are hard-linked and synced first; then all entries are added to index.json in one step.
    Every blob that a tag reaches is checked in the staging directory before that, and in the
    cache after it: structural blobs and short leaves by digest, long leaves by length, because
    the client has verified their digests.

    Raises:
        KitcacheError: No tag was changed.
    """
    control = options.control(stage.store)
    stage.store.open_directories()
    try:
        if not _correct_index(stage.store):
            return StagedMerge()
    except Damaged as error:
        problem = f"not published: the client's {error.problem}"
        return StagedMerge(problem=problem, code=Damaged.exit_code)
    survey = take_survey(stage.store, control)
    faults = describe_missing(survey.damage, survey.missing_blobs)
    if faults:
        return StagedMerge(problem=f"not published: {faults}", code=Damaged.exit_code)
    roots = [(root.ref_name or "", root.descriptor) for root in survey.roots if root.descriptor]
    if not roots:
        return StagedMerge()
    wait_policy = options.wait_policy(cache.store)
    linked = reused = Tally()
    with closing(Ingester(cache.store)) as ingester:
        for digest, size in survey.live.items():
            if ingester.find(digest, size) is not None:
                reused = reused.plus(Tally(1, size))
            else:
                copy_blob(stage.store, ingester.layout, digest, size)
                linked = linked.plus(Tally(1, size))
        make_index(cache.store, wait_policy)
        entries = [(root, [_make_entry(tag, root)]) for tag, root in roots]
        problems = publish(ingester.layout, entries, control, wait_policy)
    first = next((problem for problem in problems if problem.clause), Problem())
    return StagedMerge(tuple(tag for tag, _ in roots), linked, reused, *first)


def _correct_index(store: DirectoryStore) -> bool:
    """Let each tag name the root in this directory. Return False if nothing was exported.

    If a build has several exports, clients write the digest of one root into all directories.
    Source: BuildKit client/solve.go, cacheExporter responses.
    """
    data = read_index(store).data
    if data is None:
        return False
    strays = [
        (entry.ref_name, entry.descriptor)
        for entry in parse_index(store.path, data)
        if entry.descriptor and store.stat_blob(entry.descriptor.digest) is None
    ]
    if strays and (root := _find_root(store)) is not None:
        data, _ = remove_entries(data, tuple(str(missing.digest) for _, missing in strays))
        entries = tuple(_make_entry(tag, root) for tag, _ in strays)
        replace_root_file(store, INDEX, add_entries(data, entries))
    return True


def _find_root(store: DirectoryStore) -> Descriptor | None:
    """Return the only cache root among the blobs of an export; None if there is not exactly one.

    Raises:
        KitcacheError: A blob cannot be read, so it may be a second root.
    """
    roots = []
    for algorithm, fd in store.blobs.items():
        for name in os.listdir(fd):
            digest = Digest(algorithm, name)
            with suppress(Damaged, Unsafe):
                data = store.read_blob(digest, None, unless_binary=True) or b""
                document = read_document(data) if data else None
                media_type = (
                    document.get_only("mediaType") if isinstance(document, JsonObject) else None
                )
                kind = kind_of(media_type) if isinstance(media_type, str) else None
                if kind in ("index", "manifest") and any(
                    kind_of(child.media_type) == "cacheconfig"
                    for child, _ in read_links(kind, data)
                ):
                    roots.append(Descriptor(str(media_type), digest, len(data)))
    return roots[0] if len(roots) == 1 else None


def _make_entry(tag: str | None, root: Descriptor) -> NewEntry:
    return NewEntry(root.media_type, str(root.digest), root.size or 0, tag or "")
