"""Output: the value of --output.

Sources: buildx util/buildflags/export.go and build/opt.go, BuildKit exporter/*.
"""

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
)
from kitcache.options.references import normalize_tag

KINDS = ("local", "tar", "oci", "docker", "image", "registry", "moby", "cacheonly")
_NAMED = ("oci", "docker", "image", "registry", "moby")


class Output(NamedTuple):
    """What becomes of a build's result.

    kind: local, tar, oci, docker, image, registry, moby, cacheonly. dest: a directory or a file as
    the user wrote it, "-" for stdout, None where the daemon keeps the result. sent: what the daemon
    is to see.
    """

    kind: str
    dest: str | None = None
    sent: Pairs = ()

    @property
    def is_directory(self) -> bool:
        """True where dest is a directory, and not a file."""
        is_unpacked = is_false(dict(self.sent).get("tar", ""))
        return self.kind == "local" or (self.kind in ("oci", "docker") and is_unpacked)

    @property
    def is_pushed(self) -> bool:
        """True where the daemon is to push the result to a registry."""
        return self.kind == "registry" or is_true(dict(self.sent).get("push", ""))


def parse_output(text: str) -> Output:
    """The value of --output: DIR, - (a tar to stdout) or type=KIND,dest=…,k=v.

    Raises UsageError in buildx's words.
    """
    fields = split_fields(text)
    if fields == (text,) and not text.startswith("type="):
        return Output("tar", "-") if text == "-" else Output("local", text)
    attrs = {key.strip(): value for key, value in parse_attributes(text)}
    kind = attrs.pop("type", "")
    return check_output(Output(kind, attrs.pop("dest", ""), tuple(attrs.items())))


def check_output(output: Output) -> Output:
    """Return the output with buildx's defaults. Raises UsageError where its fields do not agree."""
    kind = output.kind
    if not kind:
        raise UsageError(
            "type is required for output", next_steps=(f"name one: {', '.join(KINDS)}",)
        )
    if kind not in KINDS:
        meant = suggest(kind.lower(), KINDS)
        raise UsageError(
            f"exporter {quote_go(kind)} could not be found",
            next_steps=(f"did you mean {meant}?" if meant else f"use {', '.join(KINDS)}",),
        )
    return _place(kind, dict(output.sent), output.dest or "")


def _place(kind: str, attrs: dict[str, str], dest: str) -> Output:
    """The output with its destination checked, and buildx's defaults."""
    if kind in _NAMED and attrs.get("name"):
        _check_names(attrs)
    output = Output(kind, dest or None, tuple(attrs.items()))
    if output.is_directory:
        if not dest:
            raise UsageError(f"dest is required for {kind} exporter", next_steps=("add dest=DIR",))
        if dest == "-":
            raise UsageError(
                f"dest cannot be stdout for {kind} exporter", next_steps=("use type=tar,dest=-",)
            )
        return output
    if kind in ("tar", "oci") and not dest:
        return output._replace(dest="-")
    if dest and kind not in ("tar", "oci", "docker"):
        raise UsageError(
            f"the {kind} exporter writes no file, so that dest={dest} would be ignored",
            next_steps=("use type=docker,dest=FILE", "type=oci,dest=FILE"),
        )
    return output


def _check_names(attrs: dict[str, str]) -> None:
    if attrs["name"] != "*":  # then the names come from the frontend
        for name in attrs["name"].split(","):
            normalize_tag(name)
