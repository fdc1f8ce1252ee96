"""What may fail: a cache, a command, and what the command is told to do to the tags.

Nothing of kitcache is used: what may go is written here by hand.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.hostile import stages
from tests.hostile.build import Box, Json
from tests.hostile.importable import add_cache, grow, layer
from tests.property.disk import settle

DAY_S = 86_400


class Scene(NamedTuple):
    """make: builds box/cache, and what lies beside it. argv: `{}` in it stands for the box.

    gone: tags that go. new: tags that come, or that get another root. may_skip_sweep: the tags
    come first, so the exit code is 0 although no sweep followed. seconds: for how long it waits.
    """

    make: Callable[[Path], Box]
    argv: tuple[str, ...]
    gone: frozenset[str] = frozenset()
    new: frozenset[str] = frozenset()
    may_skip_sweep: bool = False
    seconds: int = 0


def sound(top: Path) -> Box:
    """Two caches that share layers, one of them with an index for a root, an image, and garbage."""
    box = Box(top)
    grow(box, "main", 3)
    grow(box, "dev", 4, as_index=True)
    config = box.document({"os": "linux"}, "application/vnd.oci.image.config.v1+json")
    box.tag("image", box.manifest([layer(box, "0")], config))
    for n in range(3):
        box.blob(b"garbage %d" % n)
    box.ingest("left behind")
    settle(box.dir)
    return box


def two(top: Path) -> Box:
    """The same, and another cache beside it."""
    box = sound(top)
    (top / "elsewhere").mkdir()
    other = Box(top / "elsewhere")
    add_cache(other, "other", [layer(other, "0"), layer(other, "other")])
    grow(other, "more", 2)
    settle(other.dir)
    (other.dir).rename(top / "copy")
    return box


def aged(top: Path) -> Box:
    """Tags by their ages: what made `main` is older than what made `dev`, the image is new.

    `pinned` has the oldest cacheconfig, and was imported a moment ago.
    """
    cache = stages.make_stages(top)
    box = cache.box
    box.tag("pinned", stages.put_cache(box, (("pinned", 0, ()),)))
    note_use(box, "pinned")
    settle(box.dir)
    return box


def note_use(box: Box, tag: str, digest: str | None = None) -> None:
    """As kitcache notes what happens now: an export with that digest, or an import."""
    now_ns = time.time_ns()
    note = {"exported_ns": now_ns if digest else None, "imported_ns": now_ns, "digest": digest}
    (box.dir / ".kitcache").mkdir(exist_ok=True)
    document = {"schema": "kitcache.tags/1", "tags": {tag: note}}
    (box.dir / ".kitcache" / "tags.json").write_text(json.dumps(document))


def broken(top: Path) -> Box:
    """Whole tags, one with a bad layer, one without its manifest; a copy that has both."""
    box = Box(top)
    grow(box, "whole", 3)
    add_cache(box, "index", [layer(box, "0"), layer(box, "index")], as_index=True)
    cut = add_cache(box, "cut", [layer(box, "0"), layer(box, "cut 1"), layer(box, "cut 2")])
    lost = add_cache(box, "lost", [layer(box, "lost")])
    settle(box.dir)
    shutil.copytree(box.dir, top / "copy")
    box.damage(cut.layers[2]["digest"], b"other bytes")
    box.damage(lost.root["digest"], b"{}")
    box.damage(box.blob(b"garbage")["digest"], b"other garbage")
    return box


def torn(top: Path) -> Box:
    """Half of an index.json that named whole tags."""
    box = sound(top)
    box.write_index((box.dir / "index.json").read_bytes()[:-40])
    return box


def lost(top: Path) -> Box:
    """No index.json, and a note of what one of the tags was."""
    box = sound(top)
    note_use(box, "main", box.entries[0]["digest"])
    (box.dir / "index.json").unlink()
    return box


def fresh(top: Path) -> Box:
    """The sound cache as an export has just left it: all of it is young."""
    box = sound(top)
    young = box.manifest([box.blob(b"a young layer")])
    for digest in (young["digest"], *_layers(box, young)):
        os.utime(box.path_of(digest))
    return box


def _layers(box: Box, root: Json) -> list[str]:
    listed = json.loads(box.path_of(root["digest"]).read_bytes())["layers"]
    return [one["digest"] for one in listed]


CACHE, COPY = "{}/cache", "{}/copy"
BUILD = ("docker", "buildx", "build", f"--cache-to=type=local,dest={CACHE},tag=new,reset=true", ".")


def tags(*names: str) -> frozenset[str]:
    return frozenset(names)


SCENES = {
    "reset": Scene(sound, ("reset", CACHE)),
    "reset of what is old": Scene(fresh, ("reset", "--min-age", "1h", CACHE)),
    "prune": Scene(
        aged, ("prune", "--max-used-space", "35kB", "--keep-tag", "image", CACHE), gone=tags("main")
    ),
    "prune by age": Scene(aged, ("prune", "--unused-for", "1d", CACHE), gone=tags("main", "dev")),
    "prune --trim": Scene(
        aged,
        ("prune", "--max-used-space", "25kB", "--trim", "--keep-tag", "*", CACHE),
        new=tags("main", "dev"),
    ),
    "trim": Scene(aged, ("trim", CACHE, "main", "--max-used-space", "21kB"), new=tags("main")),
    "untag": Scene(sound, ("untag", CACHE, "dev"), gone=tags("dev")),
    "tag": Scene(aged, ("tag", CACHE, "pinned", "new"), new=tags("new")),
    "tag that moves": Scene(
        sound,
        ("tag", CACHE, "main", "dev"),
        new=tags("dev"),
    ),
    "merge": Scene(two, ("merge", COPY, CACHE), new=tags("other", "more")),
    "merge into a new one": Scene(
        two,
        ("merge", COPY, "{}/made"),
        new=tags("other", "more"),
    ),
    "verify --repair of a sound one": Scene(
        sound,
        ("verify", "--repair", CACHE),
    ),
    "verify --repair": Scene(
        broken,
        ("verify", "--repair", CACHE),
        gone=tags("lost"),
        new=tags("cut"),
    ),
    "verify --repair --from": Scene(
        broken,
        ("verify", "--repair", "--from", COPY, CACHE),
    ),
    "verify --repair of a torn index": Scene(
        torn,
        ("verify", "--repair", CACHE),
        seconds=1,
    ),
    "verify --repair of a lost index": Scene(
        lost,
        ("verify", "--repair", CACHE),
    ),
    "exec": Scene(sound, ("exec", "--", *BUILD), new=tags("new"), may_skip_sweep=True),
    "exec --in-place": Scene(
        sound, ("exec", "--in-place", "--", *BUILD), new=tags("new"), may_skip_sweep=True
    ),
    "export": Scene(sound, ("export", CACHE, "new", "1"), new=tags("new"), may_skip_sweep=True),
}
