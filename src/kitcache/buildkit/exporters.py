"""Outputs and tags as a Solve's exporters.

Pure. Sources: buildx build/opt.go (toSolveOpt, CreateExports), BuildKit exporter/*.
"""

from typing import Literal, NamedTuple

from kitcache.errors import UsageError
from kitcache.options.attributes import Pairs, is_true
from kitcache.options.build import BuildRequest
from kitcache.options.imagenames import normalize_tag
from kitcache.options.outputs import Output

Receives = Literal["", "file", "load", "directory", "mirror", "store"]

_NAMED = ("image", "moby", "oci", "docker")


class Exporter(NamedTuple):
    """One exporter of a Solve; its position in the list is its id.

    kind, attrs: what the daemon is to see. receives: what we get of it: nothing, the bytes of a
    "file", an archive to "load" into an engine, the packets of a "directory", those of a "mirror",
    which is to hold nothing else, or blobs in the content "store" named export. dest: where that
    goes, "-" for stdout.
    """

    kind: str
    attrs: Pairs = ()
    receives: Receives = ""
    dest: str | None = None


def make_exporters(request: BuildRequest, *, is_engine: bool) -> tuple[Exporter, ...]:
    """The exporters; none where the result stays in the daemon's cache. Raises UsageError.

    is_engine: the daemon is dockerd, which has images of its own: they are the default there.
    """
    outputs = request.outputs
    if not outputs and is_engine:
        outputs = (Output("docker"),)
    names = request.tags
    exporters = tuple(
        _make_exporter(output, names, is_engine) for output in outputs if output.kind != "cacheonly"
    )
    _check_together(exporters, is_list=len(request.platforms) > 1 or bool(request.attests))
    return exporters


def _make_exporter(output: Output, tags: tuple[str, ...], is_engine: bool) -> Exporter:
    attrs = dict(output.attrs)
    if output.kind == "registry":
        attrs = {"unpack": "false", **attrs, "push": "true"}
    kind = _kind(output, attrs, is_engine)
    if kind in _NAMED:
        _set_name(attrs, tags)
    receives: Receives = ""
    if output.is_directory:
        receives = "store"
        if kind == "local":
            receives = "mirror" if output.is_mirror else "directory"
    elif output.dest is not None:
        receives = "file"
    elif kind == "docker":
        receives = "load"
    return Exporter(kind, tuple(attrs.items()), receives, output.dest)


def _kind(output: Output, attrs: dict[str, str], is_engine: bool) -> str:
    """BuildKit's word for it. dockerd has an image exporter of its own, moby."""
    kind = "image" if output.kind == "registry" else output.kind
    if kind == "docker" and output.dest is None and is_engine:
        return "moby"
    if kind == "image" and is_engine and not is_true(attrs.get("push-by-digest", "")):
        return "moby"
    return kind


def _set_name(attrs: dict[str, str], tags: tuple[str, ...]) -> None:
    """Names in full: BuildKit stores what it is given, and foo:9 would be listed twice."""
    given = tags or tuple(filter(None, attrs.get("name", "").split(",")))
    if given and given != ("*",):
        add_latest = not is_true(attrs.get("push-by-digest", ""))
        full = [normalize_tag(name, add_latest=add_latest) for name in given]
        attrs["name"] = ",".join(dict.fromkeys(full))
    if is_true(attrs.get("push", "")) and not attrs.get("name"):
        raise UsageError("tag is needed when pushing to registry", hints=("add --tag NAME",))


def _check_together(exporters: tuple[Exporter, ...], *, is_list: bool) -> None:
    if sum(exporter.dest == "-" for exporter in exporters) > 1:
        raise UsageError("multiple outputs configured to write to stdout")
    if sum(exporter.receives == "store" for exporter in exporters) > 1:
        raise UsageError("a build writes one OCI layout directory (tar=false), not several")
    if is_list and any(exporter.kind == "docker" for exporter in exporters):
        raise UsageError(
            "docker exporter does not support exporting manifest lists, use the oci exporter"
            " instead",
            hints=("use --output type=oci,dest=FILE", "build one --platform, no attestation"),
        )
