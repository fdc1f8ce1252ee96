"""The law of commands of which one call fails, and the checker of it. Nothing of kitcache is used.

After any one failure each tag is what it was, or what the command was told to make of it. Each that
was whole is whole. Where the exit code is 0, all is done. A second run of the command, in which
nothing fails, ends where one run would have.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.hostile import faulty
from tests.hostile.fault_scenes import Scene
from tests.hostile.faulty import Ended, Fault, Server
from tests.property import witness
from tests.property.disk import REF_NAME, blobs, settle

Tags = Mapping[str, str]


class State(NamedTuple):
    """What is in a cache. tags: the digest of each, None where index.json cannot be read.

    holes: tags of which a blob is missing or wrong.
    """

    tags: Tags | None
    holes: frozenset[str]
    blobs: frozenset[str]


NOTHING = State(None, frozenset(), frozenset())


def see(root: Path) -> State:
    """What is in a cache now."""
    try:
        entries = witness.entries(root)
    except (FileNotFoundError, json.JSONDecodeError):
        return State(None, frozenset(), blobs(root))
    tags = {entry["annotations"][REF_NAME]: entry["digest"] for entry in entries}
    return State(
        tags,
        frozenset(str(hole.ref_name) for hole in witness.holes(root)),
        blobs(root),
    )


def see_all(box: Path) -> dict[str, State]:
    """The caches of a box, by the names of their directories."""
    return {name: see(box / name) for name in ("cache", "copy", "made") if (box / name).exists()}


class Stage:
    """A scene, its box as it was built, and what one run in which nothing fails makes of it."""

    def __init__(self, server: Server, scene: Scene, top: Path) -> None:
        self._server = server
        self._scene = scene
        self._template = top / "template"
        self.box = top / "box"
        self._template.mkdir()
        self._entries = scene.make(self._template).entries
        self.argv = [word.format(self.box) for word in scene.argv]
        self.build()
        self.before = see_all(self.box)
        self._roots = [e for e in self._entries if not self._holes_below(e)]
        self.done = self.ended = server.run(self.argv, self.box)
        self.clean = see_all(self.box)

    def build(self) -> None:
        """The box once more, as the scene has it."""
        shutil.rmtree(self.box, ignore_errors=True)
        shutil.copytree(self._template, self.box)

    def _holes_below(self, entry: dict[str, object]) -> tuple[witness.Hole, ...]:
        return witness.look_below(self.box / "cache", entry).holes

    @property
    def faults(self) -> list[Fault]:
        """All that can fail in it."""
        return faulty.faults_of(self.done.calls)

    def run(self, fault: Fault) -> Ended:
        """The command, with that fault, on the box as it was built; it stays in `ended`."""
        self.build()
        self.ended = self._server.run(self.argv, self.box, fault)
        return self.ended

    def complaints(self, fault: Fault) -> Iterator[str]:
        """Every way in which a run with that fault broke the law, a line each."""
        ended = self.run(fault)
        now = see_all(self.box)
        yield from (f"{line} (exit code {ended.code})" for line in self._against(now))
        if ended.code == 0 and not self._is_done(now, fault):
            yield f"exit code 0, and not all is done: {_differences(now, self.clean)}"
        is_bug = "Traceback" in ended.said or "bug in kitcache" in ended.said
        if ended.code < 0 or is_bug:
            yield f"exit code {ended.code}: {ended.said}"
        if ended.code and not ended.said:
            yield f"exit code {ended.code}, without a word"
        yield from self._again(now)

    def _is_done(self, now: Mapping[str, State], fault: Fault) -> bool:
        # Then the garbage of the last two seconds stays, and a scene's is no older.
        cannot_date = fault.call.kind in ("utime", "fstat") and "kitcache.lock" in fault.call.name
        if not (self._scene.may_skip_sweep or cannot_date):
            return now == self.clean
        return {name: state[:2] for name, state in now.items()} == {
            name: state[:2] for name, state in self.clean.items()
        }

    def _against(self, now: Mapping[str, State]) -> Iterator[str]:
        for name, after in now.items():
            before, clean = self.before.get(name, NOTHING), self.clean.get(name, NOTHING)
            if before.tags is None and after.tags in (None, {}, clean.tags):
                continue
            was, is_now, would_be = before.tags or {}, after.tags or {}, clean.tags or {}
            for tag in sorted({*was, *is_now}):
                if is_now.get(tag) not in (was.get(tag), would_be.get(tag)):
                    yield f"{name}: {tag} was {was.get(tag)}, is {is_now.get(tag)}"
            for tag in sorted(after.holes & is_now.keys()):
                if is_now[tag] != was.get(tag) or tag not in before.holes:
                    yield f"{name}: {tag} has a hole"
        for entry in self._roots:
            tag = entry["annotations"][REF_NAME]
            if tag not in self._scene.gone | self._scene.new and self._holes_below(entry):
                yield f"cache: what was tagged {tag} has lost a blob"

    def _again(self, first: Mapping[str, State]) -> Iterator[str]:
        for root in self.box.iterdir():
            if (root / "index.json").exists():
                settle(root)
        ended = self._server.run(self.argv, self.box)
        now = see_all(self.box)
        tags = {name: state.tags for name, state in now.items()}
        if ended.code and not self._is_over(first):
            yield f"the second run: exit code {ended.code}: {ended.said}"
        if tags != {name: state.tags for name, state in self.clean.items()}:
            yield f"the second run: {_differences(now, self.clean)}"

    def _is_over(self, first: Mapping[str, State]) -> bool:
        """A tag that is gone cannot be taken out once more."""
        return self._scene.argv[0] == "untag" and first == self.clean


def _differences(now: Mapping[str, State], clean: Mapping[str, State]) -> str:
    return "; ".join(
        f"{name}: {field}: {getattr(now.get(name, NOTHING), field)}"
        f" for {getattr(clean.get(name, NOTHING), field)}"
        for name in sorted({*now, *clean})
        for field in State._fields
        if getattr(now.get(name, NOTHING), field) != getattr(clean.get(name, NOTHING), field)
    )
