"""docs/fields.md, made of the public values: their docstrings, fields, types and defaults."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kitcache

PAGE = Path(__file__).parents[2] / "docs" / "fields.md"
_HEAD = """\
# Fields of the public values

Made from the code by `make golden`; [library.md](library.md) says what the values are for. A value
is an immutable `NamedTuple` with `_replace`, `_asdict` and equality. `Secret` and `Credentials` are
opaque and have none of these. New fields are added at the end.
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
    yield f"## {name}\n"
    yield f"{_escape(inspect.cleandoc(value.__doc__))}\n"
    for parameter in inspect.signature(value).parameters.values():
        kind = _MODULE.sub("", inspect.formatannotation(parameter.annotation))
        yield f"- `{parameter.name}: {kind}{_default(parameter.default)}`"
    for other, member in vars(value).items():
        if isinstance(member, property) and not other.startswith("_"):
            first = inspect.cleandoc(member.__doc__ or "").split("\n")[0]
            yield f"- `.{other}`: {_escape(first)}"
    yield ""


def _escape(text: str) -> str:
    """A star or a bracket of a docstring is no mark of Markdown's."""
    return re.sub(r"([*_<\[])", r"\\\1", text)


def _default(value: object) -> str:
    if value is inspect.Parameter.empty:
        return ""
    return " = …" if callable(value) else f" = {value!r}"
