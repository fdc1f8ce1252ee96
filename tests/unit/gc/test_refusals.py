"""gc/refusals.py: a refusal or a loss as the error that says so, the way out included."""

import pytest

from kitcache.errors import Busy, Damaged, Unsafe
from kitcache.gc.refusals import (
    chain_of,
    describe_damage,
    describe_step,
    incomplete_error,
    loss_error,
    lost_blobs,
    recovery_hints,
    refusal_error,
)
from kitcache.gc.values import DamagedPath, MissingBlob, Refusal, Root
from kitcache.oci.descriptor import Descriptor
from tests.contract.memory import MemoryStore
from tests.unit.gc.surveys import EMPTY, digest

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


ROOT = Root(0, "main", Descriptor(INDEX, digest("index"), 7))
UNNAMED = ROOT._replace(position=2, ref_name=None)
BELOW = Descriptor(MANIFEST, digest("manifest"), 7, platform="linux/arm64")
DAMAGE = DamagedPath(ROOT, (ROOT.descriptor, BELOW), "wrong-size", "is truncated (4 of 7 bytes)")  # type: ignore[arg-type]
SURVEY = EMPTY._replace(roots=(ROOT,))
MEND = "kitcache verify ./cache --repair"


def damaged(*damage: DamagedPath, kind: str = "damaged") -> Damaged | Unsafe:
    error = refusal_error("./cache", Refusal(kind, damage))  # type: ignore[arg-type]
    assert isinstance(error, Damaged | Unsafe)
    return error


def test_an_export_under_way_says_when_to_try_again() -> None:
    error = refusal_error("./cache", Refusal("busy", retry_after_s=41.26))
    assert isinstance(error, Busy)
    assert error.facts == {"holder_pid": None, "holder_command": None, "retry_after_s": 41.3}
    assert str(error).splitlines() == [
        "./cache: another client is exporting to this cache"
        " (last write to ingest/ less than a minute ago)",
        "  nothing was deleted",
        "  hint: try again in 41 s, when the export has ended",
    ]


def test_damage_names_tag_path_and_way_out() -> None:
    error = damaged(DAMAGE)
    assert isinstance(error, Damaged)
    assert (error.tag, error.kind) == ("main", "wrong-size")
    assert str(error).splitlines() == [
        f"./cache: tag 'main' cannot be read: manifest {digest('manifest').short}"
        " is truncated (4 of 7 bytes)",
        f"  path: index.json > {digest('index')} (index) > {digest('manifest')}"
        " (manifest, linux/arm64)",
        "  nothing was deleted",
        "  hint: kitcache verify ./cache --repair",
        "  hint: kitcache untag ./cache main",
        "  hint: export to that tag again",
    ]


def test_other_damage_is_named_too_and_then_counted() -> None:
    error = damaged(DAMAGE, *(DAMAGE._replace(root=Root(n, f"tag{n}", None)) for n in range(8)))
    lines = str(error).splitlines()
    assert [line for line in lines if line.startswith("  also: ")] == [
        f"  also: tag 'tag{n}': {describe_damage(DAMAGE)}" for n in range(5)
    ]
    assert "  and 3 more" in lines


def test_a_cap_is_unsafe_and_says_the_same() -> None:
    error = damaged(DAMAGE._replace(kind="over-cap", problem="is larger than any"), kind="unsafe")
    assert isinstance(error, Unsafe)
    assert str(error).splitlines()[1].startswith("  path: index.json > ")
    assert error.hints == (MEND, "kitcache untag ./cache main", "export to that tag again")


def test_an_entry_that_is_malformed_has_no_path() -> None:
    bad = DamagedPath(Root(3, None, None), (), "malformed", "entry 3 is text, not an object")
    error = damaged(bad)
    assert error.headline == "./cache: entry 3 cannot be read: entry 3 is text, not an object"
    assert chain_of(bad) == ("index.json",)


@pytest.mark.parametrize(
    ("root", "steps"),
    [
        (ROOT, (MEND, "kitcache untag ./cache main", "export to that tag again")),
        (
            ROOT._replace(ref_name="a b'c"),
            (MEND, "kitcache untag ./cache 'a b'\"'\"'c'", "export to that tag again"),
        ),
        (
            UNNAMED,
            (
                MEND,
                f"kitcache untag ./cache {digest('index')}",
            ),
        ),
        (
            ROOT._replace(ref_name="\x1b[31m"),
            (MEND, f"kitcache untag ./cache {digest('index')}", "export to that tag again"),
        ),
        (
            ROOT._replace(ref_name="--help"),
            (MEND, f"kitcache untag ./cache {digest('index')}", "export to that tag again"),
        ),
        (Root(3, "ok", None), (MEND, "kitcache untag ./cache ok", "export to that tag again")),
        (Root(3, None, None), (MEND, "remove entry 3 from index.json by hand")),
        (Root(3, "\x1b", None), (MEND, "remove entry 3 from index.json by hand")),
    ],
)
def test_a_way_out_can_be_pasted(root: Root, steps: tuple[str, ...]) -> None:
    assert recovery_hints("./cache", root) == steps


def test_what_may_not_be_read_is_for_its_owner_to_look_at() -> None:
    """It may be whole: neither a repair nor an untag is the way out."""
    forbidden = DAMAGE._replace(kind="unreadable", problem="cannot be read: Permission denied")
    owner = ("run it as the user who owns the cache",)
    assert refusal_error("./cache", Refusal("damaged", (forbidden,))).hints == owner
    assert incomplete_error("./cache", ROOT, [forbidden]).hints == owner


def test_a_way_out_quotes_the_directory() -> None:
    mend, untag, _ = recovery_hints("my cache", ROOT)
    assert mend == "kitcache verify 'my cache' --repair"
    assert untag == "kitcache untag 'my cache' main"


@pytest.mark.parametrize(
    ("descriptor", "words"),
    [
        (Descriptor(MANIFEST, digest("a"), 7), " (manifest)"),
        (BELOW._replace(digest=digest("a")), " (manifest, linux/arm64)"),
        (Descriptor("", digest("a"), 7), " (no media type)"),
        (Descriptor("text/plain", digest("a"), 7), " (text/plain)"),
        (Descriptor("application/vnd.oci.image.layer.v1.tar", digest("a"), 7), ""),
    ],
)
def test_a_step_in_words(descriptor: Descriptor, words: str) -> None:
    assert describe_step(descriptor) == f"{digest('a')}{words}"


def test_damage_of_an_unknown_kind_of_blob() -> None:
    damage = DamagedPath(ROOT, (Descriptor("x/y", digest("a"), 7),), "missing", "is missing")
    assert describe_damage(damage) == f"blob {digest('a').short} is missing"


def test_only_a_new_hole_is_a_loss() -> None:
    missing = DAMAGE._replace(kind="missing")
    leaf = MissingBlob(digest("layer"), "main")
    holed = SURVEY._replace(missing_blobs=(leaf,), damage=(missing,))
    assert lost_blobs(holed, holed) == ()
    assert lost_blobs(holed, SURVEY) == ()
    assert lost_blobs(SURVEY, holed) == (missing, leaf)
    assert lost_blobs(SURVEY, SURVEY._replace(damage=(DAMAGE,))) == (), "torn is not removed"


def test_a_hole_that_was_known_is_no_loss_to_another_tag() -> None:
    missing = DAMAGE._replace(kind="missing")
    leaf = MissingBlob(digest("layer"), "main")
    before = SURVEY._replace(missing_blobs=(leaf,), damage=(missing,))
    other = Root(1, "dev", ROOT.descriptor)
    after = before._replace(
        missing_blobs=(leaf, leaf._replace(ref_name="dev")),
        damage=(missing, missing._replace(root=other)),
    )
    assert lost_blobs(before, after) == ()


def test_a_lost_layer_is_named() -> None:
    error = loss_error(MemoryStore("./cache"), (MissingBlob(digest("layer"), "dev"),))
    assert (error.kind, error.tag, error.exit_code) == ("lost", "dev", 12)
    assert str(error).splitlines() == [
        "./cache: tag 'dev' was published during the sweep and lacks 1 blob",
        f"  path: index.json > {digest('layer')}",
        f"  missing: {digest('layer')} (layer)",
        "  its exporter does not use kitcache's lock",
        "  nothing was deleted",
        "  hint: export to that tag again",
    ]


def test_a_loss_in_an_object_store_blames_no_lock() -> None:
    store = MemoryStore("s3://b/ci/")
    store.blobs_are_leaves, store.roots_name = True, "ci/manifests/"
    assert str(loss_error(store, (MissingBlob(digest("layer"), "dev"),))).splitlines() == [
        "s3://b/ci/: tag 'dev' was published during the sweep and lacks 1 blob",
        f"  path: ci/manifests/ > {digest('layer')}",
        f"  missing: {digest('layer')} (layer)",
        "  its export took longer than the export time, or renewed blobs during the sweep",
        "  nothing was deleted",
        "  hint: export to that tag again",
        "  hint: sweep with a longer export time",
    ]


def test_a_path_begins_at_what_contains_the_roots() -> None:
    root = ROOT._replace(roots_name="ci/manifests/")
    assert chain_of(DAMAGE._replace(root=root))[0] == "ci/manifests/"


def test_a_lost_manifest_is_named_with_the_way_out() -> None:
    error = loss_error(MemoryStore("./cache"), (DAMAGE._replace(kind="missing"), *[DAMAGE] * 6))
    assert error.headline.endswith("and lacks 7 blobs")
    assert error.details[1] == f"missing: {digest('manifest')} (manifest, linux/arm64)"
    assert error.hints[0] == MEND
    assert sum(line.startswith("missing: ") for line in error.details) == 5


def test_a_loss_without_a_tag_is_not_blamed_on_a_tag_called_none() -> None:
    assert "None" not in str(
        loss_error(MemoryStore("./cache"), (MissingBlob(digest("layer"), None),))
    )
