"""Print the table of exit codes from kitcache.errors; with --write, write it to its page.

usage: exit_codes.py [--write]
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from kitcache.errors import KitcacheError

PAGE = Path(__file__).resolve().parent.parent / "docs" / "exit-codes.md"
BEGIN, END = "<!-- scripts/exit_codes.py --write -->\n", "<!-- end -->\n"


def family(parent: type[KitcacheError]) -> Iterator[type[KitcacheError]]:
    """Return the class and its public subclasses, in the order of their definition."""
    if not parent.__name__.startswith("_"):
        yield parent
    for child in parent.__subclasses__():
        yield from family(child)


def table() -> str:
    rows = ["| code | error | when |", "|---|---|---|", "| 0 | | Done, or nothing to do. |"]
    for error in sorted(family(KitcacheError), key=lambda error: error.exit_code):
        summary = (error.__doc__ or "").splitlines()[0]
        rows.append(f"| {error.exit_code} | `{error.__name__}` | {summary} |")
    return "\n".join(rows) + "\n"


def page_with(text: str, content: str) -> str:
    """Return the page with the content between its markers. Raises ValueError without them."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no lines {BEGIN.strip()} and {END.strip()} in {PAGE.name}")
    return f"{head}{begin}{content}{end}{tail}"


def main() -> None:
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page_with(PAGE.read_text(), table()))
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        print(table(), end="")


if __name__ == "__main__":
    main()
