"""Attestations: the values of --attest, --provenance and --sbom.

Source: buildx util/buildflags/attests.go.
"""

from collections.abc import Iterable

from kitcache.errors import UsageError
from kitcache.options.attributes import (
    Pairs,
    is_false,
    is_true,
    join_attributes,
    parse_attributes,
    parse_bool,
)


def parse_attests(texts: Iterable[str]) -> Pairs:
    """The kinds, each with what the frontend is to see, of several type=KIND[,k=v].

    One that is disabled is left out. Raises UsageError in buildx's words.
    """
    found: dict[str, str | None] = {}
    for text in texts:
        kind, value = _parse_attest(text)
        if kind in found:
            raise UsageError(f"duplicate attestation field {kind}")
        found[kind] = value
    return tuple((kind, value) for kind, value in found.items() if value is not None)


def spell_attest(kind: str, value: str) -> str:
    """What --provenance=VALUE or --sbom=VALUE is short for: a truth value, or attributes."""
    if is_true(value) or not value:
        return f"type={kind}"
    if is_false(value):
        return f"type={kind},disabled=true"
    return f"type={kind},{value}"


def _parse_attest(text: str) -> tuple[str, str | None]:
    attrs = {key.strip(): value for key, value in parse_attributes(text)}
    kind = attrs.pop("type", "")
    if not kind:
        raise UsageError(
            "attestation type not specified",
            hints=("add type=provenance or type=sbom",),
        )
    disabled = attrs.pop("disabled", "false")
    if parse_bool(disabled, f"invalid value disabled={disabled}"):
        return kind, None
    return kind, join_attributes(attrs.items())
