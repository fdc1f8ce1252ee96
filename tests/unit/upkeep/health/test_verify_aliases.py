"""health/verify.py: many entries that name one root."""

import json

import pytest

from kitcache.gc.reach import links_below
from kitcache.oci.digest import Digest
from kitcache.upkeep.health import judge as module
from kitcache.upkeep.health.verify import verify
from kitcache.upkeep.results import TagStatus
from tests.hostile.build import MANIFEST, Box
from tests.hostile.importable import grow
from tests.unit.upkeep.health.healthkit import flip, words


def alike(verdict: TagStatus) -> TagStatus:
    return verdict._replace(position=0, ref_name=None)


def test_each_has_the_verdict_of_the_root(box: Box) -> None:
    cached = grow(box)
    box.tag("also", cached.root)
    box.tag("odd", cached.root | {"size": 1})
    flip(box, cached.layers[2]["digest"])
    main, also, odd = verify(box.dir).tags
    assert [(v.position, v.ref_name) for v in (main, also)] == [(0, "main"), (1, "also")]
    assert main.importable == "partial"
    assert alike(main) == alike(also)
    assert odd.importable == "none"


def test_the_root_is_judged_once(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = grow(box)
    for number in range(5):
        box.tag(f"tag {number}", cached.root)
    judged: list[Digest] = []

    def count(*args: object, **words: bool) -> object:
        judged.append(args[1].digest)  # type: ignore[attr-defined]
        return links_below(*args, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "links_below", count)
    assert {imports for _, _, imports in words(verify(box.dir))} == {"full"}
    assert len(judged) == 1


def test_a_warning_names_each_of_them(box: Box) -> None:
    cached = grow(box)
    root = json.loads(box.path_of(cached.root["digest"]).read_bytes())
    near_the_cap = box.document(root | {"pad": "x" * 900_000}, MANIFEST)
    box.tag("one", near_the_cap)
    box.tag("two", near_the_cap)
    found = verify(box.dir)
    assert [warning.partition(":")[0] for warning in found.warnings] == ["tag 'one'", "tag 'two'"]
