"""gc/results.py: what follows from an answer's fields."""

import pytest

from kitcache.gc.results import BlobReferences, DiskUsage, TagList
from kitcache.gc.values import DamagedPath, Root, Tally
from kitcache.oci.digest import Digest

DAMAGE = DamagedPath(Root(0, "main", None), (), "malformed", "entry 0 is text")


@pytest.mark.parametrize(("damage", "code"), [((), 0), ((DAMAGE,), 12)])
def test_an_incomplete_picture_makes_the_exit_code(
    damage: tuple[DamagedPath, ...], code: int
) -> None:
    assert TagList("cache", (), damage).exit_code == code
    none = Tally()
    assert DiskUsage("cache", none, none, none, none, (), (), damage).exit_code == code


def test_what_no_path_reaches_is_garbage() -> None:
    assert BlobReferences("cache", Digest("sha256", "0" * 64), 4, 0, (), False, ()).is_unreachable
