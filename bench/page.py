"""The description of the machine, and the part of a page between two marks."""

import os
import platform
import time
from collections.abc import Sequence

from bench.place import Place, file_system
from bench.table import Row, markdown_table

BEGIN = "<!-- bench:begin (written by make bench) -->"
END = "<!-- bench:end -->"


def describe_machine(place: Place) -> list[str]:
    """Return the facts of the machine, one per line."""
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return [
        f"processor: {_processor()}, {len(os.sched_getaffinity(0))} cores",
        f"memory: {memory_gib:.0f} GiB",
        f"kernel: {platform.system()} {platform.release()}",
        f"interpreter: {platform.python_implementation()} {platform.python_version()}",
        f"file systems: {file_system(place.tmpfs)} and {file_system(place.disk)}",
        f"measured: {time.strftime('%Y-%m-%d', time.gmtime())}, load before"
        f" {os.getloadavg()[0]:.1f}",
    ]


def check_marks(path: str) -> None:
    """Raise ValueError if the page has no marks for a result."""
    _split(path)


def write_between_marks(path: str, machine: Sequence[str], rows: Sequence[Row]) -> None:
    """Replace the text between the marks and keep the rest. Raises ValueError."""
    before, after = _split(path)
    facts = "\n".join(f"- {fact}" for fact in machine)
    middle = f"{BEGIN}\n\n{markdown_table(rows)}\n\n{facts}\n\n{END}"
    with open(path, "w", encoding="utf-8") as file:
        file.write(before + middle + after)


def _split(path: str) -> tuple[str, str]:
    """Return the text before and after the marks."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path} lacks the lines {BEGIN} and {END}")
    return before, after


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
