"""cli/buildoptions.py: the options of `kitcache build`, and words that are none."""

import argparse
from pathlib import Path

import pytest

from kitcache.cli.buildoptions import ELSEWHERE
from kitcache.cli.parser import parse_words
from kitcache.errors import UsageError
from tests.hostile.command import run


def parse(*words: str) -> argparse.Namespace:
    args = parse_words(["build", *words])
    assert args is not None
    return args


def refuse(*words: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(*words)
    return caught.value.problem


@pytest.mark.parametrize("words", [["-t", "a", "-f", "x", "."], [".", "-ta", "-f=x"]])
def test_short_forms(words: list[str]) -> None:
    args = parse(*words)
    assert (args.tag, args.file, args.context) == (["a"], "x", ".")


def test_a_dash_is_a_value_and_a_context() -> None:
    args = parse("-o", "-", "-f", "-", "-")
    assert (args.output, args.file, args.context) == (["-"], "-", "-")


def test_lists_do_not_grow_from_one_command_line_to_the_next() -> None:
    for _ in range(2):
        assert parse("-t", "a", ".").tag == ["a"]
    assert parse(".").tag == []


def test_switches_may_have_a_value_as_for_docker() -> None:
    args = parse("--pull=true", "--no-cache=false", "--quiet=1", "--load=F", ".")
    assert (args.pull, args.no_cache, args.quiet, args.load) == (True, False, True, False)
    assert refuse("--pull=always", ".") == (
        'invalid argument "always" for "--pull" flag: "always" is neither true nor false'
    )


@pytest.mark.parametrize("word", ELSEWHERE)
@pytest.mark.parametrize("form", ["{}=x", "{} x", "{}"])
def test_an_option_of_buildx_is_named_as_such(word: str, form: str) -> None:
    problem = refuse(*form.format(word).split(), ".")
    assert problem == (
        f"{word} is an option of docker buildx build that kitcache does not have: {ELSEWHERE[word]}"
    )


@pytest.mark.parametrize("form", ["--policy=x", "--policy x", "--policy"])
def test_the_policy_of_buildx_is_refused_as_such(form: str) -> None:
    problem = refuse(*form.split(), ".")
    assert problem.startswith("--policy is docker buildx build's option for Rego source policies")
    assert problem.endswith("write --prune-policy FILE")
    assert parse("--prune-policy", "p.toml", ".").policy == "p.toml"
    assert parse(".").policy is None


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--cach-to", "type=local,dest=x", "."], "--cach-to; did you mean --cache-to?"),
        (["--cache-too=secret", "."], "--cache-too; did you mean --cache-to?"),
        (["--cache-too=secret"], "--cache-too; did you mean --cache-to?"),
        (["-no-cache", "."], "-no-cache; did you mean --no-cache?"),
        (["--anotation", "a=b", "."], "--anotation; did you mean --annotation?"),
        (["--quux", "."], "--quux"),
        (["--tagret", "x", "."], "--tagret; did you mean --target?"),
    ],
)
def test_a_mistyped_option_is_guessed(words: list[str], meant: str) -> None:
    assert refuse(*words) == f"unknown option {meant}"


def test_one_context_and_no_more(tmp_path: Path) -> None:
    assert run(tmp_path, "build").err.splitlines() == [
        "kitcache: CONTEXT is missing: a directory such as . (this one), a URL, or - for stdin",
        "  nothing was built",
        "  hint: kitcache build --help",
    ]
    assert refuse("a", "b", "c") == "2 words too many: 'b', 'c'"
    assert refuse("-q", "a", "-t", "x", "b") == "one word too many: 'b'"
    assert parse("--", "-a").context == "-a"


def test_an_option_without_its_value_is_named() -> None:
    assert refuse(".", "--cache-to") == "argument --cache-to: expected one argument"
    assert refuse("--progress", "loud", ".").startswith("argument --progress: invalid choice: ")


def test_the_help_is_for_narrow_terminals_and_explains_every_option(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert parse_words(["build", "--help"]) is None
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("usage: kitcache build [OPTIONS] CONTEXT\n")
    for group in ("input", "output", "build cache", "daemon"):
        assert f"\n{group}:\n" in text
    for word in ELSEWHERE:
        assert f" {word} " not in text
