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
    """Return kind and frontend attributes of each enabled type=KIND[,k=v]. Raise UsageError."""
    values: dict[str, str | None] = {}
    for text in texts:
        attrs = {key.strip(): value for key, value in parse_attributes(text)}
        kind = attrs.pop("type", "")
        if not kind:
            raise UsageError(
                "attestation type not specified", hints=("add type=provenance or type=sbom",)
            )
        if kind in values:
            raise UsageError(f"duplicate attestation field {kind}")
        disabled = attrs.pop("disabled", "false")
        is_disabled = parse_bool(disabled, f"invalid value disabled={disabled}")
        values[kind] = None if is_disabled else join_attributes(attrs.items())
    return tuple((kind, value) for kind, value in values.items() if value is not None)


def spell_attest(kind: str, value: str) -> str:
    """Return --provenance=VALUE or --sbom=VALUE as type=KIND[,k=v]; VALUE may be a truth value."""
    if is_true(value) or not value:
        return f"type={kind}"
    if is_false(value):
        return f"type={kind},disabled=true"
    return f"type={kind},{value}"
