"""Names of images: validation, and the full form.

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
_MAX_NAME = 255
_HUB = "docker.io"
_INVALID = "invalid reference format"


class InvalidImageName(ValueError):
    """A text is not the name of an image. The message is Docker's."""


def normalize_reference(text: str, *, add_latest: bool = True) -> str:
    """Return the full name: docker.io/library/foo:latest for foo. Raise InvalidImageName.

    Args:
        add_latest: Add the tag latest to a name that has neither a tag nor a digest.
    """
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise InvalidImageName(_INVALID)
    colon = name.rfind(":")
    tag = ""
    if colon >= 0 and "/" not in name[colon:]:
        name, tag = name[:colon], name[colon + 1 :]
        if not _TAG.fullmatch(tag):
            raise InvalidImageName(_INVALID)
    domain, path = _split_domain(name)
    if len(domain) + 1 + len(path) > _MAX_NAME:
        raise InvalidImageName(f"repository name must not be more than {_MAX_NAME} characters")
    if path.lower() != path:
        raise InvalidImageName("repository name must be lowercase")
    if re.fullmatch("library/[a-f0-9]{64}", path) and domain == _HUB:
        raise InvalidImageName("a repository name cannot be 64 hexadecimal digits")
    if not _PATH.fullmatch(path) or not _DOMAIN.fullmatch(domain):
        raise InvalidImageName(_INVALID)
    if not tag and not digest and add_latest:
        tag = "latest"
    return f"{domain}/{path}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


def shorten_reference(full: str) -> str:
    """Return the short name: foo for docker.io/library/foo:latest."""
    path = full.removeprefix(f"{_HUB}/")
    own = path.removeprefix("library/")
    name = path if path == full or "/" in own else own
    return name.removesuffix(":latest")


def normalize_tag(text: str, *, add_latest: bool = True) -> str:
    """Return the full name of an image that is to be built. Raise UsageError."""
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
    """Return True if the text can follow the colon of a name."""
    return bool(_TAG.fullmatch(text))


def is_digest(text: str) -> bool:
    """Return True if the text can follow the @ of a name."""
    return bool(_DIGEST.fullmatch(text))


def _split_domain(name: str) -> tuple[str, str]:
    """Return the registry, docker.io if the name has none, and the repository in it."""
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
