"""Outputs and tags as the exporters of a Solve.

Sources: buildx build/opt.go (toSolveOpt, CreateExports), BuildKit exporter/*.
"""

from typing import Literal, NamedTuple

from kitcache.errors import UsageError
from kitcache.options.attributes import Pairs, is_true, path_text
from kitcache.options.build import BuildRequest
from kitcache.options.imagenames import normalize_tag
from kitcache.options.outputs import Output

Receives = Literal["", "file", "load", "directory", "mirror", "store"]

_NAMED = ("image", "moby", "oci", "docker")


class Exporter(NamedTuple):
    """An exporter of a Solve; its position in the list is its id.

    Attributes:
        kind: The type that the daemon gets.
        attrs: The attributes that the daemon gets.
        receives: The form in which the client receives the result; "" if it receives nothing.
            "file": bytes. "load": an archive for an engine. "directory" and "mirror": packets.
            "store": blobs for the content store "export". In a mirror all other files are deleted.
        dest: Where the client writes the result; "-" for stdout.
    """

    kind: str
    attrs: Pairs = ()
    receives: Receives = ""
    dest: str | None = None


def make_exporters(request: BuildRequest, *, is_engine: bool) -> tuple[Exporter, ...]:
    """Return the exporters; () if the result is kept in the daemon's cache.

    On dockerd, the default output is an image of the engine. Raise UsageError for outputs that
    contradict each other, and for a push without a name.
    """
    outputs = request.outputs
    if not outputs and is_engine:
        outputs = (Output("docker"),)
    exporters = tuple(
        _make_exporter(output, request.tags, is_engine)
        for output in outputs
        if output.kind != "cacheonly"
    )
    if sum(exporter.dest == "-" for exporter in exporters) > 1:
        raise UsageError("multiple outputs configured to write to stdout")
    if sum(exporter.receives == "store" for exporter in exporters) > 1:
        raise UsageError("a build writes one OCI layout directory (tar=false), not several")
    is_list = len(request.platforms) > 1 or bool(request.attests)
    if is_list and any(exporter.kind == "docker" for exporter in exporters):
        raise UsageError(
            "docker exporter does not support exporting manifest lists, use the oci exporter"
            " instead",
            hints=("use type=oci,dest=FILE", "build for one platform, without attestations"),
        )
    return exporters


def _make_exporter(output: Output, tags: tuple[str, ...], is_engine: bool) -> Exporter:
    attrs = dict(output.attrs)
    kind = output.kind
    if kind == "registry":
        kind = "image"
        attrs = {"unpack": "false", **attrs, "push": "true"}
    is_by_digest = is_true(attrs.get("push-by-digest", ""))
    # dockerd has its own exporter for images, moby.
    if is_engine and (
        (kind == "docker" and output.dest is None) or (kind == "image" and not is_by_digest)
    ):
        kind = "moby"
    if kind in _NAMED:
        # BuildKit stores names as they are, so app:1 has to be sent as docker.io/library/app:1.
        names = tags or tuple(filter(None, attrs.get("name", "").split(",")))
        if names and names != ("*",):
            full = [normalize_tag(name, add_latest=not is_by_digest) for name in names]
            attrs["name"] = ",".join(dict.fromkeys(full))
        if is_true(attrs.get("push", "")) and not attrs.get("name"):
            raise UsageError("tag is needed when pushing to registry", hints=("add a tag",))
    receives: Receives = ""
    if output.is_directory and kind == "local":
        receives = "mirror" if output.is_mirror else "directory"
    elif output.is_directory:
        receives = "store"
    elif output.dest is not None:
        receives = "file"
    elif kind == "docker":
        receives = "load"
    dest = None if output.dest is None else path_text(output.dest)
    return Exporter(kind, tuple(attrs.items()), receives, dest)
