"""python -m bench: measure every row of the table in one run."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

from bench.building import export_rows, file_rows, files_rows, import_rows, noop_rows
from bench.clock import Missing, run
from bench.copying import copy_rows
from bench.interrupting import interrupt_row
from bench.locking import lock_rows
from bench.memory import memory_row
from bench.objects import object_rows
from bench.page import check_marks, describe_machine, write_between_marks
from bench.place import QUICK, Place, Sizes, discard, kitcache, open_place
from bench.pruning import prune_row
from bench.reading import read_rows
from bench.starting import start_row
from bench.sweeping import disk_row, tmpfs_row, umoci_row
from bench.table import Row, skipped_row, text_table
from bench.trees import make_tree
from bench.verifying import verify_rows
from bench.wrapping import wrap_rows

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

ROWS: dict[str, Callable[[Place], Row | list[Row]]] = {
    "tmpfs": tmpfs_row,
    "disk": disk_row,
    "umoci": umoci_row,
    "prune": prune_row,
    "read": read_rows,
    "start": start_row,
    "lock": lock_rows,
    "interrupt": interrupt_row,
    "memory": memory_row,
    "verify": verify_rows,
    "copy": copy_rows,
    "export": export_rows,
    "import": import_rows,
    "files": files_rows,
    "file": file_rows,
    "noop": noop_rows,
    "wrap": wrap_rows,
    "objects": object_rows,
}


def main(argv: Sequence[str]) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if unknown := set(args.rows) - ROWS.keys():
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    is_whole = not (args.quick or args.rows)
    page = args.page or (os.path.join(ROOT, "docs", "benchmarks.md") if is_whole else None)
    if page is not None:
        check_marks(page)
    with open_place(args.tmpfs, args.disk, QUICK if args.quick else Sizes()) as place:
        machine = describe_machine(place)
        _warm_up(place)
        rows = [row for name in args.rows or ROWS for row in _measure(name, place)]
    print(text_table(rows))
    print("\n" + "\n".join(machine))
    if page is not None:
        write_between_marks(page, machine, rows)
    return 0


def _warm_up(place: Place) -> None:
    """Run each command once, so that its imports are compiled and in the page cache."""
    tree = make_tree(place.fresh(place.tmpfs), 10, 6)
    for words in (["du", tree.path], ["untag", tree.path, "tag-0"], ["reset", tree.path]):
        run(kitcache(*words))
    discard([tree.path])


def _measure(name: str, place: Place) -> list[Row]:
    started = time.monotonic()
    try:
        found = ROWS[name](place)
    except Missing as missing:
        found = skipped_row(name, str(missing))
    print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return found if isinstance(found, list) else [found]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all")
    parser.add_argument("--quick", action="store_true", help="small trees: does it run at all?")
    parser.add_argument("--tmpfs", default="/dev/shm", metavar="DIR")
    parser.add_argument("--disk", default=os.path.join(ROOT, "build"), metavar="DIR")
    parser.add_argument("--page", metavar="FILE", help="write the result between the marks there")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
