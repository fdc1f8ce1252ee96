"""kitcache why: which tags keep a blob."""

import argparse
import time
from collections.abc import Iterator
from itertools import groupby

from kitcache.cli import options
from kitcache.cli.console import Console
from kitcache.cli.tables import damage_warnings
from kitcache.errors import printable
from kitcache.gc.refusals import describe_step
from kitcache.gc.results import BlobReferences
from kitcache.gc.why import why
from kitcache.options.units import format_age, format_bytes
from kitcache.store.open import StoreAddress

COMMAND = options.Command(
    description="""\
Shows each path from a tag to a blob, or that no tag reaches it, and when the
blob was written. Acquires no lock and changes nothing.""",
    epilog="""\
examples:
  kitcache why ./cache sha256:9c1e6f…   a digest, or the beginning of one
  kitcache why ./cache 9c1e             at least four digits
  kitcache why ./cache ./cache/blobs/sha256/9c1e6f…""",
    arguments=(
        options.DIR,
        options.argument("blob", "DIGEST|PREFIX|PATH", "the blob to explain", completes="files"),
        options.JSON,
        options.QUIET,
    ),
    effect="",
)


def run(args: argparse.Namespace, console: Console) -> int:
    """Explain one blob."""

    def explain(address: StoreAddress) -> int:
        references = why(address, args.blob, cancel=args.cancel)
        console.print_result(references, reference_lines(references, time.time_ns()))
        console.print_warning(damage_warnings(references.path, references.damage))
        return 0

    return console.each([args.dir], explain)


def reference_lines(references: BlobReferences, now_ns: int) -> Iterator[str]:
    """Yield each path from a tag to the blob, one line per step."""
    if references.written_ns is None:
        yield f"{references.digest}: missing here"
    else:
        age_ns = now_ns - references.written_ns
        when = f"written {format_age(age_ns)} ago" if age_ns >= 0 else f"dated {format_age(age_ns)}"
        yield f"{references.digest}: {format_bytes(references.size or 0)}, {when}"
    if references.is_unreachable:
        is_sure = not references.damage
        yield f"  {'unreachable: no tag' if is_sure else 'no tag that can be read'} reaches it"
    for root, paths in groupby(references.paths, key=lambda path: path.root):
        yield printable(f"  {root.label}")
        for path in paths:
            for depth, link in enumerate(path.links):
                role = "" if depth == 0 else f"{link.role} "
                step = describe_step(link.descriptor)
                yield printable(f"  {'  ' * depth}> {role}{step}")
    if references.has_more_paths:
        yield f"  and more than these {len(references.paths)} paths"
