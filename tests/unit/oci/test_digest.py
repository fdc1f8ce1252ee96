"""oci/digest.py: what spells a digest, what can be a blob's name, what proves bytes."""

import hashlib

import pytest

from kitcache.oci.digest import HEX_LENGTHS, Digest, is_blob_name, parse_digest

HEX = hashlib.sha256(b"blob").hexdigest()


@pytest.mark.parametrize(("algorithm", "length"), HEX_LENGTHS.items())
def test_a_known_algorithm_has_one_length(algorithm: str, length: int) -> None:
    assert hashlib.new(algorithm).digest_size * 2 == length
    assert parse_digest(f"{algorithm}:{'a' * length}") == Digest(algorithm, "a" * length)
    for wrong in (length - 1, length + 1):
        with pytest.raises(ValueError, match=f"{algorithm} has {length} lower-case digits"):
            parse_digest(f"{algorithm}:{'a' * wrong}")


def test_upper_case_is_no_hex() -> None:
    with pytest.raises(ValueError, match="lower-case"):
        parse_digest(f"sha256:{HEX.upper()}")


@pytest.mark.parametrize(
    "text",
    ["blake3:abc", "sha256+b64u:LCa0a2j_xo", "multihash+base58:QmRZ", "md5:XY", "a_b.c-d:0"],
)
def test_an_unknown_algorithm_passes_by_the_grammar(text: str) -> None:
    digest = parse_digest(text)
    assert str(digest) == text
    assert not digest.is_known
    assert not digest.matches(b"")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        f":{HEX}",
        f"SHA256:{HEX}",
        f"sha256:../{HEX}",
        f"sha256:{HEX}\n",
        f" sha256:{HEX}",
        f"../sha256:{HEX}",
        "a/b:c",
        "a+:c",
        "a:b:c",
        "a:é",
        "a:\x00",
    ],
)
def test_nothing_else_is_a_digest(text: str) -> None:
    with pytest.raises(ValueError, match="is not a digest"):
        parse_digest(text)


@pytest.mark.parametrize("value", [None, 7, b"sha256:00", ["sha256"], {}])
def test_a_digest_is_text(value: object) -> None:
    with pytest.raises(ValueError, match=f"not {type(value).__name__}"):
        parse_digest(value)


def test_a_message_quotes_only_the_beginning() -> None:
    with pytest.raises(ValueError, match="is not a digest") as caught:
        parse_digest("sha256:" + "a" * 100_000)
    assert len(str(caught.value)) < 200


def test_bytes_are_proven() -> None:
    assert Digest("sha256", HEX).matches(b"blob")
    assert not Digest("sha256", HEX).matches(b"blob ")
    assert Digest("sha512", hashlib.sha512(b"x").hexdigest()).matches(b"x")


@pytest.mark.parametrize(
    ("name", "is_blob"),
    [
        (HEX, True),
        (HEX[:-1], False),
        (HEX + "0", False),
        (HEX.upper(), False),
        (HEX[:-1] + "g", False),
        (HEX[:30] + "g" + HEX[31:], False),
        (HEX[:-1] + "\n", False),
        (HEX[:-1] + "٣", False),
        ("", False),
    ],
)
def test_a_blob_name_is_exactly_the_hex(name: str, is_blob: bool) -> None:
    assert is_blob_name("sha256", name) is is_blob


def test_no_name_is_a_blob_of_an_unknown_algorithm() -> None:
    assert not is_blob_name("blake3", HEX)


def test_twelve_digits_are_for_eyes() -> None:
    assert Digest("sha256", HEX).short == f"sha256:{HEX[:12]}"
