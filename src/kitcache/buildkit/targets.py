"""Where a build's results go: files, directories, stdout, image layouts.

Source: buildx, build/opt.go; BuildKit, client/solve.go (the index entries of a layout).
"""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import BinaryIO, NamedTuple

from kitcache.buildkit.exporters import Exporter
from kitcache.buildkit.load import DockerLoad
from kitcache.buildkit.places import Place, Places, Terms
from kitcache.buildkit.session.outputs import DirectoryTarget, StreamTarget, Target
from kitcache.buildkit.session.stores import ExportStore, Store
from kitcache.errors import KitcacheError, UsageError
from kitcache.oci.descriptor import Descriptor, read_descriptor
from kitcache.oci.document import DocumentError, read_document
from kitcache.oci.index import NewEntry, put_entries
from kitcache.store.index import publish_index
from kitcache.store.layout import io_error
from kitcache.store.locks import hold_index
from kitcache.store.notes import room_of

_LAYOUT_STORE = "export"


class Targets(NamedTuple):
    """What the daemon may write to. files: by exporter id. stores: a layout, if one is wanted."""

    files: Mapping[int, Target]
    stores: Mapping[str, Store]
    layout: Place | None
    loads: tuple[DockerLoad, ...]

    def publish(self, response: Mapping[str, str], terms: Terms) -> None:
        """Load what is to be loaded; name the image in a layout's index. Raises KitcacheError."""
        for load in self.loads:
            load.finish()
        if self.layout is not None:
            _name_image(self.layout, response, terms)


def open_targets(
    exporters: Sequence[Exporter], stdout: BinaryIO | None, terms: Terms, stack: ExitStack
) -> Targets:
    """Check, before anything is built, that results can go where they are wanted.

    Raises UsageError, NotACache, Busy and KitcacheError. stdout: what the dest "-" stands for.
    """
    files: dict[int, Target] = {}
    stores: dict[str, Store] = {}
    layout = None
    loads = []
    for number, exporter in enumerate(exporters):
        dest = exporter.dest
        if exporter.receives == "load":
            loads.append(stack.enter_context(DockerLoad()))
            files[number] = StreamTarget(loads[-1].stdin)
        elif dest is None:
            continue
        elif exporter.receives == "directory":
            files[number] = DirectoryTarget(_expect_directory(dest))
        elif exporter.receives == "file":
            files[number] = StreamTarget(_expect_stdout(stdout) if dest == "-" else _file(dest))
        else:
            layout = Places(terms, stack).to_write(dest)
            if layout.intake is not None:
                stores[_LAYOUT_STORE] = ExportStore(layout.intake)
    return Targets(files, stores, layout, tuple(loads))


def _expect_stdout(stdout: BinaryIO | None) -> BinaryIO:
    if stdout is None:
        raise UsageError(
            "dest file is required for the exporter. refusing to write to console",
            next_steps=("name a file: dest=FILE", "redirect stdout, or pipe it"),
        )
    return stdout


def _expect_directory(path: str) -> str:
    if os.path.lexists(path) and not os.path.isdir(path):
        raise UsageError("destination directory is a file", path=path)
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise _unbuilt(path, "the output directory cannot be made", error) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise _unbuilt(path, "the output directory cannot be written to", PermissionError(13, ""))
    return path


def _file(path: str) -> str:
    if os.path.isdir(path):
        raise UsageError("destination file is a directory", path=path)
    directory = os.path.dirname(path) or "."
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise _unbuilt(path, "the output file's directory cannot be made", error) from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise _unbuilt(path, "the output file cannot be written", PermissionError(13, ""))
    return path


def _unbuilt(path: str, doing: str, error: OSError) -> KitcacheError:
    if not error.strerror and error.errno:
        error.strerror = os.strerror(error.errno)
    failure = io_error(path, doing, error)
    failure.untouched = "nothing was built"
    return failure


def _name_image(place: Place, response: Mapping[str, str], terms: Terms) -> None:
    root = _descriptor(response.get("containerimage.descriptor", ""))
    if root is None:
        raise KitcacheError(
            place.layout.path, "the daemon named no image for it", untouched="no tag was changed"
        )
    blob = root.media_type, str(root.digest), root.size or 0
    names = [name for name in response.get("image.name", "").split(",") if name]
    entries = tuple(NewEntry(*blob, _tag_of(name), image_name=name) for name in names)
    entries = entries or (NewEntry(*blob, "latest"),)
    layout = place.layout
    if place.intake is not None:
        place.intake.sync()
    with room_of(layout) as room_fd:
        lock = hold_index(layout, terms.patience(layout))
        publish_index(layout, room_fd, lock, lambda data: (put_entries(data, entries), None))


def _tag_of(name: str) -> str:
    last = name.rpartition("/")[2]
    return last.partition(":")[2] or "latest"


def _descriptor(encoded: str) -> Descriptor | None:
    try:
        data = base64.b64decode(encoded, validate=True)
        json.loads(data)
        return read_descriptor(read_document(data))
    except (ValueError, DocumentError):
        return None
