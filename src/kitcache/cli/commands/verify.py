"""kitcache verify: hash every blob and check every tag; --repair repairs the faults."""

import argparse
import time
from collections.abc import Iterator

from kitcache.cli import options
from kitcache.cli.console import Console
from kitcache.cli.tables import damage_warnings, table, tag_name
from kitcache.cli.text import blobs_of, count
from kitcache.errors import NOTHING_CHANGED, UsageError, printable
from kitcache.gc.control import OnProgress
from kitcache.gc.values import Progress
from kitcache.options.units import format_bytes
from kitcache.store.ioerrors import command_line
from kitcache.store.open import StoreAddress
from kitcache.store.values import Waiting
from kitcache.upkeep.health.verify import verify
from kitcache.upkeep.results import RECOVERED, RepairResult, TagStatus, VerifyResult

_MAX_STEPS = 3
_MAX_BLOBS = 10
_STATUS = {
    "full": "importable",
    "partial": "partly importable",
    "none": "not importable",
}

COMMAND = options.Command(
    description="""\
Hashes every blob on all cores, and checks every tag as an import by BuildKit
would: size caps, media types, cacheconfig and layers. Reports for each tag:
importable, partly importable (with the unusable steps), or not importable (with
the reason). Exit code 12 if it finds a fault. Changes nothing.

In an object store, blobs are listed: a missing blob and one of a wrong size are
found without reading any. --read reads and hashes all of them, too.

With --repair it then changes as little as possible, so that every tag can be
imported or is removed: it moves bad blobs to DIR/.kitcache/quarantine (du shows
its size), removes the steps that need them, and removes a tag only if nothing
of it can be saved. A tag that is importable is not changed. In an object store
it writes only roots, and keeps the removed ones in PREFIXkitcache/quarantine/.""",
    epilog="""\
examples:
  kitcache verify ./cache                     after a crash, a full disk, a copy
  kitcache verify --repair --dry-run ./cache  what would a repair do?
  kitcache verify --repair --from ../copy ./cache
                                              copy missing blobs from a copy""",
    arguments=(
        options.DIRS,
        options.switch("--repair", "repair damaged tags and blobs"),
        options.switch(
            "--read",
            "read and hash every blob of an object store, too, which transfers all of them; a"
            " directory is always read",
        ),
        options.argument(
            "--from",
            "OTHER",
            "with --repair: another copy of the cache to copy missing blobs from; can be given"
            " again",
            dest="sources",
            action="append",
            default=[],
            completes="dirs",
        ),
        options.switch(
            "-n --dry-run", "with --repair: print its actions, change nothing, acquire no lock"
        ),
        *options.CHANGES[1:],
    ),
    effect="",
)


def run(args: argparse.Namespace, console: Console) -> int:
    """Verify or repair each DIR."""
    if not args.repair and (args.sources or args.dry_run):
        option = "--from" if args.sources else "--dry-run"
        error = UsageError(
            f"{option} needs --repair",
            hints=("kitcache verify --help",),
        )
        console.print_error(error)
        return error.exit_code

    on_progress = _announce(console) if args.read else console.on_progress

    def verify_one(address: StoreAddress) -> int:
        result = verify(
            address,
            read=args.read,
            lock_timeout_s=args.lock_timeout_s,
            on_progress=on_progress,
            cancel=args.cancel,
        )
        console.print_result(result, verify_lines(result))
        console.print_warning(verify_warnings(result))
        return result.exit_code

    def repair_one(address: StoreAddress) -> int:
        from kitcache.upkeep.health.repair import repair  # noqa: PLC0415 - verify starts faster

        result = repair(
            address,
            sources=tuple(args.sources),
            read=args.read,
            dry_run=args.dry_run,
            lock_timeout_s=args.lock_timeout_s,
            on_progress=on_progress,
            cancel=args.cancel,
        )
        console.print_result(result, repair_lines(result))
        if args.quiet and result.actions:
            # --quiet does not hide the actions of a repair.
            console.print_warning(repair_lines(result))
        console.print_warning(unnamed_warnings(result))
        if result.outcome == "done":
            console.print_warning(verify_warnings(result.verification, was_repaired=True))
        return result.exit_code

    if args.repair:
        console.effect = NOTHING_CHANGED
        return console.each(args.dirs, repair_one)
    return console.each(args.dirs, verify_one)


def _announce(console: Console) -> OnProgress:
    """Return a callback that prints how much will be transferred, before the first byte is."""

    def on_progress(event: Progress | Waiting) -> None:
        if isinstance(event, Progress) and event.total_bytes and not event.seconds:
            size = format_bytes(event.total_bytes)
            console.print_note((f"every blob is read: {size} will be transferred",))
        console.on_progress(event)

    return on_progress


def verify_lines(result: VerifyResult) -> Iterator[str]:
    """Yield the number of hashed blobs, then the status of each tag."""
    if result.reason:
        yield printable(f"{result.path}: {result.reason}")
        return
    found = count(len(result.bad_blobs), "bad blob") if result.bad_blobs else "all intact"
    if not result.hashed:
        found = "presence and sizes were checked, and no blob was read"
    done = f"{'hashed' if result.hashed else 'listed'} in {result.seconds:.1f} s"
    yield printable(f"{result.path}: {blobs_of(result.blobs)} {done}: {found}")
    if result.tags:
        yield from table(
            ("TAG", "KIND", "STEPS", "STATUS"), [_row(tag) for tag in result.tags], right=(2,)
        )


def _row(tag: TagStatus) -> tuple[str, ...]:
    has_steps = tag.kind == "cache" and (tag.steps or tag.importable == "full")
    steps = f"{tag.steps:,}" if has_steps else "-"
    return (tag_name(tag.ref_name, tag.digest), tag.kind, steps, _status_of(tag))


def _status_of(tag: TagStatus) -> str:
    if tag.kind in ("image", "artifact"):
        return "complete" if tag.importable == "full" else "not complete"
    return _STATUS[tag.importable]


def verify_warnings(result: VerifyResult, *, was_repaired: bool = False) -> Iterator[str]:
    """Yield all faults and warnings, and the command that repairs.

    Args:
        was_repaired: The result is that of a cache after a repair: omit the command.
    """
    path = result.path
    if result.index_problem:
        yield printable(f"{path}: no tag can be verified: {result.index_problem}")
    for tag in result.tags:
        if tag.importable != "full":
            yield from _tag_warnings(path, tag)
    for blob in result.bad_blobs[:_MAX_BLOBS]:
        yield printable(f"{path}: blob {blob.digest} {blob.problem}")
    if len(result.bad_blobs) > _MAX_BLOBS:
        yield printable(f"{path}: and {len(result.bad_blobs) - _MAX_BLOBS:,} more bad blobs")
    yield from damage_warnings(path, result.damage)
    for warning in result.warnings:
        yield printable(f"{path}: {warning}")
    # A repair does not change the subject of index.json: result.warnings have hints for it.
    is_by_hand = result.damage and all(damage.root.position < 0 for damage in result.damage)
    has_faults = result.bad_blobs or any(tag.importable != "full" for tag in result.tags)
    if result.exit_code and not was_repaired and not (is_by_hand and not has_faults):
        yield f"{printable(path)}: hint: {command_line('verify', path, '--repair')}"


def _tag_warnings(path: str, tag: TagStatus) -> Iterator[str]:
    if tag.ref_name is not None:
        label = f"tag '{tag.ref_name}'"
    else:
        label = f"entry {tag.position}" + (f" ({tag.digest.short})" if tag.digest else "")
    yield printable(f"{path}: {label} is {_status_of(tag)}: {tag.reason}")
    for step in tag.unusable_steps[:_MAX_STEPS]:
        created = "" if step.created_ns is None else f" of {_format_day(step.created_ns)}"
        yield printable(f"{path}:   step {step.cache_key}{created}: {step.reason}")
    if len(tag.unusable_steps) > _MAX_STEPS:
        yield printable(f"{path}:   and {count(len(tag.unusable_steps) - _MAX_STEPS, 'more step')}")


def _format_day(created_ns: int) -> str:
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(created_ns // 10**9))
    except (ValueError, OverflowError, OSError):
        return "an unknown day"


def repair_lines(result: RepairResult) -> Iterator[str]:
    """Yield each action of a repair, done or planned."""
    for action in result.actions:
        yield printable(f"{result.path}: {action.description}")
    if not result.actions:
        yield printable(f"{result.path}: nothing to repair")
    elif result.outcome == "dry-run":
        yield printable(f"{result.path}: nothing was changed")


def unnamed_warnings(result: RepairResult) -> Iterator[str]:
    """Yield hints for recovered roots without a known tag; some may be old exports."""
    number = sum(
        action.kind == "rebuild-index" and (action.tag or "").startswith(RECOVERED)
        for action in result.actions
    )
    if number:
        path = result.path
        has, are = ("has", "is") if number == 1 else ("have", "are")
        yield printable(f"{path}: {count(number, 'tag')} {has} no known name, and {are} kept")
        for command in (
            command_line("tag", path, f"{RECOVERED}…", "NAME"),
            command_line("prune", path, "--keep-tag", "NAME") + " (removes all others)",
        ):
            yield printable(f"{path}: hint: {command}")
