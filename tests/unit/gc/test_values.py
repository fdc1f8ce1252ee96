"""gc/values.py: sums, labels and exit codes that follow from the fields."""

import hashlib

import pytest

from kitcache.gc.values import ResetResult, Root, Tally, key_of
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.digest import Digest
from tests.unit.gc.surveys import EMPTY

DIGEST = Digest("sha256", hashlib.sha256(b"blob").hexdigest())
DESCRIPTOR = Descriptor("type", DIGEST, 4)


def report(left_count: int = 0) -> ResetResult:
    none = Tally()
    return ResetResult(
        "cache", "done", 0, none, none, none, none, (), (), left_count, (), 0, (), 0.1
    )


def test_tallies_add_up() -> None:
    assert Tally(1, 10).plus(Tally(2, 20)) == Tally(3, 30)
    assert Tally() == Tally(0, 0)


@pytest.mark.parametrize(
    ("root", "label"),
    [
        (Root(0, "main", DESCRIPTOR), "tag 'main'"),
        (Root(0, "", None), "tag ''"),
        (Root(3, None, DESCRIPTOR), f"entry 3 (sha256:{DIGEST.hex[:12]})"),
        (Root(3, None, None), "entry 3"),
    ],
)
def test_a_root_in_words(root: Root, label: str) -> None:
    assert root.label == label


def test_a_lie_about_the_size_or_the_type_is_a_node_of_its_own() -> None:
    keys = {
        key_of(DESCRIPTOR),
        key_of(DESCRIPTOR._replace(size=5)),
        key_of(DESCRIPTOR._replace(media_type="")),
        key_of(DESCRIPTOR._replace(ref_name="main", platform="linux")),
    }
    assert len(keys) == 3


def test_a_survey_weighs_what_lives() -> None:
    live = {DIGEST: 4, Digest("sha256", "0" * 64): 6}
    survey = EMPTY._replace(live=live, young={DIGEST: 4})
    assert survey.live_tally == Tally(2, 10)


@pytest.mark.parametrize(("left_count", "code"), [(0, 0), (1, 3), (10**6, 3)])
def test_what_could_not_be_removed_makes_the_exit_code(left_count: int, code: int) -> None:
    assert report(left_count).exit_code == code
