"""options/attests.py: --attest, --provenance and --sbom."""

import pytest

from kitcache.errors import UsageError
from kitcache.options.attests import parse_attests, spell_attest


def test_the_kind_and_the_rest() -> None:
    texts = ["type=provenance,mode=max", "type=sbom", 'type=x,"a=b,c",d=e']
    assert parse_attests(texts) == (
        ("provenance", "mode=max"),
        ("sbom", ""),
        ("x", '"a=b,c",d=e'),
    )


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("true", (("sbom", ""),)),
        ("1", (("sbom", ""),)),
        ("false", ()),
        ("generator=image", (("sbom", "generator=image"),)),
        ("disabled=true", ()),
        ("disabled=false,a=b", (("sbom", "a=b"),)),
    ],
)
def test_the_short_forms(value: str, meant: tuple[tuple[str, str], ...]) -> None:
    assert parse_attests([spell_attest("sbom", value)]) == meant


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (["mode=max"], "attestation type not specified"),
        (["type=sbom", "type=sbom"], "duplicate attestation field sbom"),
        (["type=sbom,disabled=true", "type=sbom"], "duplicate attestation field sbom"),
        (["type=sbom,max"], "invalid value max"),
        (
            ["type=sbom,disabled=yes"],
            'invalid value disabled=yes: "yes" is neither true nor false',
        ),
    ],
)
def test_refusals(texts: list[str], problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_attests(texts)
    assert caught.value.problem == problem
