"""The destinations of a build's results: files, directories, stdout, image layouts.

Source: buildx, build/opt.go; BuildKit, client/solve.go (the index entries of a layout).
"""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import BinaryIO, NamedTuple

from kitcache.buildkit.dockerload import DockerLoad
from kitcache.buildkit.exporters import Exporter
from kitcache.buildkit.publish import media_type_of
from kitcache.buildkit.session.outputs import DirectoryTarget, StreamTarget, Target
from kitcache.buildkit.session.stores import ContentStore, WritableContentStore
from kitcache.errors import Damaged, KitcacheError, UsageError
from kitcache.oci.descriptor import Descriptor, read_descriptor
from kitcache.oci.document import read_document
from kitcache.oci.index import NewEntry
from kitcache.store.ioerrors import io_error
from kitcache.upkeep.jobcaches import LockedCache, LockedCaches, LockOptions
from kitcache.upkeep.publish import find_faults, publish

_LAYOUT_STORE = "export"
_LATEST = "latest"


class LayoutTarget(NamedTuple):
    """An OCI layout that receives an image. names: Empty if only the daemon knows them."""

    cache: LockedCache
    store: WritableContentStore
    names: tuple[str, ...]

    @property
    def tags(self) -> frozenset[str]:
        """The tags of the image in index.json, as far as they are known before the build."""
        return frozenset(map(_tag_of, self.names)) or frozenset((_LATEST,))


class Targets(NamedTuple):
    """The destinations that the daemon may write to. files: By exporter id."""

    files: Mapping[int, Target]
    layout: LayoutTarget | None
    loads: tuple[DockerLoad, ...]

    @property
    def stores(self) -> Mapping[str, ContentStore]:
        """The stores that the daemon may write blobs to."""
        return {_LAYOUT_STORE: self.layout.store} if self.layout else {}

    @property
    def failure(self) -> KitcacheError | None:
        """The first I/O error while the layout was written."""
        return self.layout.store.failure if self.layout else None

    @property
    def is_loaded_into_containerd(self) -> bool:
        """True if an engine with the containerd image store received the image. Runs docker."""
        return any(load.has_containerd_store() for load in self.loads)

    def publish(self, response: Mapping[str, str], options: LockOptions) -> None:
        """Load the image into docker; publish it in an OCI layout. Raises KitcacheError."""
        for load in self.loads:
            load.finish()
        if self.layout is not None:
            _name_image(self.layout, response, options)


def open_targets(
    exporters: Sequence[Exporter],
    stdout: BinaryIO | None,
    caches: LockedCaches,
    stack: ExitStack,
    *,
    may_delete_anywhere: bool = False,
) -> Targets:
    """Check before the build that the results can be written, and open their destinations.

    Args:
        stdout: The stream for the dest "-".
        caches: The caches of the build. A layout and a cache may be the same directory.
        may_delete_anywhere: Allow mode=delete outside of the current directory.

    Raises:
        UsageError, NotACache, Busy, KitcacheError: A destination cannot be used.
    """
    files: dict[int, Target] = {}
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
        elif exporter.receives == "mirror":
            if not may_delete_anywhere:
                _expect_below_here(dest)
            files[number] = DirectoryTarget(_expect_directory(dest), is_mirror=True)
        elif exporter.receives == "file":
            files[number] = StreamTarget(_expect_stdout(stdout) if dest == "-" else _file(dest))
        else:
            layout = _open_layout(caches.open_upload(dest), exporter)
    return Targets(files, layout, tuple(loads))


def _open_layout(cache: LockedCache, exporter: Exporter) -> LayoutTarget:
    names = dict(exporter.attrs).get("name", "")
    known = () if names == "*" else tuple(filter(None, names.split(",")))
    return LayoutTarget(cache, WritableContentStore(cache.ingester), known)


def _expect_stdout(stdout: BinaryIO | None) -> BinaryIO:
    if stdout is None:
        raise UsageError(
            "dest file is required for the exporter. refusing to write to console",
            hints=("name a file: dest=FILE", "redirect stdout, or pipe it"),
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


def _expect_below_here(path: str) -> None:
    """Raise UsageError unless the resolved path is below the current directory."""
    here = os.path.realpath(".")
    real = os.path.realpath(path)
    if real == here or os.path.commonpath((here, real)) != here:
        raise UsageError(
            "mode=delete deletes all else in this directory, which is not below the current one",
            path=path,
            hints=("allow buildx.local.delete if that is meant",),
        )


def expect_kept(targets: Targets, caches: LockedCaches) -> None:
    """Raise UsageError if mode=delete would delete a cache or another output of this build."""
    for target in targets.files.values():
        if isinstance(target, DirectoryTarget) and target.is_mirror:
            others = [
                _shown_and_real(other) for other in targets.files.values() if other is not target
            ]
            others += [(cache.store.path, cache.real_path) for cache in caches.all]
            for shown, real in others:
                if real and _is_within(real, os.stat(target.path)):
                    raise UsageError(
                        f"mode=delete in {target.path} would delete this output of the build",
                        path=shown,
                        hints=("name another directory for one of the two",),
                    )


def _shown_and_real(target: Target) -> tuple[str, str]:
    """Return the path of an output, and the real path of its directory; "" if it is not a file."""
    if isinstance(target, DirectoryTarget):
        return target.path, os.path.realpath(target.path)
    if isinstance(target.sink, str):
        return target.sink, os.path.dirname(os.path.realpath(target.sink))
    return "", ""


def _is_within(path: str, directory: os.stat_result) -> bool:
    """Return True if the path is the directory or below it. path: Without symlinks."""
    while not os.path.samestat(os.stat(path), directory):
        if path == "/":
            return False
        path = os.path.dirname(path)
    return True


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
    return io_error(path, doing, error, effect="nothing was built")


def _name_image(target: LayoutTarget, response: Mapping[str, str], options: LockOptions) -> None:
    """Publish the image that the layout received: the daemon's response may name another image."""
    layout = target.cache.ingester.layout
    root = _root(target, _descriptor(response.get("containerimage.descriptor", "")))
    if root is None:
        raise KitcacheError(
            layout.path, "the daemon sent no image for it", effect="no tag was changed"
        )
    blob = root.media_type, str(root.digest), root.size or 0
    names = target.names or tuple(filter(None, response.get("image.name", "").split(",")))
    entries = tuple(NewEntry(*blob, _tag_of(name), image_name=name) for name in names)
    entries = entries or (NewEntry(*blob, _LATEST),)
    control = options.control(layout)
    faults = find_faults(layout, control, root)
    if faults:
        problem = f"the image is incomplete: {faults}"
        raise Damaged(layout.path, problem, kind="missing", effect="no tag was changed")
    wait_policy = options.wait_policy(layout)
    (lost,) = publish(layout, [(root, entries)], control, wait_policy)
    if lost.clause:
        effect = "index.json names the image already"
        raise Damaged(layout.path, f"the image was {lost.clause}", kind="lost", effect=effect)
    target.cache.published.update(entry.ref_name for entry in entries)


def _root(target: LayoutTarget, hint: Descriptor | None) -> Descriptor | None:
    """Return the root that the layout received. hint: The daemon's descriptor of an image."""
    root = target.store.root
    if root is None or (hint is not None and hint.digest == root.digest):
        return root and hint
    data = target.cache.ingester.layout.read_blob(root.digest, root.size) or b""
    try:
        return Descriptor(media_type_of(read_document(data), None), root.digest, root.size)
    except Damaged:
        return None


def _tag_of(name: str) -> str:
    last = name.rpartition("/")[2]
    return last.partition(":")[2] or _LATEST


def _descriptor(encoded: str) -> Descriptor | None:
    try:
        data = base64.b64decode(encoded, validate=True)
        json.loads(data)
        return read_descriptor(read_document(data))
    except (ValueError, Damaged):
        return None
