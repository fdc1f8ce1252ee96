"""Policy files: TOML, with the names of the command line's options as keys.

Above the first [[rule]] they speak of all tags; in one, of the tags that it names.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from itertools import accumulate
from operator import itemgetter
from typing import Any, NamedTuple

from kitcache.errors import UsageError
from kitcache.options.attributes import quote_go, suggest
from kitcache.options.prunepolicy import (
    DiskSpace,
    PrunePolicy,
    PruneRule,
    find_contradictions,
    name_rule,
    parse_amount,
    parse_span,
)
from kitcache.options.tomllines import Path, find_lines, line_of

_Reader = Callable[[Any], Any]
_MOST_TAGS = 10**9
_KEY = r"""(?:[\w-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
# tomllib takes half a minute for a key that fills the file, and names no line for such a number.
_REFUSED = (
    (
        re.compile(rf"(?:^|[\[{{,])[ \t]*(?:{_KEY}[ \t]*\.[ \t]*){{100}}", re.MULTILINE),
        "a key has more than 100 parts",
    ),
    (re.compile(r"\d[\d_]{600}", re.ASCII), "a number is too long"),
)


class _Problem(NamedTuple):
    """What is wrong with what is at that path."""

    path: Path
    text: str


def read_policy(text: str, name: str) -> PrunePolicy:
    """The policy that a file of that name holds; it does not contradict itself.

    Raises UsageError, which names the file, and lines and keys of all that is wrong.
    """
    _refuse_costly(text, name)
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not_toml(text, name, error) from None
    top, problems = _read_table(document, _TOP_KEYS, (), "")
    rules = []
    for place, table in enumerate(top.get("rule", ())):
        rule, found = _read_rule(table, place)
        rules.append(rule)
        problems += found
    common = PruneRule(
        keep_last=top.get("keep-last"),
        keep_within_ns=top.get("keep-within"),
        unused_for_ns=top.get("unused-for"),
    )
    policy = PrunePolicy(
        keep_tags=top.get("keep-tag", ()),
        drop_tags=top.get("drop-tag", ()),
        rules=(*rules, common),
        max_used=top.get("max-used-space"),
        min_free=top.get("min-free-space"),
        allow_empty=top.get("allow-empty", False),
        trim=top.get("trim", False),
        source=name,
    )
    problems += _contradictions(policy, problems)
    if problems:
        raise _wrong(text, name, problems)
    return policy


def _refuse_costly(text: str, name: str) -> None:
    for costly, problem in _REFUSED:
        if found := costly.search(text):
            raise UsageError(f"line {_line_at(text, found.end())}: {problem}", path=name)


def _contradictions(policy: PrunePolicy, problems: list[_Problem]) -> list[_Problem]:
    """What contradicts itself, but for what may be so only since something could not be read."""
    unread = {problem.path[:-1] for problem in problems}
    found = []
    for rule, key, text in find_contradictions(policy):
        is_top = rule is None or policy.rules[rule].is_common
        table: Path = () if is_top else ("rule", rule or 0)
        if table not in unread or key not in ("tags", "trim"):
            found.append(_Problem((*table, key), text))
    return found


def _read_rule(table: dict[str, Any], place: int) -> tuple[PruneRule, list[_Problem]]:
    path = ("rule", place)
    try:
        name = name_rule(place + 1, _globs(table.get("tags", [])))
    except ValueError:
        name = name_rule(place + 1, ())
    values, problems = _read_table(table, _RULE_KEYS, path, f"{name}: ")
    if "tags" not in table:
        text = f'{name} has no tags: add a line such as tags = "pr-*"'
        problems.append(_Problem((*path, "tags"), text))
    rule = PruneRule(
        name,
        values.get("tags", ()),
        values.get("keep", False),
        values.get("keep-last"),
        values.get("keep-within"),
        values.get("unused-for"),
    )
    return rule, problems


def _read_table(
    table: dict[str, Any], readers: Mapping[str, _Reader], path: Path, where: str
) -> tuple[dict[str, Any], list[_Problem]]:
    """The values that could be read, by key, and what is wrong with the others."""
    values: dict[str, Any] = {}
    problems = []
    for key, value in table.items():
        try:
            if key in readers:
                values[key] = readers[key](value)
            else:
                problems.append(_Problem((*path, key), where + _unknown(key, readers)))
        except ValueError as error:
            problems.append(_Problem((*path, key), f"{where}{key}: {error}"))
    return values, problems


def _unknown(key: str, known: Mapping[str, _Reader]) -> str:
    if key in _TOP_KEYS:
        return f"{key} is for the whole policy: it belongs above the first [[rule]]"
    if key in _RULE_KEYS:
        return f"{key} is for some tags: it belongs in a [[rule]]"
    meant = suggest(key, known)
    hint = f"did you mean {meant}?" if meant else f"known: {', '.join(known)}"
    return f"unknown key {quote_go(key[:40])}; {hint}"


def _globs(value: Any) -> tuple[str, ...]:
    globs = [value] if isinstance(value, str) else value
    if not isinstance(globs, list) or not all(isinstance(glob, str) for glob in globs):
        raise _mistyped(value, 'a pattern such as "pr-*", or a list of patterns')
    return tuple(globs)


def _age_ns(value: Any) -> int:
    # A bare number would be seconds, and is hardly meant to be.
    if not isinstance(value, str):
        raise _mistyped(value, 'an age in quotes, such as "30d"')
    return parse_span(value)


def _amount(value: Any) -> DiskSpace:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise _mistyped(value, 'a size such as "5GB", or a part of the disk such as "10%"')
    if isinstance(value, int) and value.bit_length() > 63:
        raise ValueError("is more than any disk has")
    return parse_amount(str(value))


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _mistyped(value, "a number such as 5, without quotes")
    if value < 0:
        raise ValueError("is no number of tags")
    if value >= _MOST_TAGS:
        raise ValueError("is more tags than any cache has")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _mistyped(value, "true or false, without quotes")
    return value


def _tables(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        raise ValueError("each rule begins with [[rule]], in two brackets")
    if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
        raise _mistyped(value, "tables, each under [[rule]]")
    return value


def _mistyped(value: Any, wanted: str) -> ValueError:
    kinds = {bool: "a boolean", int: "an integer", float: "a float", str: "a string"}
    kinds |= {list: "an array of other things", dict: "a table"}
    return ValueError(f"has to be {wanted}; this is {kinds.get(type(value), 'a date or a time')}")


_RULE_KEYS: dict[str, _Reader] = {
    "tags": _globs,
    "keep": _flag,
    "keep-last": _count,
    "keep-within": _age_ns,
    "unused-for": _age_ns,
}
_TOP_KEYS: dict[str, _Reader] = {
    "max-used-space": _amount,
    "min-free-space": _amount,
    "keep-tag": _globs,
    "drop-tag": _globs,
    "keep-last": _count,
    "keep-within": _age_ns,
    "unused-for": _age_ns,
    "allow-empty": _flag,
    "trim": _flag,
    "rule": _tables,
}


def _wrong(text: str, name: str, problems: list[_Problem]) -> UsageError:
    """All problems, in the order of their lines."""
    lines = find_lines(text)
    placed = [(line_of(problem.path, lines) or 1, problem.text) for problem in problems]
    first, *others = [f"line {line}: {said}" for line, said in sorted(placed, key=itemgetter(0))]
    return UsageError(first, path=name, details=tuple(others))


def _not_toml(text: str, name: str, error: Exception) -> UsageError:
    """What tomllib says, with its line in front."""
    problem = str(error)
    if isinstance(error, RecursionError):
        problem = f"line {_line_at(text, _deepest(text))}: too many brackets, each within another"
    place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", problem)
    if place is not None:
        line = place[1] or text.rstrip().count("\n") + 1
        problem = f"line {line}: {problem[: place.start()]}"
    return UsageError(
        f"{problem} (this is not TOML)",
        path=name,
        hints=('put names, ages and sizes in quotes, such as max-used-space = "5GB"',),
    )


def _line_at(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def _deepest(text: str) -> int:
    """Where in the text the most brackets are open."""
    depths = list(accumulate((char in "[{") - (char in "]}") for char in text))
    return depths.index(max(depths))
