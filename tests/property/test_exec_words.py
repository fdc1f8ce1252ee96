"""Law: of a command line nothing changes but `reset` in the exports, whatever else it holds."""

from itertools import pairwise
from typing import NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st

from kitcache.errors import UsageError
from kitcache.options.attributes import Pairs, parse_attributes
from kitcache.options.caches import parse_cache_export
from kitcache.wrap.argv import direct_job, recognize
from kitcache.wrap.cacheflags import raw_fields, read_cache, rewrite_export
from kitcache.wrap.flags import FlagTable, read_line
from kitcache.wrap.flagtables import BUILD, BUILDCTL_BUILD

TEXT = st.text(st.characters(codec="utf-8", exclude_characters='"\r\n'), max_size=8)
EVIL = st.sampled_from(
    ["--cache-to", "--cache-to=type=local,dest=x,reset=true", "--", "-", "build", "-f", ""]
)
VALUE = EVIL | TEXT
# The name of a directory; one with a NUL is refused.
# With one of these a command builds nothing, so it has no exports.
HELP = {"call", "check", "help", "print"}
NAME = TEXT.filter(lambda text: text and "\0" not in text)


class Words(NamedTuple):
    """Some words, the exports in them, and the same words after `reset` was taken out."""

    given: tuple[str, ...]
    exports: tuple[str, ...]
    wanted: tuple[str, ...]


def quoted(draw: st.DrawFn, field: str) -> str:
    must = any(c in field for c in ',"')
    return '"' + field.replace('"', '""') + '"' if must or draw(st.booleans()) else field


@st.composite
def exports(draw: st.DrawFn) -> tuple[str, str, str]:
    """The text of a local export, the same without `reset`, and its dest."""
    dest = draw(NAME | st.just('a,"b"'))
    fields = [(f"{draw(st.sampled_from(('dest', 'DEST')))}={dest}", False), ("Type=local", False)]
    fields += [(f"tag={draw(TEXT.filter(bool))}", False)] * draw(st.booleans())
    fields += [("mode=max", False)] * draw(st.booleans())
    for _ in range(draw(st.integers(0, 2))):
        word = draw(st.sampled_from(("reset", "RESET", "Reset")))
        fields.append((f"{word}={draw(st.sampled_from(('true', '0', 'T')))}", True))
    written = [(quoted(draw, text), is_reset) for text, is_reset in draw(st.permutations(fields))]
    whole = ",".join(text for text, _ in written)
    return whole, ",".join(text for text, is_reset in written if not is_reset), dest


@st.composite
def options(draw: st.DrawFn, table: FlagTable, name: str) -> Words:
    """One option, in one of the forms that the client's parser knows."""
    if draw(st.integers(0, 2)) == 0:
        text, rest, _ = draw(exports())
        prefix = draw(st.sampled_from(("--", "-") if table.is_go else ("--",))) + name
        if draw(st.booleans()):
            return Words((f"{prefix}={text}",), (text,), (f"{prefix}={rest}",))
        return Words((prefix, text), (text,), (prefix, rest))
    value = draw(VALUE)
    others = sorted(table.values - HELP - {name, "cache-from", "import-cache"})
    long = draw(st.sampled_from(others))
    letter = draw(st.sampled_from(table.short_values))
    flag = draw(st.sampled_from(sorted(table.flags - HELP)))
    group = (
        ""
        if table.is_go
        else "".join(
            draw(st.lists(st.sampled_from(table.short_flags.replace("h", "")), max_size=2))
        )
    )
    forms = [(f"--{long}={value}",), (f"--{long}", value), (f"--{flag}",), (f"--{flag}=true",)]
    forms += [(f"-{group}{letter}", value), (f"-{group}{letter}={value}",)]
    words = draw(st.sampled_from(forms))
    return Words(words, (), words)


def joined(parts: list[Words]) -> Words:
    return Words(*(tuple(word for part in parts for word in part[n]) for n in range(3)))


@st.composite
def lines(draw: st.DrawFn) -> Words:
    """A command of docker or buildctl."""
    is_docker = draw(st.booleans())
    table, name = (BUILD, "cache-to") if is_docker else (BUILDCTL_BUILD, "export-cache")
    heads = [
        ("docker", "build"),
        ("docker", "-D", "--context", "build", "-Hbuild", "buildx", "--builder=b", "b"),
        ("/usr/bin/docker", "--tls=true", "-lc", "image", "build"),
        ("docker-buildx", "--builder", "build", "build"),
    ]
    head = draw(st.sampled_from(heads if is_docker else [("buildctl", "--addr", "build", "build")]))
    parts = [Words(head, (), head), *draw(st.lists(options(table, name), max_size=6))]
    if is_docker:  # behind "--" nothing is an option
        tail = draw(st.sampled_from([(".",), ("--", "--cache-to=type=local,dest=x,reset=1"), ()]))
        parts.append(Words(tail, (), tail))
    return joined(parts)


@given(lines())
def test_nothing_changes_but_reset(line: Words) -> None:
    job = direct_job(recognize(line.given))
    assert job.exports == line.exports
    assert job.imports == ()
    assert job.rewrite(job.exports).argv == line.given
    assert job.rewrite([rewrite_export(text) for text in job.exports]).argv == line.wanted


@given(exports(), NAME)
def test_an_export_keeps_all_else_as_it_was_written(
    export: tuple[str, str, str], other: str
) -> None:
    whole, rest, dest = export
    assert ",".join(raw_fields(whole)) == whole
    assert rewrite_export(whole) == rest
    before = parse_cache_export(whole)
    after = parse_cache_export(rewrite_export(rest, other))
    assert (before.dest, after.dest) == (dest, other)
    assert after == before._replace(dest=other, reset=False, warnings=after.warnings)


@given(st.lists(st.tuples(st.sampled_from(("type", "ref", "reset")), TEXT), min_size=1, max_size=4))
def test_what_is_not_local_is_nobodys_business(pairs: list[tuple[str, str]]) -> None:
    kept: Pairs = (*((k, v.replace(",", "")) for k, v in pairs), ("type", "registry"))
    text = ",".join(f"{k}={v}" for k, v in kept)
    assert parse_attributes(text) == kept
    assert read_cache(text)[0] != "local"


@given(st.lists(VALUE | st.sampled_from(["--unknown", "-xyz", "-q", "--tag", "-t"]), max_size=8))
@example(["--cache-to", "--cache-to", "-0", "--cache-to"])
@example(["-", "--0", "--"])
def test_every_word_is_an_option_a_value_an_argument_or_a_refusal(words: list[str]) -> None:
    try:
        line = read_line(words, 0, BUILD, watched=("cache-to",))
    except UsageError:
        # Of an option in no table nobody can say whether the next word is its value.
        assert any(
            first.startswith("-")
            and first.lstrip("-") not in BUILD.values | BUILD.flags
            and (second == "--" or second.lstrip("-").partition("=")[0] == "cache-to")
            for first, second in pairwise(words)
        )
        return
    taken = [n for option in line.options for n in range(option.first, option.at + 1)]
    assert len(taken + list(line.positionals)) == len({*taken, *line.positionals})
    assert line.end == len(words)
    for option in line.options:
        if option.value is not None:
            assert words[option.at] == option.prefix + option.value
