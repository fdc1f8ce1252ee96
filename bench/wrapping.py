"""Rows: the time that `kitcache exec --` adds to a build with nothing to do."""

import os
from pathlib import Path

from bench.clock import ENVIRONMENT, Side, alternate_runs
from bench.place import Place, discard, kitcache, tool
from bench.table import Row, value_row

_GOAL_MS = 100.0


def wrap_rows(place: Place) -> list[Row]:
    daemon = place.daemon.get()
    daemon.prune()
    context = place.fresh(place.tmpfs, "context")
    cache = place.fresh(place.tmpfs, "cache")
    os.mkdir(context)
    lines = [f"FROM {daemon.base_image()}", *["RUN true"] * 4]
    Path(context, "Dockerfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    environment = {k: v for k, v in daemon.env.items() if k in ENVIRONMENT or "DOCKER" in k}
    export = f"type=local,dest={cache},mode=max"
    fixed = ["buildx", "build", "--network=none", "--output=type=cacheonly"]
    words = [tool("docker"), *fixed, "--cache-to", export, context]
    sides = [
        Side("bare", lambda: words, environment=environment),
        Side("wrapped", lambda: [*kitcache("exec", "--in-place", "--"), *words],
             environment=environment),
        Side("staged", lambda: [*kitcache("exec", "--"), *words], environment=environment),
    ]  # fmt: skip
    alternate_runs(sides, rounds=1)
    bare, wrapped, staged = alternate_runs(sides, rounds=place.sizes.noop_rounds)
    daemon.prune()
    discard([context, cache])
    return [
        value_row(f"what kitcache exec{what} adds to a no-op build",
                  [1000 * (ours.seconds - theirs.seconds)
                   for ours, theirs in zip(runs, bare, strict=True)], "ms", _GOAL_MS)
        for what, runs in ((" --in-place", wrapped), ("", staged))
    ]  # fmt: skip
