"""What people read of a verification and of a repair."""

import time
from collections.abc import Iterator

from kitcache.cli.tables import damage_warnings, table, tag_name
from kitcache.cli.text import blobs_of, count
from kitcache.errors import printable
from kitcache.store.ioerrors import command_line
from kitcache.upkeep.results import RECOVERED, RepairResult, TagStatus, VerifyResult

_MISSES_SHOWN = 3
_BLOBS_SHOWN = 10


def verified_lines(found: VerifyResult) -> Iterator[str]:
    """How much was hashed, then the verdict on each tag, a line a tag."""
    if found.reason:
        yield printable(f"{found.path}: {found.reason}")
        return
    bad = f"{count(len(found.bad_blobs), 'bad blob')}" if found.bad_blobs else "all whole"
    hashed = f"{blobs_of(found.blobs)} rehashed in {found.seconds:.1f} s"
    yield printable(f"{found.path}: {hashed}: {bad}")
    if found.tags:
        yield from table(
            ("TAG", "KIND", "STEPS", "VERDICT"),
            [_row(verdict) for verdict in found.tags],
            right=(2,),
        )


def _row(verdict: TagStatus) -> tuple[str, ...]:
    steps = f"{verdict.steps:,}" if verdict.steps or verdict.importable == "full" else "-"
    return (
        tag_name(verdict.ref_name, verdict.digest),
        verdict.kind,
        steps if verdict.kind == "cache" else "-",
        _word_of(verdict).removeprefix("is "),
    )


def _word_of(verdict: TagStatus) -> str:
    if verdict.kind in ("image", "artifact"):
        return "is whole" if verdict.importable == "full" else "is not whole"
    match verdict.importable:
        case "full":
            return "imports fully"
        case "partial":
            return "imports with misses"
        case "none":
            return "does not import"


def verified_warnings(found: VerifyResult, *, was_repaired: bool = False) -> Iterator[str]:
    """All that is wrong, and what is worth knowing before it is; then what to do about it.

    was_repaired: this is what a repair left.
    """
    if found.index_problem:
        yield printable(f"{found.path}: no tag can be judged: {found.index_problem}")
    for verdict in found.tags:
        if verdict.importable != "full":
            yield from _verdict_lines(found.path, verdict)
    for one in found.bad_blobs[:_BLOBS_SHOWN]:
        yield printable(f"{found.path}: blob {one.digest} {one.problem}")
    if len(found.bad_blobs) > _BLOBS_SHOWN:
        yield printable(f"{found.path}: and {len(found.bad_blobs) - _BLOBS_SHOWN:,} more bad blobs")
    yield from damage_warnings(found.path, found.damage)
    for warning in found.warnings:
        yield printable(f"{found.path}: {warning}")
    # A subject of index.json itself is nobody's tag: its damage says what to do by hand.
    is_by_hand = found.damage and all(damage.root.position < 0 for damage in found.damage)
    is_else_well = not found.bad_blobs and all(one.importable == "full" for one in found.tags)
    if found.exit_code and not was_repaired and not (is_by_hand and is_else_well):
        yield f"{printable(found.path)}: hint: {command_line('verify', found.path, '--repair')}"


def _verdict_lines(path: str, verdict: TagStatus) -> Iterator[str]:
    yield printable(f"{path}: {_label_of(verdict)} {_word_of(verdict)}: {verdict.reason}")
    for miss in verdict.unusable_steps[:_MISSES_SHOWN]:
        made = "" if miss.created_ns is None else f" of {_day(miss.created_ns)}"
        yield printable(f"{path}:   step {miss.cache_key}{made}: {miss.reason}")
    if len(verdict.unusable_steps) > _MISSES_SHOWN:
        yield printable(
            f"{path}:   and {count(len(verdict.unusable_steps) - _MISSES_SHOWN, 'more step')}"
        )


def _label_of(verdict: TagStatus) -> str:
    if verdict.ref_name is not None:
        return f"tag '{verdict.ref_name}'"
    digest = f" ({verdict.digest.short})" if verdict.digest else ""
    return f"entry {verdict.position}{digest}"


def _day(created_ns: int) -> str:
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(created_ns // 10**9))
    except (ValueError, OverflowError, OSError):
        return "an odd time"


def repaired_lines(repaired: RepairResult) -> Iterator[str]:
    """Each step that was done, or would be."""
    for step in repaired.actions:
        yield printable(f"{repaired.path}: {step.description}")
    if not repaired.actions:
        yield printable(f"{repaired.path}: nothing to repair")
    elif repaired.outcome == "dry-run":
        yield printable(f"{repaired.path}: nothing was changed")


def nameless_warnings(repaired: RepairResult) -> Iterator[str]:
    """What to do about roots that nobody had a name for: old generations among them, maybe."""
    nameless = sum(
        step.kind == "rebuild-index" and (step.tag or "").startswith(RECOVERED)
        for step in repaired.actions
    )
    if nameless:
        path = repaired.path
        has, are = ("has", "is") if nameless == 1 else ("have", "are")
        yield printable(f"{path}: {count(nameless, 'tag')} {has} no known name, and {are} kept")
        for step in (
            command_line("tag", path, f"{RECOVERED}…", "NAME"),
            command_line("prune", path, "--keep-tag", "NAME") + " (drops all others)",
        ):
            yield printable(f"{path}: hint: {step}")
