"""Policy files: TOML whose keys are the names of the command line's options.

Keys above the first [[rule]] apply to all tags; keys of a rule apply to the tags that match it. An
error names the key path, such as rule[2].keep-last for a key of the second rule.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from kitcache.errors import UsageError
from kitcache.options.attributes import quote_go, suggest
from kitcache.options.prunepolicy import (
    DiskSpace,
    PrunePolicy,
    PruneRule,
    find_contradictions,
    parse_disk_space,
    parse_span,
)

_Reader = Callable[[Any], Any]
_Problem = tuple[int, str]
"""A position in PrunePolicy.rules, -1 for keys of all tags, and a clause that names the key."""
_ALL_TAGS = -1
_MAX_TAGS = 10**9
_KEY = r"""(?:[\w-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
# tomllib takes half a minute for a very long key. Its error for a long number has no line.
_COSTLY = (
    (
        re.compile(rf"(?:^|[\[{{,])[ \t]*(?:{_KEY}[ \t]*\.[ \t]*){{100}}", re.MULTILINE),
        "a key has more than 100 parts",
    ),
    (re.compile(r"\d[\d_]{600}", re.ASCII), "a number is too long"),
)


def read_policy(text: str, name: str) -> PrunePolicy:
    """Return the policy in the text of a policy file.

    Args:
        text: TOML.
        name: Name of the file, for messages.

    Raises:
        UsageError: The text is not TOML, or the policy is invalid or contradicts itself. The error
            names the file and the key path of every mistake.
    """
    document = _parse_toml(text, name)
    problems: list[_Problem] = []
    top = _read_table(document, _TOP_KEYS, "", _ALL_TAGS, problems)
    rules = [_read_rule(table, n, problems) for n, table in enumerate(top.get("rule", ()))]
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
    incomplete = {position for position, _ in problems}
    for rule, key, problem in find_contradictions(policy):
        is_common = rule is None or policy.rules[rule].is_common
        position = _ALL_TAGS if is_common else rule or 0
        # A value that could not be read can be the reason for a problem of these two keys.
        if position not in incomplete or key not in ("tags", "trim"):
            problems.append((position, problem))
    if problems:
        first, *others = [problem for _, problem in sorted(problems, key=itemgetter(0))]
        raise UsageError(first, path=name, details=tuple(others))
    return policy


def _parse_toml(text: str, name: str) -> dict[str, Any]:
    for pattern, problem in _COSTLY:
        if match := pattern.search(text):
            line = text.count("\n", 0, match.end()) + 1
            raise UsageError(f"{problem} (at line {line})", path=name)
    try:
        return tomllib.loads(text)
    except RecursionError:
        problem = "brackets are nested too deeply"
    except ValueError as error:
        problem = str(error)
    raise UsageError(
        f"this is not TOML: {problem}",
        path=name,
        hints=('put names, ages and sizes in quotes, such as max-used-space = "5GB"',),
    )


def _read_rule(table: dict[str, Any], position: int, problems: list[_Problem]) -> PruneRule:
    name = f"rule[{position + 1}]"
    values = _read_table(table, _RULE_KEYS, f"{name}.", position, problems)
    if "tags" not in table:
        problems.append((position, f'{name} has no tags: add a line such as tags = "pr-*"'))
    return PruneRule(
        name,
        values.get("tags", ()),
        values.get("keep", False),
        values.get("keep-last"),
        values.get("keep-within"),
        values.get("unused-for"),
    )


def _read_table(
    table: dict[str, Any],
    readers: Mapping[str, _Reader],
    prefix: str,
    position: int,
    problems: list[_Problem],
) -> dict[str, Any]:
    """Return the valid values by key; append the problems of the other keys."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        path = prefix + (key if re.fullmatch(r"[\w-]{1,40}", key, re.ASCII) else quote_go(key[:40]))
        try:
            if key in readers:
                values[key] = readers[key](value)
            else:
                problems.append((position, f"{path}: {_describe_unknown(key, readers)}"))
        except ValueError as error:
            problems.append((position, f"{path}: {error}"))
    return values


def _describe_unknown(key: str, readers: Mapping[str, _Reader]) -> str:
    if key in _TOP_KEYS:
        return "applies to all tags: write it above the first [[rule]]"
    if key in _RULE_KEYS:
        return "applies to some tags: write it in a [[rule]]"
    similar = suggest(key, readers)
    hint = f"did you mean {similar}?" if similar else f"known: {', '.join(readers)}"
    return f"unknown key; {hint}"


def _read_patterns(value: Any) -> tuple[str, ...]:
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, list) or not all(isinstance(each, str) for each in patterns):
        raise _type_error(value, 'a pattern such as "pr-*", or a list of patterns')
    return tuple(patterns)


def _read_age_ns(value: Any) -> int:
    if not isinstance(value, str):
        raise _type_error(value, 'an age in quotes, such as "30d"')
    return parse_span(value)


def _read_disk_space(value: Any) -> DiskSpace:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise _type_error(value, 'a size such as "5GB", or a part of the disk such as "10%"')
    if isinstance(value, int) and value.bit_length() > 63:
        raise ValueError("is more than any disk has")
    return parse_disk_space(str(value))


def _read_count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _type_error(value, "a number such as 5, without quotes")
    if value < 0:
        raise ValueError("is not a number of tags")
    if value >= _MAX_TAGS:
        raise ValueError("is more tags than any cache has")
    return value


def _read_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _type_error(value, "true or false, without quotes")
    return value


def _read_tables(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        raise ValueError("each rule begins with [[rule]], in two brackets")
    if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
        raise _type_error(value, "tables, each under [[rule]]")
    return value


def _type_error(value: Any, wanted: str) -> ValueError:
    kinds = {bool: "a boolean", int: "an integer", float: "a float", str: "a string"}
    kinds |= {list: "an array of other values", dict: "a table"}
    return ValueError(f"must be {wanted}, not {kinds.get(type(value), 'a date or a time')}")


_RULE_KEYS: dict[str, _Reader] = {
    "tags": _read_patterns,
    "keep": _read_flag,
    "keep-last": _read_count,
    "keep-within": _read_age_ns,
    "unused-for": _read_age_ns,
}
_TOP_KEYS: dict[str, _Reader] = {
    "max-used-space": _read_disk_space,
    "min-free-space": _read_disk_space,
    "keep-tag": _read_patterns,
    "drop-tag": _read_patterns,
    "keep-last": _read_count,
    "keep-within": _read_age_ns,
    "unused-for": _read_age_ns,
    "allow-empty": _read_flag,
    "trim": _read_flag,
    "rule": _read_tables,
}
