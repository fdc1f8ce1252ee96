"""gc/plan.py: every decision, without a disk and without a clock."""

import pytest

from kitcache.gc.plan import SWEEP_NS, make_plan, settling_ns, young_since_ns
from kitcache.gc.values import DamagedPath, Refusal, Root
from kitcache.oci.digest import HEX_LENGTHS, Digest
from kitcache.options.sweep import SweepOptions
from kitcache.store.values import Ingest
from tests.unit.gc.surveys import EMPTY, digest

S = 10**9
NOW = 1_700_000_000 * S
HOUR = 3600 * S
ROOT = Root(0, "main", None)


def upload(*ages_ns: int, name: str = "0" * 64) -> Ingest:
    return Ingest(name, tuple(NOW - age for age in ages_ns), 7)


def damage(kind: str = "missing") -> DamagedPath:
    return DamagedPath(ROOT, (), kind, "is missing")


def test_it_names_what_stays_by_algorithm() -> None:
    survey = EMPTY._replace(
        live={digest("a"): 1, digest("b", "sha512"): 2, Digest("blake3", "c"): 3},
        young={digest("d"): 4},
    )
    plan = make_plan(survey, SweepOptions(), NOW)
    assert plan.keep == {
        "sha256": {digest("a").hex, digest("d").hex},
        "sha384": set(),
        "sha512": {digest("b", "sha512").hex},
    }
    assert plan.index_digest == survey.index_digest
    assert plan.refusal is None


def test_an_empty_survey_keeps_nothing_and_knows_every_algorithm() -> None:
    plan = make_plan(EMPTY, SweepOptions(), NOW)
    assert plan.keep == dict.fromkeys(HEX_LENGTHS, frozenset())
    assert (plan.drop_ingests, plan.kept_ingests) == ((), ())


def test_the_same_survey_at_the_same_time_gives_the_same_plan() -> None:
    survey = EMPTY._replace(live={digest("a"): 1}, ingests=(upload(2 * HOUR),))
    assert make_plan(survey, SweepOptions(7), NOW) == make_plan(survey, SweepOptions(7), NOW)


@pytest.mark.parametrize(
    ("min_age_ns", "since_ns"), [(0, None), (1, NOW - 1), (HOUR, NOW - HOUR), (2 * NOW, -NOW)]
)
def test_what_is_too_young_to_go(min_age_ns: int, since_ns: int | None) -> None:
    assert young_since_ns(SweepOptions(min_age_ns), NOW) == since_ns


def test_an_age_spares_what_was_written_since_without_end() -> None:
    """By the date of writing: what a CI restores keeps it, and came today all the same."""
    plan = make_plan(EMPTY._replace(began_ns=NOW - 7), SweepOptions(HOUR), NOW)
    assert plan.is_too_young(NOW - HOUR, 0)
    assert plan.is_too_young(NOW + 10 * HOUR, 0)
    assert not plan.is_too_young(NOW - HOUR - 1, NOW - HOUR)


@pytest.mark.parametrize("policy", [SweepOptions(), SweepOptions(HOUR)])
def test_what_came_since_the_survey_began_is_spared(policy: SweepOptions) -> None:
    """Whatever date it bears: an exporter that knows no lock may have brought it."""
    plan = make_plan(EMPTY._replace(began_ns=NOW - 7), policy, NOW)
    assert not plan.is_too_young(0, NOW - 8)
    assert plan.is_too_young(0, NOW - 7)
    assert plan.is_too_young(0, NOW - 8 + SWEEP_NS)
    assert not plan.is_too_young(0, NOW - 7 + SWEEP_NS)
    assert plan.is_too_young(NOW - 7, 0)


def test_what_is_dated_beyond_the_course_of_a_sweep_is_not_spared_without_an_age() -> None:
    plan = make_plan(EMPTY._replace(began_ns=NOW - 7), SweepOptions(), NOW)
    assert not plan.is_too_young(NOW - 7 + SWEEP_NS, 0)


@pytest.mark.parametrize(
    ("age_ns", "retry_after_s"),
    [(0, 60.0), (S, 59.0), (60 * S - 1, 1e-9), (-1, 60.0), (-60 * S, 60.0)],
)
def test_a_fresh_upload_means_that_an_export_is_under_way(
    age_ns: int, retry_after_s: float
) -> None:
    plan = make_plan(EMPTY._replace(ingests=(upload(age_ns),)), SweepOptions(), NOW)
    assert plan.refusal is not None
    assert (plan.refusal.kind, plan.refusal.damage) == ("busy", ())
    assert plan.refusal.retry_after_s == pytest.approx(retry_after_s)
    assert plan.drop_ingests == ()


@pytest.mark.parametrize("age_ns", [60 * S, HOUR, -60 * S - 1, -HOUR])
def test_an_upload_that_is_a_minute_old_or_more_than_one_ahead_is_no_sign_of_life(
    age_ns: int,
) -> None:
    assert make_plan(EMPTY._replace(ingests=(upload(age_ns),)), SweepOptions(), NOW).refusal is None


def test_one_fresh_write_of_one_upload_is_enough() -> None:
    ingests = (upload(3 * HOUR, name="1" * 64), upload(2 * HOUR, 20 * S, 3 * HOUR), upload(50 * S))
    plan = make_plan(EMPTY._replace(ingests=ingests), SweepOptions(), NOW)
    assert plan.refusal == Refusal("busy", retry_after_s=40.0)


def test_busy_comes_before_damage() -> None:
    survey = EMPTY._replace(ingests=(upload(0),), damage=(damage(),))
    refusal = make_plan(survey, SweepOptions(), NOW).refusal
    assert refusal is not None
    assert refusal.kind == "busy"


@pytest.mark.parametrize(
    ("kind", "refusal"),
    [
        ("missing", "damaged"),
        ("wrong-size", "damaged"),
        ("wrong-digest", "damaged"),
        ("malformed", "damaged"),
        ("unknown-algorithm", "damaged"),
        ("over-cap", "unsafe"),
        ("too-deep", "unsafe"),
    ],
)
def test_any_damage_refuses(kind: str, refusal: str) -> None:
    survey = EMPTY._replace(live={digest("a"): 1}, damage=(damage(kind), damage("wrong-size")))
    planned = make_plan(survey, SweepOptions(), NOW).refusal
    assert planned is not None
    assert (planned.kind, planned.damage) == (refusal, survey.damage)


@pytest.mark.parametrize(
    ("ages_ns", "reason"),
    [
        ((HOUR,), None),
        ((HOUR, 5 * HOUR), None),
        ((HOUR - 1,), "last written 59 min ago"),
        ((5 * HOUR, 2 * 60 * S), "last written 2 min ago"),
        ((-HOUR,), "dated 1 h in the future"),
        ((5 * HOUR, -HOUR), "dated 1 h in the future"),
    ],
)
def test_an_upload_goes_once_its_last_write_is_old(
    ages_ns: tuple[int, ...], reason: str | None
) -> None:
    ingest = upload(*ages_ns)
    plan = make_plan(EMPTY._replace(ingests=(ingest,)), SweepOptions(), NOW)
    if reason is None:
        assert (plan.drop_ingests, plan.kept_ingests) == ((ingest,), ())
    else:
        assert (plan.drop_ingests, plan.kept_ingests) == ((), ((ingest.name, reason),))


@pytest.mark.parametrize("age_ns", [0, 30 * S, 600 * S, -HOUR])
def test_an_upload_that_a_killed_reset_had_begun_to_remove_goes_at_once(age_ns: int) -> None:
    ingest = upload(age_ns)._replace(is_marked=True)
    plan = make_plan(EMPTY._replace(ingests=(ingest,)), SweepOptions(), NOW)
    assert (plan.refusal, plan.drop_ingests) == (None, (ingest,))


def test_the_ingest_age_is_the_policys() -> None:
    survey = EMPTY._replace(ingests=(upload(2 * 60 * S),))
    assert (
        make_plan(survey, SweepOptions(ingest_age_ns=2 * 60 * S), NOW).drop_ingests
        == survey.ingests
    )
    assert make_plan(survey, SweepOptions(ingest_age_ns=2 * 60 * S + 1), NOW).drop_ingests == ()


@pytest.mark.parametrize("age_ns", [0, S, 60 * S - 1])
def test_no_ingest_age_makes_a_fresh_upload_old(age_ns: int) -> None:
    plan = make_plan(EMPTY._replace(ingests=(upload(age_ns),)), SweepOptions(ingest_age_ns=0), NOW)
    assert plan.refusal is not None


@pytest.mark.parametrize(
    ("age_ns", "wait_ns"),
    [
        (0, 5 * S),
        (S, 4 * S),
        (5 * S - 1, 1),
        (5 * S, 0),
        (-S, 5 * S),
        (-60 * S, 5 * S),
        (-61 * S, 0),
        (NOW, 0),
    ],
)
def test_an_export_that_may_be_about_to_publish_is_waited_for(age_ns: int, wait_ns: int) -> None:
    assert settling_ns(NOW - age_ns, NOW) == wait_ns


@pytest.mark.parametrize(("age_ns", "wait_s"), [(0, 60), (59 * S, 1), (-60 * S, 60)])
def test_whatever_is_written_below_ingest_is_an_export(age_ns: int, wait_s: int) -> None:
    """oras uploads to files beside the directories of BuildKit."""
    plan = make_plan(EMPTY._replace(other_writes_ns=(0, NOW - age_ns)), SweepOptions(), NOW)
    assert plan.refusal == Refusal("busy", retry_after_s=wait_s)


def test_what_has_lain_below_ingest_for_a_minute_is_none() -> None:
    plan = make_plan(EMPTY._replace(other_writes_ns=(NOW - 60 * S,)), SweepOptions(), NOW)
    assert plan.refusal is None
