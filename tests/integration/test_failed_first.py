"""A first build that failed leaves nothing over which a nightly reset or a later build stumbles."""

from pathlib import Path

from . import witness
from .daemon import Daemon, cache_to
from .kit import kitcache


def test_what_a_first_build_that_failed_leaves(daemon: Daemon, tmp_path: Path) -> None:
    cache, context = tmp_path / "cache", tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY nowhere /\n")
    option = f"--cache-to={cache_to(cache, tag='main', mode='max')}"
    command = daemon.build_command(context, "--output=type=cacheonly", option)
    assert daemon.docker(*command).code != 0
    cache.mkdir(exist_ok=True)
    # As a client leaves it that is killed while it tries fs-verity.
    (cache / ".fsverity-check-1").mkdir()
    answer = kitcache("reset", cache)
    assert (answer.code, "no export was published here yet" in answer.out) == (0, True), answer
    (context / "nowhere").write_text("there")
    assert daemon.docker(*command).code == 0
    assert kitcache("reset", cache).code == 0
    assert not witness.look(cache).missing
