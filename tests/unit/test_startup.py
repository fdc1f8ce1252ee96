"""An import budget: start-up is part of the product, and every module on the way is listed here.

A child process runs a command on a tiny cache and says which modules were loaded, beyond those of
an interpreter that runs nothing. Lists are edited in the open: a new line is a decision.
"""

import os
from pathlib import Path

import pytest

from tests.hostile.build import Sample
from tests.unit.loading import CHILD, IMPORT_ALONE, NEVER, NEVER_IN_BUILD, loaded, ours

SHARED = {
    "kitcache",
    "kitcache.cli",
    "kitcache.cli.commands",
    "kitcache.cli.main",
    "kitcache.cli.options",
    "kitcache.cli.parser",
    "kitcache.cli.signals",
    "kitcache.cli.console",
    "kitcache.cli.terminal",
    "kitcache.cli.text",
    "kitcache.errors",
    "kitcache.masking",
    "kitcache.gc",
    "kitcache.gc.control",
    "kitcache.gc.refusals",
    "kitcache.gc.leaves",
    "kitcache.gc.survey",
    "kitcache.gc.values",
    "kitcache.oci",
    "kitcache.oci.descriptor",
    "kitcache.oci.digest",
    "kitcache.oci.document",
    "kitcache.oci.index",
    "kitcache.oci.links",
    "kitcache.options",
    "kitcache.options.units",
    "kitcache.store",
    "kitcache.store.files",
    "kitcache.store.index",
    "kitcache.store.ioerrors",
    "kitcache.store.layout",
    "kitcache.store.verified",
    "kitcache.store.locks",
    "kitcache.store.delete",
    "kitcache.store.directory",
    "kitcache.store.open",
    "kitcache.store.protocol",
    "kitcache.store.values",
    "kitcache.store.scan",
}
RESET = {
    "kitcache.cli.commands.reset",
    "kitcache.gc.collect",
    "kitcache.gc.unpublished",
    "kitcache.gc.plan",
    "kitcache.gc.reset",
    "kitcache.gc.sweep",
    "kitcache.options.sweep",
}
COUNTING = RESET - {
    "kitcache.cli.commands.reset",
    "kitcache.gc.collect",
    "kitcache.gc.unpublished",
    "kitcache.gc.reset",
}
ANSWERS = {"kitcache.cli.tables", "kitcache.gc.results"}
UPKEEP = {"kitcache.upkeep", "kitcache.upkeep.results"}
CUTTING = UPKEEP | {
    "kitcache.cli.cachetext",
    "kitcache.upkeep.trimming",
    "kitcache.upkeep.trimming.steporder",
    "kitcache.upkeep.edit",
    "kitcache.upkeep.trimming.trimplan",
    "kitcache.upkeep.project",
    "kitcache.gc.reach",
    "kitcache.gc.lastuse",
    "kitcache.upkeep.rewrite",
    "kitcache.gc.ls",
    "kitcache.oci.cacheconfig",
    "kitcache.oci.cachemanifest",
    "kitcache.store.state",
}
NAMING = UPKEEP | RESET - {"kitcache.cli.commands.reset"} | {"kitcache.upkeep.naming"}
ADDING = NAMING | {
    "kitcache.gc.results",
    "kitcache.gc.reach",
    "kitcache.store.state",
    "kitcache.store.commit",
    "kitcache.upkeep.naming.missing",
    "kitcache.upkeep.naming.tagnames",
    "kitcache.upkeep.naming.stableindex",
}
MERGING = {
    "kitcache.cli.commands.merge",
    "kitcache.upkeep.naming.blobcopy",
    "kitcache.upkeep.naming.common",
    "kitcache.upkeep.naming.merge",
    "kitcache.upkeep.naming.mergeplan",
    "kitcache.upkeep.meter",
    "kitcache.options.renames",
    "kitcache.options.tagpatterns",
    "kitcache.store.write",
    "kitcache.store.create",
    "kitcache.store.fresh",
    "kitcache.store.ingest",
    "kitcache.store.transfer",
}
KITCACHE = {
    "reset": SHARED | RESET,
    "du": SHARED
    | ANSWERS
    | COUNTING
    | {
        "kitcache.cli.commands.du",
        "kitcache.gc.du",
        "kitcache.gc.reach",
        "kitcache.store.state",
    },
    "ls": SHARED
    | ANSWERS
    | {
        "kitcache.cli.commands.ls",
        "kitcache.gc.lastuse",
        "kitcache.gc.reach",
        "kitcache.gc.ls",
        "kitcache.oci.cacheconfig",
        "kitcache.store.state",
    },
    "why": SHARED | ANSWERS | {"kitcache.cli.commands.why", "kitcache.gc.why", "kitcache.gc.reach"},
    "verify": SHARED
    | ANSWERS
    | UPKEEP
    | RESET - {"kitcache.cli.commands.reset"}
    | {
        "kitcache.upkeep.health",
        "kitcache.cli.commands.verify",
        "kitcache.upkeep.health.faults",
        "kitcache.upkeep.health.judge",
        "kitcache.upkeep.health.importrules",
        "kitcache.gc.reach",
        "kitcache.upkeep.health.blobcheck",
        "kitcache.upkeep.health.hash",
        "kitcache.gc.lastuse",
        "kitcache.gc.ls",
        "kitcache.upkeep.health.verify",
        "kitcache.oci.cacheconfig",
        "kitcache.oci.cachemanifest",
        "kitcache.store.hashing",
    },
    "prune": SHARED
    | ANSWERS
    | RESET - {"kitcache.cli.commands.reset"}
    | CUTTING
    | {
        "kitcache.cli.commands.prune",
        "kitcache.upkeep.pruning",
        "kitcache.upkeep.pruning.limits",
        "kitcache.upkeep.pruning.prune",
        "kitcache.upkeep.pruning.decisions",
        "kitcache.upkeep.pruning.lastuse",
        "kitcache.options.prunepolicy",
        "kitcache.options.tagpatterns",
    },
    "trim": SHARED
    | ANSWERS
    | RESET - {"kitcache.cli.commands.reset"}
    | CUTTING
    | {
        "kitcache.cli.commands.trim",
        "kitcache.upkeep.naming",
        "kitcache.upkeep.naming.tagnames",
        "kitcache.upkeep.trimming.trim",
    },
    "tag": SHARED | ADDING | {"kitcache.cli.commands.tag", "kitcache.upkeep.naming.tag"},
    "merge": SHARED | ADDING | MERGING,
    "copy": SHARED
    | ADDING
    | MERGING
    | (CUTTING - {"kitcache.cli.cachetext", "kitcache.upkeep.edit", "kitcache.upkeep.rewrite"})
    | {
        "kitcache.cli.commands.copy",
        "kitcache.gc.lastuse",
        "kitcache.gc.ls",
        "kitcache.gc.reach",
        "kitcache.oci.cacheforms",
        "kitcache.upkeep.copying",
        "kitcache.upkeep.copying.copy",
        "kitcache.upkeep.copying.documents",
        "kitcache.upkeep.copying.threads",
        "kitcache.upkeep.copying.transfer",
        "kitcache.upkeep.publish",
    },
    "untag": SHARED
    | NAMING
    | {
        "kitcache.cli.commands.untag",
        "kitcache.options.tagpatterns",
        "kitcache.upkeep.naming.tagnames",
        "kitcache.upkeep.naming.untag",
        "kitcache.store.commit",
        "kitcache.store.state",
    },
}

EXEC = (
    SHARED
    | RESET - {"kitcache.cli.commands.reset"}
    | {
        "kitcache.cli.commands.exec",
        "kitcache.options.attributes",
        "kitcache.options.caches",
        "kitcache.store.create",
        "kitcache.store.commit",
        "kitcache.store.state",
        "kitcache.upkeep",
        "kitcache.upkeep.jobcaches",
        "kitcache.wrap",
        "kitcache.wrap.argv",
        "kitcache.wrap.cacheflags",
        "kitcache.wrap.child",
        "kitcache.wrap.contexts",
        "kitcache.wrap.flags",
        "kitcache.wrap.run",
        "kitcache.store.stages",
        "kitcache.wrap.task",
        "kitcache.wrap.flagtables",
    }
)
# The words of exec, what they add of ours, and what they may load that is dear.
EXEC_CASES: dict[str, tuple[str, set[str], set[str]]] = {
    "no cache": ("docker build .", set(), set()),
    "in place": (
        "--in-place docker buildx build --cache-from type=local,src=cache"
        " --cache-to type=local,dest=cache,tag=main,reset=true .",
        set(),
        set(),
    ),
    "staged": (
        "docker build --cache-to type=local,dest=cache,tag=main,reset=true .",
        {
            "kitcache.cli.hints",
            "kitcache.store.ingest",
            "kitcache.upkeep.publish",
            "kitcache.store.transfer",
            "kitcache.wrap.staging",
        },
        {"shutil"},
    ),
    "bake": (
        "docker buildx bake",
        {"kitcache.wrap.bake", "kitcache.wrap.query"},
        {"subprocess"},
    ),
    "compose": (
        "docker compose build",
        {"kitcache.wrap.compose", "kitcache.wrap.query"},
        {"subprocess"},
    ),
}

# Top-level names of the standard library; names that begin with an underscore are its own affair.
STANDARD = {
    "argparse",
    "collections",
    "contextlib",
    "copyreg",
    "enum",
    "errno",
    "fcntl",
    "functools",
    "gettext",
    "hashlib",
    "importlib",
    "itertools",
    "json",
    "keyword",
    "locale",
    "math",
    "operator",
    "re",
    "reprlib",
    "signal",
    "threading",
    "types",
    "typing",
    "warnings",
}
MORE = {
    "merge": {"ctypes", "fnmatch", "graphlib", "posixpath", "struct"},
    "copy": {
        *("bisect", "ctypes", "datetime", "fnmatch", "graphlib", "heapq", "posixpath", "queue"),
        "struct",
    },
    "verify": {"datetime", "heapq", "queue"},
    "ls": {"datetime"},
    "prune": {"bisect", "datetime", "fnmatch", "heapq"},
    "trim": {"bisect", "datetime", "heapq"},
}


@pytest.mark.parametrize("command", KITCACHE)
def test_a_command_loads_what_is_listed_here_and_nothing_else(sample: Sample, command: str) -> None:
    words = {
        "why": [min(sample.live)],
        "untag": ["dev"],
        "prune": ["--max-used-space", "1GB"],
        "trim": ["main", "--max-used-space", "1GB"],
        "tag": ["main", "new"],
        "merge": ["all"],
        "copy": ["all"],
    }.get(command, [])
    modules = loaded(CHILD, command, "cache", *words, cwd=sample.box.top)
    assert ours(modules) == KITCACHE[command]
    others = {name.split(".")[0] for name in modules - ours(modules)}
    public = {name for name in others if not name.startswith("_")}
    assert public <= STANDARD | MORE.get(command, set())
    assert modules & NEVER == set()


def test_reset_with_work_to_do_loads_no_more(sample: Sample) -> None:
    """Also with an upload, a foreign file and a missing layer to tell of."""
    sample.box.ingest("left behind")
    (sample.dir / "notes").touch()
    sample.box.damage(sample.layers[0]["digest"], None)
    modules = loaded(CHILD, "reset", "cache", cwd=sample.box.top)
    assert ours(modules) == KITCACHE["reset"]


def test_a_repair_loads_its_own_and_no_client(sample: Sample) -> None:
    """Where something is to be done; else it is a verification."""
    sample.box.damage(min(f"sha256:{name}" for name in sample.garbage), b"bad")
    modules = loaded(CHILD, "verify", "--repair", "cache", cwd=sample.box.top)
    assert ours(modules) - KITCACHE["verify"] == {
        "kitcache.upkeep.trimming",
        "kitcache.upkeep.trimming.steporder",
        "kitcache.upkeep.trimming.trimplan",
        "kitcache.upkeep.health.repairinput",
        "kitcache.upkeep.health.repairplan",
        "kitcache.upkeep.project",
        "kitcache.upkeep.health.repair",
        "kitcache.upkeep.rewrite",
        "kitcache.upkeep.health.indexrecovery",
        "kitcache.store.write",
        "kitcache.store.ingest",
        "kitcache.store.overlay",
        "kitcache.store.quarantine",
        "kitcache.store.state",
        "kitcache.store.transfer",
    }
    assert modules & NEVER == set()


def test_json_costs_its_own_module_and_the_answers(sample: Sample) -> None:
    modules = loaded(CHILD, "reset", "--json", "cache", cwd=sample.box.top)
    assert ours(modules) == KITCACHE["reset"] | {"kitcache.cli.jsonout"}
    assert modules & NEVER == set()


@pytest.mark.parametrize("name", EXEC_CASES)
def test_exec_loads_what_its_command_needs(
    sample: Sample, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands before somebody's build: only what asks a client starts processes of its own."""
    bin_directory = sample.box.top / "bin"
    bin_directory.mkdir()
    (bin_directory / "docker").write_text("#!/bin/sh\necho '{}'\n")
    (bin_directory / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_directory}:{os.environ['PATH']}")
    words, added, dear = EXEC_CASES[name]
    modules = loaded(CHILD, "exec", *words.split(), cwd=sample.box.top)
    assert ours(modules) == EXEC | added
    assert modules & NEVER == dear
    if not dear:
        others = {module.split(".")[0] for module in modules - ours(modules)}
        assert {other for other in others if other[0] != "_"} <= STANDARD | {"encodings"}


def test_a_build_without_a_daemon_loads_nothing_dear(tmp_path: Path) -> None:
    """One with a daemon: tests/integration/test_budget.py."""
    words = ["--addr", f"unix://{tmp_path}/nobody.sock", "."]
    modules = loaded(CHILD, "build", *words, cwd=tmp_path, code=20)
    assert "kitcache.buildkit.session.serve" in modules
    assert modules & NEVER_IN_BUILD == set()


def test_the_package_itself_loads_nothing(tmp_path: Path) -> None:
    modules = loaded(IMPORT_ALONE, cwd=tmp_path)
    assert ours(modules) == {"kitcache"}
    assert modules & NEVER == set()
