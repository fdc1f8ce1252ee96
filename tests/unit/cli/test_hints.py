"""cli/hints.py: which option follows which advice of the library."""

import fcntl
from pathlib import Path

import kitcache
from kitcache.cli.hints import ALLOW_MORE, OPTIONS, make_hints
from kitcache.errors import Busy, KitcacheError, LimitNotReached
from tests.hostile.build import Sample
from tests.hostile.command import run


def test_every_advice_is_given_by_the_library_and_names_no_option() -> None:
    source = Path(kitcache.__file__).parent
    texts = [
        path.read_text() for path in source.rglob("*.py") if source / "cli" not in path.parents
    ]
    for advice in (*OPTIONS, ALLOW_MORE):
        assert any(f'"{advice}"' in text for text in texts), advice
        assert "--" not in advice


def test_an_advice_gets_its_option_and_others_stay() -> None:
    error = Busy("c", "kitcache.lock is held", hints=("try again", "wait longer"))
    assert make_hints(error) == ("try again", "wait longer: --lock-timeout 5m")


def test_a_limit_is_named_in_bytes() -> None:
    error = LimitNotReached("c", "no", limit_bytes=1, needed_bytes=5663, hints=(ALLOW_MORE,))
    assert make_hints(error) == ("allow that much: --max-used-space 5663B",)


def test_the_store_of_a_daemon_is_docker_s_to_prune() -> None:
    (hint,) = make_hints(KitcacheError("/var/lib/docker/overlay2", "Permission denied"))
    assert hint.startswith("docker buildx prune")
    assert make_hints(KitcacheError("/var/lib/docker/volumes/v", "Permission denied")) == ()


def test_a_lock_that_is_held(sample: Sample) -> None:
    with (sample.dir / "kitcache.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        answer = run(sample.box.top, "reset", "--lock-timeout", "0", "cache")
    assert answer.code == 11
    assert answer.err.splitlines()[-2:] == [
        "  hint: try again when it has ended",
        "  hint: wait longer: --lock-timeout 5m",
    ]
