"""The text of docs/fields.md: docstrings, fields, types and defaults of the public values."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kitcache

PAGE = Path(__file__).parents[2] / "docs" / "fields.md"
_HEAD = """\
# Fields of the public values

`make golden` writes this page from the code; [library.md](library.md) shows how to use the values.
A value is an immutable `NamedTuple` with `_replace`, `_asdict` and equality. `Secret` and
`Credentials` are opaque and have none of these. New fields are added at the end.
"""
_MODULE = re.compile(r"\b(?:kitcache|collections|typing|threading)(?:\.[a-z_]+)*\.(?=[A-Z])")


def fields_page() -> str:
    return "\n".join(
        [
            _HEAD,
            *(
                line
                for name in sorted(kitcache.__all__)
                if isinstance(value := getattr(kitcache, name), type) and issubclass(value, tuple)
                for line in _section(name, value)
            ),
        ]
    )


def _section(name: str, value: Any) -> Iterator[str]:
    text, descriptions = _split(inspect.cleandoc(value.__doc__))
    yield f"## {name}\n"
    yield f"{_escape(text)}\n"
    for parameter in inspect.signature(value).parameters.values():
        kind = _MODULE.sub("", inspect.formatannotation(parameter.annotation))
        description = descriptions.pop(parameter.name, "")
        yield (
            f"- `{parameter.name}: {kind}{_default(parameter.default)}`"
            f"{': ' if description else ''}{_escape(description)}"
        )
    for other, member in vars(value).items():
        if isinstance(member, property) and not other.startswith("_"):
            first = inspect.cleandoc(member.__doc__ or "").split("\n")[0]
            first = descriptions.pop(other, first)
            yield f"- `.{other}`: {_escape(first)}"
    assert not descriptions, f"{name} has no field {', '.join(descriptions)}"
    yield ""


def _split(docstring: str) -> tuple[str, dict[str, str]]:
    """Split a docstring in Google style into its text and the descriptions of its fields."""
    text, _, section = docstring.partition("\nAttributes:\n")
    section, _, rest = section.partition("\n\n")
    descriptions = {
        name: " ".join(description.split())
        for names, description in re.findall(
            r"^    (\w+(?:, \w+)*): (.*(?:\n     +.*)*)", section, re.MULTILINE
        )
        for name in names.split(", ")
    }
    return f"{text}\n{rest}".strip(), descriptions


def _escape(text: str) -> str:
    """Return the text with the characters escaped that Markdown would interpret."""
    return re.sub(r"([*_<\[])", r"\\\1", text)


def _default(value: object) -> str:
    if value is inspect.Parameter.empty:
        return ""
    return " = …" if callable(value) else f" = {value!r}"
