"""Real caches, damaged at random, repaired, and imported by both clients.

After each round every tag that is left imports: a build from it succeeds, what it builds is right,
and of a tag that the damage did not touch every step is CACHED.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

import kitcache
from kitcache.upkeep.health.repair import repair
from kitcache.upkeep.health.verify import verify
from tests.integration.build.cachekit import cached_of, export
from tests.integration.build.kit import Built, Kit, context
from tests.property.harm import BLOB_HARMS, INDEX_HARMS, Harm, draw_harm, inflict
from tests.property.importer import Seen, see_tags

ROUNDS = int(os.environ.get("KITCACHE_ROUNDS", "20"))
SEED = os.environ.get("KITCACHE_SEED") or str(time.time_ns())

DOCKERFILE = """\
FROM scratch AS deps
COPY lock /lock
FROM scratch AS tools
COPY tool /tool
FROM scratch AS app
COPY --from=deps /lock /deps
COPY --from=tools /tool /tool
COPY app /app
FROM app
COPY notes /notes
"""
STEPS = 6
TAGS = {"main": "true", "dev": "true", "list": "false"}
"""Each tag, and whether its root is an image manifest."""


class Grown(NamedTuple):
    """A cache with three tags. yesterday: its index.json before the last exports and resets."""

    cache: Path
    contexts: dict[str, Path]
    yesterday: bytes


def grow(kit: Kit, top: Path) -> Grown:
    """Each tag exported twice, so that the roots of the first time are gone."""
    cache, yesterday = top / "cache", b""
    contexts = {tag: top / tag for tag in TAGS}
    for day in ("yesterday", "today"):
        for tag, form in TAGS.items():
            files = {"lock": "the same for all", "tool": f"a tool of {day}"}
            where = context(contexts[tag], DOCKERFILE, app=f"{tag} {day}", notes=day * 99, **files)
            attrs = {"tag": tag, "mode": "max", "image_manifest": form, "reset": "true"}
            export(kit, where, cache, **attrs)
        yesterday = yesterday or (cache / "index.json").read_bytes()
    assert verify(cache).exit_code == 0
    assert all(len(seen.steps) >= STEPS for seen in see_tags(cache).values())
    return Grown(cache, contexts, yesterday)


def test_what_is_repaired_imports(
    kit: Kit, tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    sys.stdout.write(f"KITCACHE_SEED={SEED}\n")
    grown = grow(kit, tmp_path)
    builds = {"untouched": 0, "rewritten": 0}
    for number in range(ROUNDS):
        rng = Random(f"{SEED} {number}")
        cache = tmp_path / f"round-{number}"
        shutil.copytree(grown.cache, cache)
        before, done = damage(rng, cache, grown.yesterday)
        sources = [grown.cache] if rng.random() < 0.2 else []
        repaired = repair(cache, sources=sources)
        told = f"KITCACHE_SEED={SEED}, round {number}: {done}: {repaired}"
        after = see_tags(cache)
        if sources:
            assert after == see_tags(grown.cache), told
            before = after
        check(before, after, told)
        assert (repaired.exit_code, repair(cache).actions) == (0, ()), told
        assert kitcache.reset(cache).exit_code == 0, told
        assert see_tags(cache) == after, told
        client = ("kitcache", "buildx")[number % 2]
        for kind, tags in sort_out(before, after).items():
            if tags:
                builds[kind] += 1
                tag = rng.choice(tags)
                built = build(kit, grown.contexts[tag], cache, tag, client)
                states = cached_of(built.err)
                assert len(states) == STEPS, (told, built)
                assert all(states.values()) if kind == "untouched" else any(states.values()), (
                    told,
                    built,
                )
        shutil.rmtree(cache)
    for kind, count in builds.items():
        assert count, f"no {kind} tag was left in any round"
        record_testsuite_property(f"builds from {kind} tags after a repair", count)


def damage(rng: Random, cache: Path, yesterday: bytes) -> tuple[dict[str | None, Seen], list[Harm]]:
    """Harm some blobs, and now and then the index: the tags as they are then but for the index."""
    chosen = [draw_harm(rng, *BLOB_HARMS) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
    for harm in chosen:
        inflict(cache, harm)
    before = see_tags(cache)
    if not chosen or rng.random() < 0.4:
        chosen.append(draw_harm(rng, *INDEX_HARMS))
        inflict(cache, chosen[-1], yesterday)
    return before, chosen


def check(before: dict[str | None, Seen], after: dict[str | None, Seen], told: str) -> None:
    """Each tag imports or is gone; the untouched have all, the others what they still could."""
    assert all(seen.is_whole for seen in after.values()), told
    for tag, seen in before.items():
        if seen.is_whole:
            assert after[tag] == seen, told
        elif seen.importable:
            assert after[tag].importable == seen.importable, told
        else:
            assert tag not in after, told


def sort_out(before: dict[str | None, Seen], after: dict[str | None, Seen]) -> dict[str, list[str]]:
    """The tags that are left, by whether the damage touched them."""
    left = [tag for tag in before if tag in after and tag is not None]
    effect = [tag for tag in left if before[tag].is_whole]
    return {"untouched": effect, "rewritten": [tag for tag in left if tag not in effect]}


def build(kit: Kit, where: Path, cache: Path, tag: str, client: str) -> Built:
    """A build that knows nothing but that tag, and what it built, proven."""
    kit.daemon.prune()
    out = where / "out"
    shutil.rmtree(out, ignore_errors=True)
    source = f"--cache-from=type=local,src={cache},tag={tag}"
    options = ("--progress=rawjson", "--network=none", source, "-o", out, where)
    built = kit.must(*options) if client == "kitcache" else kit.buildx(*options)
    assert built.code == 0, built
    for copied, name in {"deps": "lock", "tool": "tool", "app": "app", "notes": "notes"}.items():
        assert (out / copied).read_bytes() == (where / name).read_bytes(), built
    return built
