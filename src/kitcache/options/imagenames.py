"""Names of images: which are well formed, and what they are in full.

Source: distribution/reference, reference.go and normalize.go.
"""

import re

from kitcache.errors import UsageError

_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(
    rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?", re.ASCII
)
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PATH_PART}(?:/{_PATH_PART})*", re.ASCII)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(
    r"[a-z][a-z0-9]*(?:[-_+.][a-z][a-z0-9]*)*:[0-9a-f]{32,}", re.ASCII | re.IGNORECASE
)
_LONGEST_NAME = 255
_HUB = "docker.io"


class InvalidImageName(ValueError):
    """The text names no image; the message is Docker's."""


def normalize_reference(text: str, *, add_latest: bool = True) -> str:
    """The full name: docker.io/library/foo:latest for foo. Raises NotAReference.

    add_latest: give a name that has neither tag nor digest the tag latest.
    """
    rest, _, digest = text.partition("@")
    if "@" in text and not _DIGEST.fullmatch(digest):
        raise InvalidImageName("invalid reference format")
    name, tag = _split_tag(rest)
    domain, path = _split_domain(name)
    _check_name(domain, path)
    full = f"{domain}/{path}"
    if tag is not None:
        full += f":{tag}"
    if digest:
        return f"{full}@{digest}"
    return full if tag is not None or not add_latest else f"{full}:latest"


def shorten_reference(full: str) -> str:
    """The name as people write it: foo for docker.io/library/foo:latest."""
    path = full.removeprefix(f"{_HUB}/")
    own = path.removeprefix("library/")
    name = path if path == full or "/" in own else own
    return name.removesuffix(":latest")


def normalize_tag(text: str, *, add_latest: bool = True) -> str:
    """The full name of an image that is to be made. Raises UsageError."""
    try:
        full = normalize_reference(text, add_latest=add_latest)
    except InvalidImageName as error:
        raise UsageError(
            f'invalid tag "{text}": {error}',
            hints=("write NAME[:TAG], such as app:1.2 or registry.example.com/team/app:1.2",),
        ) from None
    if "@" in full:
        raise UsageError(f'invalid tag "{text}": build tag cannot contain a digest')
    return full


def is_tag(text: str) -> bool:
    """True for what can follow the colon of a name."""
    return bool(_TAG.fullmatch(text))


def is_digest(text: str) -> bool:
    """True for what can follow the @ of a name."""
    return bool(_DIGEST.fullmatch(text))


def _split_tag(text: str) -> tuple[str, str | None]:
    colon = text.rfind(":")
    if colon < 0 or "/" in text[colon:]:
        return text, None
    tag = text[colon + 1 :]
    if not _TAG.fullmatch(tag):
        raise InvalidImageName("invalid reference format")
    return text[:colon], tag


def _split_domain(name: str) -> tuple[str, str]:
    """The registry, docker.io where none is named, and the repository there."""
    first, slash, rest = name.partition("/")
    has_domain = slash and (
        "." in first or ":" in first or first == "localhost" or first.lower() != first
    )
    domain, path = (first, rest) if has_domain else (_HUB, name)
    if domain == "index.docker.io":
        domain = _HUB
    if domain == _HUB and "/" not in path:
        path = f"library/{path}"
    return domain, path


def _check_name(domain: str, path: str) -> None:
    if len(domain) + 1 + len(path) > _LONGEST_NAME:
        raise InvalidImageName(f"repository name must not be more than {_LONGEST_NAME} characters")
    if path.lower() != path:
        raise InvalidImageName("repository name must be lowercase")
    if re.fullmatch("library/[a-f0-9]{64}", path) and domain == _HUB:
        raise InvalidImageName("a repository name cannot be 64 hexadecimal digits")
    if not _PATH.fullmatch(path) or not _DOMAIN.fullmatch(domain):
        raise InvalidImageName("invalid reference format")
