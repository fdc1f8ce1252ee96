"""errors.py: codes, sentences, facts; and nothing that a terminal could act on."""

import pickle
from typing import Any

import pytest

from kitcache import errors
from kitcache.errors import (
    BuildFailed,
    Busy,
    Cancelled,
    Damaged,
    Incomplete,
    KitcacheError,
    LimitNotReached,
    NoDaemon,
    NotACache,
    NotConfirmed,
    NotExecutable,
    NotFound,
    NotInstalled,
    SourceLocation,
    Unreadable,
    Unsafe,
    UsageError,
    printable,
)

CODES = {
    "KitcacheError": 1,
    "NotFound": 1,
    "Unreadable": 1,
    "UsageError": 2,
    "Incomplete": 3,
    "NotACache": 10,
    "Busy": 11,
    "Damaged": 12,
    "Unsafe": 13,
    "LimitNotReached": 14,
    "NotConfirmed": 15,
    "NoDaemon": 20,
    "BuildFailed": 21,
    "NotExecutable": 126,
    "NotInstalled": 127,
    "Cancelled": 130,
}

EXAMPLES: dict[str, KitcacheError] = {
    "KitcacheError": KitcacheError("cache", "cannot write index.json: No space left on device"),
    "NotFound": NotFound("cache", "no tag 'x'", effect=errors.NOTHING_CHANGED),
    "UsageError": UsageError("'x' is not an age", hints=("try 1h",)),
    "Incomplete": Incomplete(
        "cache", not_deleted=(("blobs/sha256/aa", "no"),), not_deleted_count=1
    ),
    "NotACache": NotACache("cache", "no such directory"),
    "Busy": Busy("cache", "kitcache.lock is held by process 7", holder_pid=7, holder_command="x"),
    "Damaged": Damaged(
        "cache", "wrong-size", kind="wrong-size", tag="main", chain=("index.json", "sha256:a")
    ),
    "Unreadable": Unreadable("cache", "blob sha256:9c1e", "Input/output error"),
    "Unsafe": Unsafe("cache", "blobs is a symbolic link"),
    "LimitNotReached": LimitNotReached(
        "cache", "the kept tags need 2 kB", limit_bytes=1000, needed_bytes=2000
    ),
    "NotConfirmed": NotConfirmed("cache", "this is the first run"),
    "NoDaemon": NoDaemon("cache", "nobody answers", hints=("start it",)),
    "BuildFailed": BuildFailed(
        "failed to solve: exit code: 3",
        step="RUN make",
        log=("make: no rule",),
        locations=(SourceLocation("Dockerfile", 2, 2, "FROM scratch\nRUN make\n"),),
        step_exit_code=3,
    ),
    "NotExecutable": NotExecutable("./docker", "Permission denied"),
    "NotInstalled": NotInstalled("docker"),
    "Cancelled": Cancelled("cache", deleted_blobs=1234, deleted_bytes=5678),
}


def classes() -> set[type[KitcacheError]]:
    found = {v for name, v in vars(errors).items() if isinstance(v, type) and name[0] != "_"}
    return {value for value in found if issubclass(value, KitcacheError)}


def test_each_class_has_its_code() -> None:
    assert {cls.__name__: cls.exit_code for cls in classes()} == CODES


def test_the_picture_in_the_docstring_is_the_tree() -> None:
    lines = [line for line in (errors.__doc__ or "").splitlines() if line.startswith("    ")]
    drawn = [line.replace("├── ", "").replace("└── ", "").split()[:2] for line in lines]
    assert {name: int(code) for name, code in drawn} == CODES


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_an_error_always_has(name: str) -> None:
    error = EXAMPLES[name]
    assert type(error).__name__ == name
    assert str(error).splitlines()[0].endswith(error.problem)
    assert error.path in ("cache", "")
    assert all(isinstance(v, str | int | float | tuple | None) for v in error.facts.values())
    assert str(error).isascii()


def test_the_sentence_is_what_where_what_was_left_alone_and_what_to_do() -> None:
    error = KitcacheError("./cache", "it broke", details=("a", "b"), hints=("one", "two", "three"))
    assert str(error).splitlines() == [
        "./cache: it broke",
        "  a",
        "  b",
        "  nothing was deleted",
        "  hint: one",
        "  hint: two",
        "  hint: three",
    ]


def test_a_usage_error_is_about_words_not_about_a_directory() -> None:
    assert str(EXAMPLES["UsageError"]) == "'x' is not an age\n  hint: try 1h"


def test_not_a_cache_says_what_was_expected() -> None:
    assert str(NotACache("x", "no such directory")).splitlines() == [
        "x: not a cache: no such directory",
        "  expected: a directory with oci-layout, index.json and blobs/,"
        " as a cache export of type=local writes it",
        "  nothing was changed",
        "  hint: name the directory that an export used as dest",
    ]


@pytest.mark.parametrize(
    ("count", "lines"),
    [
        (1, ["x: 1 file could not be deleted", "  f0: no"]),
        (2, ["x: 2 files could not be deleted", "  f0: no", "  f1: no"]),
        (5, ["x: 5 files could not be deleted", *(f"  f{n}: no" for n in range(5))]),
        (
            1234,
            [
                "x: 1,234 files could not be deleted",
                *(f"  f{n}: no" for n in range(5)),
                "  and 1,229 more",
            ],
        ),
    ],
)
def test_incomplete_names_a_few_and_counts_all(count: int, lines: list[str]) -> None:
    left = tuple((f"f{n}", "no") for n in range(min(count, 100)))
    error = Incomplete("x", not_deleted=left, not_deleted_count=count)
    assert str(error).splitlines()[: len(lines)] == lines
    assert error.facts == {"not_deleted_count": count, "deleted_count": 0}


def test_damage_shows_its_path() -> None:
    error = EXAMPLES["Damaged"]
    assert "  path: index.json > sha256:a" in str(error).splitlines()
    assert error.facts == {"tag": "main", "kind": "wrong-size", "chain": "index.json > sha256:a"}
    bare = Damaged("cache", "index.json is missing", kind="missing")
    assert "path:" not in str(bare)
    assert bare.facts == {"tag": None, "kind": "missing", "chain": None}


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (0, "nothing was deleted"),
        (1, "1 unreachable blob had been deleted; reachable blobs are unchanged"),
        (1234, "1,234 unreachable blobs had been deleted; reachable blobs are unchanged"),
    ],
)
def test_a_stopped_call_says_what_was_done(count: int, says: str) -> None:
    error = Cancelled("cache", deleted_blobs=count, deleted_bytes=7 * count)
    assert error.effect == says
    assert error.facts == {
        "deleted_blobs": count,
        "deleted_bytes": 7 * count,
        "timeout_s": None,
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ümläut, 東京", "plain text, ümläut, 東京"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u200b", "\\u200b"),
        ("\x7f\x9b", "\\x7f\\x9b"),
        ("\udcff", "\\udcff"),
        ("\U000e0041", "\\U000e0041"),
        ("back\\slash", "back\\slash"),
    ],
)
def test_what_a_terminal_could_act_on_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_every_line_of_a_message_is_printable() -> None:
    evil = "\x1b]0;owned\x07\n\u202e"
    error = KitcacheError(evil, evil, details=(evil,), effect=evil, hints=(evil,))
    assert len(str(error).splitlines()) == 4
    assert all(line.isprintable() for line in str(error).splitlines())


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_error_survives_the_way_to_another_process(name: str) -> None:
    error = EXAMPLES[name]
    copy: Any = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.facts) == (type(error), str(error), error.facts)


def test_a_subclass_of_a_user_keeps_its_constructor() -> None:
    class Full(KitcacheError):
        disk: str

        def __init__(self, disk: str) -> None:
            super().__init__("cache", f"{disk} is full", effect="the build goes on")
            self.disk = disk

    error = Full("sda")
    assert (str(error), error.disk) == ("cache: sda is full\n  the build goes on", "sda")


def test_a_class_holds_defaults_and_no_declarations() -> None:
    assert not hasattr(KitcacheError, "path")
    for cls in classes():
        values = [getattr(cls, name, None) for name in cls._declared]
        assert not [value for value in values if isinstance(value, errors._Field)], cls


def test_a_missing_argument_is_reported_with_the_class() -> None:
    with pytest.raises(TypeError, match=r"Busy\.__init__\(\) missing 1 required"):
        Busy("cache")  # type: ignore[call-arg]
