"""options/imagenames.py: names of images, as Docker normalizes them."""

import pytest

from kitcache.errors import UsageError
from kitcache.options.imagenames import (
    InvalidImageName,
    is_digest,
    is_tag,
    normalize_reference,
    normalize_tag,
    shorten_reference,
)

DIGEST = f"sha256:{'0' * 64}"
FULL = {
    "app": "docker.io/library/app:latest",
    "app:1": "docker.io/library/app:1",
    "me/app": "docker.io/me/app:latest",
    "docker.io/app": "docker.io/library/app:latest",
    "index.docker.io/me/app:1": "docker.io/me/app:1",
    "localhost/app": "localhost/app:latest",
    "localhost:5000/app:1": "localhost:5000/app:1",
    "host:5000/a/b/c": "host:5000/a/b/c:latest",
    "example.com/app": "example.com/app:latest",
    "HOST/app": "HOST/app:latest",
    "[::1]:5000/app": "[::1]:5000/app:latest",
    "a_b/c__d.e--f": "docker.io/a_b/c__d.e--f:latest",
    f"app@{DIGEST}": f"docker.io/library/app@{DIGEST}",
    f"app:1@{DIGEST}": f"docker.io/library/app:1@{DIGEST}",
    f"app:{'a' * 128}": f"docker.io/library/app:{'a' * 128}",
}
REFUSED = (
    "", ":1", "app:", "app:-1", f"app:{'a' * 129}", "-app", "app/", "/app", "a//b", "a..b", "a___b",
    "app@sha256:0", "app@", "https://example.com/app", "ex ample/app", "app\n", "äpp", "a_-b",
    "example.com:port/app", "example..com/app",
)  # fmt: skip


@pytest.mark.parametrize("text", FULL)
def test_the_full_name(text: str) -> None:
    assert normalize_reference(text) == FULL[text]


@pytest.mark.parametrize("text", FULL)
def test_a_full_name_stays_as_it_is(text: str) -> None:
    assert normalize_reference(FULL[text]) == FULL[text]
    assert normalize_reference(shorten_reference(FULL[text])) == FULL[text]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(InvalidImageName, match="invalid reference format"):
        normalize_reference(text)


def test_special_refusals() -> None:
    with pytest.raises(InvalidImageName, match="must be lowercase"):
        normalize_reference("example.com/App")
    with pytest.raises(InvalidImageName, match="64 hexadecimal digits"):
        normalize_reference("a" * 64)
    with pytest.raises(InvalidImageName, match="not be more than 255"):
        normalize_reference("me/" + "a" * 256)
    assert normalize_reference("me/" + "a" * 64)


def test_a_tag_says_how_to_write_one() -> None:
    with pytest.raises(UsageError) as caught:
        normalize_tag("Foo:1")
    assert caught.value.problem == 'invalid tag "Foo:1": repository name must be lowercase'
    assert "NAME[:TAG]" in caught.value.hints[0]
    with pytest.raises(UsageError, match="build tag cannot contain a digest"):
        normalize_tag(f"app@{DIGEST}")


def test_a_push_by_digest_has_no_tag() -> None:
    assert normalize_tag("me/app", add_latest=False) == "docker.io/me/app"


def test_the_short_name() -> None:
    assert shorten_reference("docker.io/library/app:latest") == "app"
    assert shorten_reference("docker.io/library/a/b:1") == "library/a/b:1"
    assert shorten_reference("example.com/library/app:latest") == "example.com/library/app"


def test_a_long_name_is_refused_at_once() -> None:
    with pytest.raises(InvalidImageName):
        normalize_reference("a-" * 50_000 + "!.com/x")


def test_tags_and_digests() -> None:
    assert is_tag("v1.2_x-y")
    assert not is_tag("a/b")
    assert is_digest(DIGEST)
    assert not is_digest("latest")
