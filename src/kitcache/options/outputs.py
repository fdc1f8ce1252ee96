"""Output: the value of --output.

Sources: buildx util/buildflags/export.go and build/opt.go, BuildKit exporter/*.
"""

from collections.abc import Mapping
from typing import NamedTuple

from kitcache.errors import UsageError
from kitcache.options.attributes import (
    Pairs,
    is_false,
    is_true,
    parse_attributes,
    quote_go,
    split_fields,
    suggest,
    warn_unknown,
)
from kitcache.options.imagenames import normalize_tag

_TREE = ("type", "dest", "attestation-prefix", "platform-split", "source-date-epoch")
_IMAGE = (
    "type", "name", "push", "push-by-digest", "registry.insecure", "unpack", "store",
    "dangling-name-prefix", "dangling-name-empty-only", "name-canonical", "oci-mediatypes",
    "oci-artifact", "attestation-inline", "prefer-nondist-layers", "source-date-epoch",
    "rewrite-timestamp", "compression", "compression-level", "force-compression",
    "buildinfo", "buildinfo-attrs",
)  # fmt: skip
_ARCHIVE = (*_IMAGE, "dest", "tar", "context")
_KNOWN = {
    "local": (*_TREE, "mode"),
    "tar": _TREE,
    "oci": _ARCHIVE,
    "docker": _ARCHIVE,
    "image": _IMAGE,
    "registry": _IMAGE,
    "moby": _IMAGE,
    "cacheonly": ("type",),
}
_ANNOTATION = "annotation"
_MODES = ("copy", "delete")
KINDS = ("local", "tar", "oci", "docker", "image", "registry", "moby", "cacheonly")
_NAMED = ("oci", "docker", "image", "registry", "moby")


class Output(NamedTuple):
    """What becomes of a build's result.

    kind: local, tar, oci, docker, image, registry, moby, cacheonly. dest: a directory or a file as
    the user wrote it, "-" for stdout, None where the daemon keeps the result. sent: what the daemon
    is to see. warnings: what looked mistyped, a sentence each.
    """

    kind: str
    dest: str | None = None
    attrs: Pairs = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_directory(self) -> bool:
        """True where dest is a directory, and not a file."""
        is_unpacked = is_false(dict(self.attrs).get("tar", ""))
        return self.kind == "local" or (self.kind in ("oci", "docker") and is_unpacked)

    @property
    def is_mirror(self) -> bool:
        """Whether the directory loses all that the build did not produce (mode=delete)."""
        return self.kind == "local" and _mode_of(dict(self.attrs)) == "delete"

    @property
    def is_pushed(self) -> bool:
        """True where the daemon is to push the result to a registry."""
        return self.kind == "registry" or is_true(dict(self.attrs).get("push", ""))


def parse_output(text: str) -> Output:
    """The value of --output: DIR, - (a tar to stdout) or type=KIND,dest=…,k=v.

    Raises UsageError in buildx's words.
    """
    fields = split_fields(text)
    if fields == (text,) and not text.startswith("type="):
        return Output("tar", "-") if text == "-" else Output("local", text)
    pairs = tuple((key.strip(), value) for key, value in parse_attributes(text))
    attrs = dict(pairs)
    kind = attrs.pop("type", "")
    dest = attrs.pop("dest", "")
    return check_output(Output(kind, dest, tuple(attrs.items()), _warn(kind, pairs)))


def _warn(kind: str, pairs: Pairs) -> tuple[str, ...]:
    """What looks mistyped. An annotation has any name."""
    if kind not in _KNOWN:
        return ()
    named = tuple(pair for pair in pairs if not pair[0].startswith(_ANNOTATION))
    return warn_unknown(named, _KNOWN[kind], f"{kind} output")


def _mode_of(attrs: Mapping[str, str]) -> str:
    """As BuildKit reads it: client/exporters.go."""
    return attrs.get("mode", "").strip().lower() or "copy"


def check_output(output: Output) -> Output:
    """Return the output with buildx's defaults. Raises UsageError where its fields do not agree."""
    kind = output.kind
    if not kind:
        raise UsageError("type is required for output", hints=(f"name one: {', '.join(KINDS)}",))
    if kind not in KINDS:
        meant = suggest(kind.lower(), KINDS)
        raise UsageError(
            f"exporter {quote_go(kind)} could not be found",
            hints=(f"did you mean {meant}?" if meant else f"use {', '.join(KINDS)}",),
        )
    attrs = dict(output.attrs)
    if kind == "local" and _mode_of(attrs) not in _MODES:
        meant = suggest(_mode_of(attrs), _MODES)
        raise UsageError(
            f"invalid local exporter mode {quote_go(attrs['mode'])}",
            hints=(f"did you mean {meant}?" if meant else f"use {' or '.join(_MODES)}",),
        )
    return _place(kind, attrs, output.dest or "")._replace(
        warnings=output.warnings or _warn(kind, output.attrs)
    )


def _place(kind: str, attrs: dict[str, str], dest: str) -> Output:
    """The output with its destination checked, and buildx's defaults."""
    if kind in _NAMED and attrs.get("name"):
        _check_names(attrs)
    output = Output(kind, dest or None, tuple(attrs.items()))
    if output.is_directory:
        if not dest:
            raise UsageError(f"dest is required for {kind} exporter", hints=("add dest=DIR",))
        if dest == "-":
            raise UsageError(
                f"dest cannot be stdout for {kind} exporter", hints=("use type=tar,dest=-",)
            )
        return output
    if kind in ("tar", "oci") and not dest:
        return output._replace(dest="-")
    if dest and kind not in ("tar", "oci", "docker"):
        raise UsageError(
            f"the {kind} exporter writes no file, so that dest={dest} would be ignored",
            hints=("use type=docker,dest=FILE", "type=oci,dest=FILE"),
        )
    return output


def _check_names(attrs: dict[str, str]) -> None:
    if attrs["name"] != "*":  # then the names come from the frontend
        for name in attrs["name"].split(","):
            normalize_tag(name)
