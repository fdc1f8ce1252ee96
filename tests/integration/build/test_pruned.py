"""Real caches, pruned: tags that are kept import whole, in both clients; the others are gone."""

from pathlib import Path
from typing import Any

from tests.integration import witness
from tests.integration.build.kit import Kit
from tests.integration.growing import STEPS, TAGS, Growing
from tests.integration.kit import must


def prune(grown: Growing, *options: str) -> dict[str, Any]:
    said: dict[str, Any] = must("prune", grown.cache, *options, "--json").json
    return said


def kept(said: dict[str, Any]) -> list[str]:
    return [tag["ref_name"] for tag in said["tags"] if tag["keep"]]


def assert_clean(grown: Growing, said: dict[str, Any]) -> None:
    """What is left is what the tags reach, as kitcache says."""
    assert witness.look(grown.cache).missing == frozenset()
    assert witness.garbage(grown.cache) == {}
    assert grown.live_bytes() == said["reset"]["kept"]["bytes"]


def test_twenty_rounds_pruned_to_half(kit: Kit, tmp_path: Path) -> None:
    grown = Growing(kit, tmp_path)
    grown.grow()
    half = grown.live_bytes() // 2
    assert len(witness.garbage(grown.cache)) > 20, "the precondition: it has grown"
    options = ("--max-used-space", f"{half}B", "--keep-tag", "main")
    dry = prune(grown, *options, "--dry-run")

    said = prune(grown, *options)

    assert said["exit_code"] == 0
    assert [tag["keep"] for tag in said["tags"]] == [tag["keep"] for tag in dry["tags"]]
    assert said["reset"]["deleted"] == dry["reset"]["deleted"]
    assert_clean(grown, said)
    assert grown.live_bytes() <= half
    # The one that a rule keeps, and the last used of the others.
    assert set(grown.tags()) == set(kept(said)) == {"main", "pr-3"}
    for tag in kept(said):
        for client in ("kitcache", "buildx"):
            cached = grown.imported(tag, client)
            assert (len(cached), all(cached.values())) == (STEPS, True), (tag, client, cached)
    gone = next(tag for tag in TAGS if tag not in kept(said))
    assert not any(grown.imported(gone, "kitcache").values())


def test_one_tag_too_many_is_trimmed(kit: Kit, tmp_path: Path) -> None:
    """What is kept is more than the limit: the cold steps of it go, and the others still hit."""
    grown = Growing(kit, tmp_path)
    for n in range(3):
        grown.build("main", f"round {n}")
        grown.build("dev", f"round {n}", client="buildx")
    limit = grown.live_bytes() * 2 // 5
    words = ("--keep-tag", "main", "--max-used-space", f"{limit}B", "--trim")

    said = prune(grown, *words)

    assert (said["exit_code"], kept(said)) == (0, ["main"])
    (trimmed,) = said["trimmed"]
    assert trimmed["removed_steps"]
    assert_clean(grown, said)
    assert grown.live_bytes() <= limit
    for client in ("kitcache", "buildx"):
        cached = grown.imported("main", client)
        assert sum(cached.values()) == len(trimmed["kept_steps"]) > 0, (client, cached, trimmed)
    assert prune(grown, *words)["trimmed"] == []


def test_build_then_never_more_than_that_in_one_command(kit: Kit, tmp_path: Path) -> None:
    grown = Growing(kit, tmp_path)
    grown.build("first", "round 0")
    limit = 2 * grown.live_bytes()
    policy = tmp_path / "cache.toml"
    policy.write_text(f'max-used-space = "{limit}B"\n')
    for n in range(6):
        tag = f"pr-{n}"
        grown.build(tag, f"round {n}", f"--prune-policy={policy}")
        assert grown.live_bytes() <= limit
        assert witness.garbage(grown.cache) == {}
        assert tag in grown.tags()
    assert set(grown.tags()) == {"pr-4", "pr-5"}
    assert all(grown.imported("pr-5", "buildx").values())
