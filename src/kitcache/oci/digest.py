"""Digests: what a blob is called, and the proof that bytes are that blob.

Source: OCI image-spec, descriptor.md, section "Digests".
"""

import hashlib
import re
from typing import NamedTuple

HEX_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
"""The algorithms whose blobs kitcache judges, with the exact length of their hex."""

_GRAMMAR = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
_KNOWN = re.compile("|".join(f"{name}:[0-9a-f]{{{n}}}" for name, n in HEX_LENGTHS.items()))
LOWER_HEX = "0123456789abcdef"


class Digest(NamedTuple):
    """An algorithm and the encoded hash; for a known algorithm exactly its lower-case hex."""

    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @property
    def is_known(self) -> bool:
        """Whether kitcache can check bytes against it."""
        return self.algorithm in HEX_LENGTHS

    @property
    def short(self) -> str:
        """Twelve digits, for eyes only."""
        return f"{self.algorithm}:{self.hex[:12]}"

    def matches(self, data: bytes) -> bool:
        """Whether these bytes hash to this digest; False for an algorithm that is not known."""
        return self.is_known and hashlib.new(self.algorithm, data).hexdigest() == self.hex


def is_blob_name(algorithm: str, name: str) -> bool:
    """Whether a file of that name below blobs/<algorithm>/ can be a blob: exactly its hex."""
    return len(name) == HEX_LENGTHS.get(algorithm) and not name.strip(LOWER_HEX)


def are_blob_names(algorithm: str, names: list[str]) -> bool:
    """is_blob_name of every one of them, at a third of the price."""
    text = "".join(names)
    try:
        # fromhex takes upper case and blanks too, which do not come back.
        is_lower_hex = bytes.fromhex(text).hex() == text
    except ValueError:
        return False
    return is_lower_hex and set(map(len, names)) == {HEX_LENGTHS.get(algorithm)}


def parse_digest(text: object) -> Digest:
    """The digest that the text spells.

    An algorithm that is not known passes where it follows the grammar: its blobs are leaves in
    a directory that nobody here touches. Raises ValueError with the reason otherwise.
    """
    if not isinstance(text, str):
        raise ValueError(f"a digest has to be text, not {type(text).__name__}")
    algorithm, _, encoded = text.partition(":")
    if _KNOWN.fullmatch(text):
        return Digest(algorithm, encoded)
    if not _GRAMMAR.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no digest")
    if algorithm in HEX_LENGTHS:
        wanted = HEX_LENGTHS[algorithm]
        raise ValueError(f"{text[:80]!r} is no digest: {algorithm} has {wanted} lower-case digits")
    return Digest(algorithm, encoded)
