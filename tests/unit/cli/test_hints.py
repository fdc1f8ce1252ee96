"""cli/hints.py: which option follows which advice of the library."""

import ast
import fcntl
import re
from pathlib import Path

import pytest

import kitcache
from kitcache import find_daemon
from kitcache.cli.hints import ALLOW_MORE, COMMANDS, OPTIONS, add_options, make_hints, name_options
from kitcache.errors import Busy, KitcacheError, LimitNotReached
from tests.hostile.build import Sample
from tests.hostile.command import run


def test_every_advice_is_given_by_the_library_and_names_no_option() -> None:
    source = Path(kitcache.__file__).parent
    texts = [
        path.read_text() for path in source.rglob("*.py") if source / "cli" not in path.parents
    ]
    for advice in (*OPTIONS, *COMMANDS, ALLOW_MORE):
        assert any(f'"{advice}"' in text for text in texts), advice
        assert "--" not in advice


def test_messages_of_the_library_name_no_option() -> None:
    """They quote commands of other programs, which have options too."""
    source = Path(kitcache.__file__).parent
    for path in source.rglob("*.py"):
        if source / "cli" in path.parents:
            continue
        text = path.read_text()
        values = [getattr(node, "value", None) for node in ast.walk(ast.parse(text))]
        messages = [value for value in values if isinstance(value, str) and " " in value]
        for message in messages:
            is_docstring = f'"""{message}' in text
            is_of_another = re.search("docker|nerdctl|kubectl|flock", message)
            assert is_docstring or is_of_another or not re.search(" --[a-z]|^--[a-z]", message)


def test_an_advice_gets_its_option_and_others_stay() -> None:
    error = Busy("c", "kitcache.lock is held", hints=("try again", "wait longer"))
    assert make_hints(error) == ("try again", "wait longer: --lock-timeout 5m")


def test_an_advice_gets_the_command_for_the_directory() -> None:
    error = KitcacheError("my cache", "no tag", hints=("list the tags with full digests",))
    assert make_hints(error) == ("list the tags with full digests: kitcache ls 'my cache' --json",)


def test_a_warning_gets_its_options() -> None:
    (warning,) = (sentence for sentence in OPTIONS if sentence.startswith("no output"))
    assert add_options(warning).endswith(": --load, --push or --output also writes it elsewhere")
    assert add_options("another warning") == "another warning"


def test_a_command_quotes_its_words() -> None:
    error = KitcacheError("c", "no", hints=("trim everything that the tags reach",))
    assert make_hints(error) == (
        "trim everything that the tags reach:"
        " kitcache prune c --trim --keep-tag '*' --max-used-space SIZE",
    )


def test_the_origin_of_an_address_names_the_option() -> None:
    with pytest.raises(KitcacheError) as addr:
        find_daemon({}, addr="nosuch")
    with pytest.raises(KitcacheError) as builder:
        find_daemon({}, builder="nosuch")
    assert addr.value.path == "the argument addr"
    assert name_options(addr.value.path) == "--addr"
    assert name_options(builder.value.path) == "--builder"


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
