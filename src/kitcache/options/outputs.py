"""Output: the value of --output.

Sources: buildx util/buildflags/export.go and build/opt.go, BuildKit exporter/*.
"""

from collections.abc import Mapping
from typing import NamedTuple

from kitcache.errors import UsageError
from kitcache.options.attributes import (
    Attributes,
    Pairs,
    PathLike,
    as_pairs,
    hints_for,
    is_false,
    is_true,
    parse_pairs,
    path_text,
    quote_go,
    split_fields,
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
    """A destination of a build's result.

    Attributes:
        kind: local, tar, oci, docker, image, registry, moby, cacheonly.
        dest: Directory or file as the user wrote it, "-" for stdout, None if the daemon keeps it.
        attrs: The other attributes, which the daemon gets.
        warnings: A sentence for each attribute that looks mistyped.
    """

    kind: str
    dest: str | PathLike | None = None
    attrs: Attributes = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_directory(self) -> bool:
        """True if dest is a directory, False if it is a file."""
        is_unpacked = is_false(dict(self.attrs).get("tar", ""))
        return self.kind == "local" or (self.kind in ("oci", "docker") and is_unpacked)

    @property
    def is_mirror(self) -> bool:
        """True if everything else in the directory is deleted (mode=delete)."""
        return self.kind == "local" and _mode_of(dict(self.attrs)) == "delete"

    @property
    def is_pushed(self) -> bool:
        """True if the daemon pushes the result to a registry."""
        return self.kind == "registry" or is_true(dict(self.attrs).get("push", ""))


def parse_output(text: str) -> Output:
    """Return the checked value of --output: DIR, - (a tar to stdout) or type=KIND,dest=…,k=v.

    Raise UsageError in buildx's words, and for a kind in place of a directory.
    """
    fields = split_fields(text)
    if fields == (text,) and text in KINDS:
        raise UsageError(
            f"{quote_go(text)} is a kind of output, not a directory",
            hints=(f"write type={text}", f"for a directory of this name, write ./{text}"),
        )
    if fields == (text,) and not text.startswith("type="):
        return Output("tar", "-") if text == "-" else Output("local", text)
    pairs = tuple((key.strip(), value) for key, value in parse_pairs(fields))
    attrs = dict(pairs)
    kind = attrs.pop("type", "")
    dest = attrs.pop("dest", "")
    return _check(kind, attrs, dest)._replace(warnings=_find_typos(kind, pairs))


def check_output(output: Output) -> Output:
    """Return a value that is not from parse_output, checked and with defaults. Raise UsageError."""
    checked = _check(output.kind, dict(output.attrs), path_text(output.dest or ""))
    return checked._replace(
        warnings=output.warnings or _find_typos(output.kind, as_pairs(output.attrs))
    )


def _find_typos(kind: str, pairs: Pairs) -> tuple[str, ...]:
    """Return a warning for each unknown attribute. An annotation may have any name."""
    named = tuple(pair for pair in pairs if not pair[0].startswith(_ANNOTATION))
    return warn_unknown(named, _KNOWN[kind], f"{kind} output")


def _mode_of(attrs: Mapping[str, str]) -> str:
    """Return the mode as BuildKit reads it (client/exporters.go)."""
    return attrs.get("mode", "").strip().lower() or "copy"


def _check(kind: str, attrs: dict[str, str], dest: str) -> Output:
    if not kind:
        raise UsageError("type is required for output", hints=(f"name one: {', '.join(KINDS)}",))
    if kind not in KINDS:
        raise UsageError(
            f"exporter {quote_go(kind)} could not be found", hints=hints_for(kind.lower(), KINDS)
        )
    if kind == "local" and _mode_of(attrs) not in _MODES:
        raise UsageError(
            f"invalid local exporter mode {quote_go(attrs['mode'])}",
            hints=hints_for(_mode_of(attrs), _MODES),
        )
    if kind in _NAMED and attrs.get("name", "*") not in ("", "*"):  # "*": the frontend's names
        for name in attrs["name"].split(","):
            normalize_tag(name)
    output = Output(kind, dest or None, tuple(attrs.items()))
    if output.is_directory and not dest:
        raise UsageError(f"dest is required for {kind} exporter", hints=("add dest=DIR",))
    if output.is_directory and dest == "-":
        raise UsageError(
            f"dest cannot be stdout for {kind} exporter", hints=("use type=tar,dest=-",)
        )
    if kind in ("tar", "oci") and not dest:
        return output._replace(dest="-")
    if dest and kind not in ("local", "tar", "oci", "docker"):
        raise UsageError(
            f"the {kind} exporter writes no file, so that dest={dest} would be ignored",
            hints=("use type=docker,dest=FILE", "type=oci,dest=FILE"),
        )
    return output
