"""Staging directories: an export is written to one, and merged into the cache when complete.

A staging directory is DIR/.kitcache/stage-…, so it is excluded wherever DIR is excluded (from a
context, a backup, a CI cache), and has DIR's permissions. It starts with hard links to the blobs
that the cache's tags reach, so the client does not write them again. Its own kitcache.lock is held
while it is in use. If no process holds that lock, its owner was killed.
"""

import os
import shutil
import time
from contextlib import ExitStack, suppress
from typing import NamedTuple

from kitcache.errors import Cancelled, Damaged, KitcacheError, Unsafe
from kitcache.gc.survey import take_survey
from kitcache.gc.values import Survey, Tally
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
from kitcache.upkeep.publish import Problem, describe_faults, publish


class StagedMerge(NamedTuple):
    """The result of merging a staging directory into its cache.

    Attributes:
        linked, reused: Blobs that are new to the cache, and that it had.
        problem: Why nothing was published, or what was lost afterwards.
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
    cache.layout.read_roots(time.sleep)
    state_fd = stack.enter_context(require_state_dir(cache.layout))
    clear_stages(cache.layout, state_fd)
    try:
        stage = None
        while stage is None:
            stage = _make_stage(cache, state_fd, options, stack)
        if is_seeded:
            _seed(cache.layout, stage.layout, options)
    except OSError as error:
        raise io_error(cache.layout.path, "cannot make a staging directory", error) from None
    return stage


def _make_stage(
    cache: LockedCache, state_fd: int, options: LockOptions, stack: ExitStack
) -> LockedCache | None:
    """Return None if another process deleted the directory before its lock was held."""
    name = f"{STAGE_PREFIX}{os.urandom(8).hex()}"
    os.mkdir(name, 0o755, dir_fd=state_fd)
    stack.callback(shutil.rmtree, name, ignore_errors=True, dir_fd=state_fd)
    layout = open_stage_directory(cache.layout, name, state_fd)
    if layout is None:
        return None
    stack.enter_context(layout)
    stage = LockedCache(layout, os.path.join(cache.real_path, STATE_DIR, name))
    stack.callback(stage.release_lock)
    try:
        stage.lock(options.wait_policy(layout))
    except KitcacheError:
        if os.fstat(layout.root_fd).st_nlink:
            raise
    # A deleted directory has no links.
    return stage if os.fstat(layout.root_fd).st_nlink else None


def _seed(cache: DirectoryStore, stage: DirectoryStore, options: LockOptions) -> None:
    """Link the blobs that the cache's tags reach. The client writes every other blob anew."""
    try:
        survey = take_survey(cache, options.control(cache))
    except Cancelled:
        raise
    except KitcacheError:  # Reported when the tags are published.
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


def merge(store: LockedCache, stage: LockedCache, terms: LockOptions) -> StagedMerge:
    """Bring all tags of a staging directory into the store, whose lock the caller holds shared.

    First the blobs, by hard links and synced, then the entries of index.json in one step. All that
    a tag reaches is looked for before that, in the staging directory, and once more after it, in
    the store. Structural blobs are proven by their digests; of leaves the length counts, which the
    client has proven when it wrote them, and short ones are proven again. Raises KitcacheError:
    then no tag was changed.
    """
    control = terms.control(stage.layout)
    stage.layout.open_directories()
    try:
        if not _mend_index(stage.layout):
            return StagedMerge()
    except Damaged as error:
        problem = f"not published: the client's {error.problem}"
        return StagedMerge(problem=problem, code=Damaged.exit_code)
    survey = take_survey(stage.layout, control)
    faults = describe_faults(survey.damage, survey.missing_blobs)
    if faults:
        return StagedMerge(problem=f"not published: {faults}", code=Damaged.exit_code)
    roots = [root for root in survey.roots if root.descriptor is not None]
    if not roots:
        return StagedMerge()
    with ExitStack() as stack:
        intake = Ingester(store.layout)
        stack.callback(intake.close)
        linked, reused = _link_all(stage.layout, intake, survey)
        wait_policy = terms.wait_policy(store.layout)
        make_index(store.layout, wait_policy)
        new = [(d, [_entry_of(root.ref_name, d)]) for root in roots if (d := root.descriptor)]
        problems = publish(intake.layout, new, control, wait_policy)
        tags = tuple(root.ref_name or "" for root in roots)
        first = next((each for each in problems if each.clause), Problem())
    return StagedMerge(tags, linked, reused, *first)


def _mend_index(layout: DirectoryStore) -> bool:
    """Let a tag name the root that was really written here; False where nothing was exported.

    Of a build with several exports clients write one root's digest into all directories.
    Source: BuildKit client/solve.go, cacheExporter responses.
    """
    data = read_index(layout).data
    if data is None:
        return False
    strays = [
        e
        for e in parse_index(layout.path, data)
        if e.descriptor and not _is_there(layout, e.descriptor)
    ]
    if strays and (root := _find_root(layout)) is not None:
        names = tuple(str(entry.descriptor.digest) for entry in strays if entry.descriptor)
        data, _ = remove_entries(data, names)
        entries = tuple(_entry_of(entry.ref_name, root) for entry in strays)
        replace_root_file(layout, INDEX, add_entries(data, entries))
    return True


def _is_there(layout: DirectoryStore, descriptor: Descriptor) -> bool:
    return layout.stat_blob(descriptor.digest) is not None


def _find_root(layout: DirectoryStore) -> Descriptor | None:
    """The cache's root among blobs of one export; None where there is not just one.

    Raises Unreadable: what cannot be read may be another one.
    """
    found = []
    for algorithm, fd in layout.blobs.items():
        for name in os.listdir(fd):
            digest = Digest(algorithm, name)
            with suppress(Damaged, Unsafe):
                data = layout.read_blob(digest, None, unless_binary=True)
                root = None if data is None else _read_root(digest, data)
                if root is not None:
                    found.append(root)
    return found[0] if len(found) == 1 else None


def _read_root(digest: Digest, data: bytes) -> Descriptor | None:
    document = read_document(data)
    fields = document if isinstance(document, JsonObject) else JsonObject()
    media_type = fields.get_only("mediaType")
    if not isinstance(media_type, str) or kind_of(media_type) not in ("index", "manifest"):
        return None
    links = read_links(kind_of(media_type), data)
    is_cache = any(kind_of(below.media_type) == "cacheconfig" for below, _ in links)
    return Descriptor(media_type, digest, len(data)) if is_cache else None


def _link_all(stage: DirectoryStore, intake: Ingester, survey: Survey) -> tuple[Tally, Tally]:
    linked = reused = Tally()
    for digest, size in survey.live.items():
        one = Tally(1, size)
        if intake.find(digest, size) is not None:
            reused = reused.plus(one)
        else:
            copy_blob(stage, intake.layout, digest, size)
            linked = linked.plus(one)
    return linked, reused


def _entry_of(tag: str | None, root: Descriptor) -> NewEntry:
    return NewEntry(root.media_type, str(root.digest), root.size or 0, tag or "")
