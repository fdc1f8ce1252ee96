"""The inputs of a build: its contexts and its Dockerfile, under the names that the daemon uses.

No I/O: callers report the state of the disk. Sources: buildx build/opt.go (loadInputs), BuildKit
util/gitutil, frontend/dockerfile/dfgitutil, frontend/dockerui/context.go.
"""

import posixpath
import re
from collections.abc import Callable
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from kitcache.errors import UsageError
from kitcache.masking import hide_password
from kitcache.options.attributes import Pairs, quote_go
from kitcache.options.build import BuildRequest
from kitcache.options.imagenames import (
    InvalidImageName,
    is_digest,
    is_tag,
    normalize_reference,
    shorten_reference,
)

STDIN = "-"
_PROTOCOL = re.compile(r"[a-zA-Z0-9]+(?=://)", re.ASCII)
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:(?=[/?#]|$)", re.ASCII)
_SCP = re.compile(r"(?:[a-zA-Z0-9_-]+@)?[a-zA-Z0-9.-]+:.*", re.ASCII)
_ARCHIVES = (b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\x00")
_OCI_LAYOUT = "oci-layout://"
_IMAGE = "docker-image://"
_BAKE = "target:"


class OciLayout(NamedTuple):
    """A named context that is an image in a local directory.

    Attributes:
        name: The name of the context.
        store: The id of the directory; the daemon asks for the content store "oci:" + store.
        digest: The digest of the image; None if index.json has to be read for the tag.
    """

    name: str
    store: str
    path: str
    tag: str
    digest: str | None = None

    def attr(self, digest: str) -> tuple[str, str]:
        """Return the frontend attribute that names the image."""
        return f"context:{self.name}", f"{_OCI_LAYOUT}{self.store}:{self.tag}@{digest}"


class Inputs(NamedTuple):
    """The inputs of a build.

    Attributes:
        attrs: Frontend attributes.
        sources: Local names that the daemon may ask for, with directories as the user wrote them.
        stdin: The content of stdin: "" (not used), the "context" (a tar to upload) or the
            "dockerfile" (the only file, Dockerfile, of the local name "dockerfile").
    """

    attrs: Pairs
    sources: Pairs = ()
    layouts: tuple[OciLayout, ...] = ()
    stdin: Literal["", "context", "dockerfile"] = ""


def is_remote(text: str) -> bool:
    """Return True for a URL that the daemon fetches. A directory of that name has precedence."""
    return text.startswith(("http://", "https://")) or _is_git(text)


def is_archive(header: bytes) -> bool:
    """Return True if these first bytes (1 KiB) are of a tar, plain or in gzip, bzip2 or xz."""
    if header.startswith(_ARCHIVES):
        return True
    block = header[:512]
    try:
        checksum = int(block[148:156].strip(b" \0") or b"-1", 8)
    except ValueError:
        return False
    return len(block) == 512 and checksum == sum(block[:148]) + 8 * 0x20 + sum(block[156:])


def find_inputs(
    request: BuildRequest,
    is_directory: Callable[[str], bool],
    *,
    stdin_is_archive: bool = False,
    upload_id: str = "",
) -> Inputs:
    """Return the inputs of a build. Raise UsageError.

    Args:
        is_directory: Returns True if a path is a directory.
        stdin_is_archive: For the context "-": True if stdin is a tar.
        upload_id: For the context "-": last part of the URL from which the daemon gets the tar.
    """
    if not request.context:
        raise UsageError('please specify build context (e.g. "." for the current directory)')
    if request.context == STDIN and request.dockerfile == STDIN:
        raise UsageError("invalid argument: can't use stdin for both build context and dockerfile")
    if request.dockerfile and request.dockerfile.startswith(("http://", "https://")):
        raise UsageError(
            "a Dockerfile is not fetched from a URL", hints=("download it, and name the file",)
        )
    caps: set[str] = set()
    if request.context == STDIN:
        inputs = _from_stdin(request, upload_id if stdin_is_archive else None)
    elif is_directory(request.context):
        inputs = _from_directory(request, is_directory)
    elif is_remote(request.context):
        inputs = _from_url(request)
        caps |= _git_caps(request.context, "")
    else:
        raise UsageError(
            f"unable to prepare context: path {quote_go(hide_password(request.context))} not found",
            hints=("name a directory, a git or http URL, or - for stdin",),
        )
    inputs = _add_named(inputs, request.build_contexts, is_directory, caps)
    caps_attr = (("frontend.caps", ",".join(sorted(caps))),) if caps else ()
    return inputs._replace(attrs=(*inputs.attrs, *caps_attr))


def _from_stdin(request: BuildRequest, upload_id: str | None) -> Inputs:
    if upload_id is not None:
        url = f"http://buildkit-session/{upload_id}"
        filename = request.dockerfile or "Dockerfile"
        return Inputs((("context", url), ("filename", filename)), stdin="context")
    if request.dockerfile:
        raise UsageError(
            "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles",
            hints=("name no Dockerfile", "send a tar to stdin"),
        )
    return Inputs(_DOCKERFILE_HERE, stdin="dockerfile")


_DOCKERFILE_HERE = (("dockerfilekey", "dockerfile"), ("filename", "Dockerfile"))


def _from_directory(request: BuildRequest, is_directory: Callable[[str], bool]) -> Inputs:
    sources = (("context", request.context),)
    if request.dockerfile == STDIN:
        return Inputs(_DOCKERFILE_HERE, sources, stdin="dockerfile")
    if not request.dockerfile:
        return Inputs((("filename", "Dockerfile"),), (*sources, ("dockerfile", request.context)))
    if is_directory(request.dockerfile):
        raise UsageError(
            "the Dockerfile is a directory",
            path=request.dockerfile,
            hints=(f"name {posixpath.join(request.dockerfile, 'Dockerfile')}",),
        )
    folder, name = posixpath.split(request.dockerfile)
    return Inputs((("filename", name),), (*sources, ("dockerfile", folder or ".")))


def _from_url(request: BuildRequest) -> Inputs:
    context = ("context", request.context)
    if request.dockerfile == STDIN:
        return Inputs((context, *_DOCKERFILE_HERE), stdin="dockerfile")
    if request.dockerfile and request.dockerfile.startswith("/"):
        folder, name = posixpath.split(request.dockerfile)
        attrs = (context, ("dockerfilekey", "dockerfile"), ("filename", name))
        return Inputs(attrs, (("dockerfile", folder),))
    return Inputs((context, ("filename", request.dockerfile or "Dockerfile")))


def _add_named(
    inputs: Inputs, named: Pairs, is_directory: Callable[[str], bool], caps: set[str]
) -> Inputs:
    attrs = dict(inputs.attrs)
    sources = dict(inputs.sources)
    layouts: list[OciLayout] = []
    for name, place in named:
        key = f"context:{name}"
        if place.startswith(_BAKE):
            raise UsageError(
                f"failed to get build context {name}: {place} names a target of a bake file",
                hints=("name a directory, a URL, docker-image://… or oci-layout://…",),
            )
        if is_remote(place) or place.startswith(_IMAGE):
            attrs[key] = place
            caps |= _git_caps(place, "+forward")
        elif place.startswith(_OCI_LAYOUT):
            layouts.append(_find_layout(name, place, f"context-{len(layouts)}"))
        elif is_directory(place):
            # The main context and the Dockerfile use these two names.
            local = f"_{name}" if name in ("context", "dockerfile") else name
            attrs[key] = f"local:{local}"
            sources[local] = place
        else:
            raise UsageError(
                f"failed to get build context {name}: {hide_password(place)} is not a directory",
                hints=("write docker-image://IMAGE if it is an image",),
            )
        caps.add("moby.buildkit.frontend.contexts+forward")
    return inputs._replace(
        attrs=tuple(attrs.items()), sources=tuple(sources.items()), layouts=tuple(layouts)
    )


def parse_build_context(text: str) -> tuple[str, str]:
    """Return the checked name and place of NAME=PLACE. Raise UsageError in buildx's words.

    Source: buildx util/buildflags/context.go.
    """
    name, equals, place = text.partition("=")
    if not equals:
        raise UsageError(f"invalid context value: {text}, expected key=value")
    return check_build_context(name, place)


def check_build_context(name: str, place: str) -> tuple[str, str]:
    """Return the short form of a context's name, and its place. Raise UsageError."""
    try:
        full = normalize_reference(name)
    except InvalidImageName as error:
        raise UsageError(f"invalid context name {name}: {error}") from None
    return shorten_reference(full), place


def _find_layout(name: str, place: str, store: str) -> OciLayout:
    """Parse oci-layout://PATH[:TAG][@DIGEST]. An @ or a colon can belong to the path."""
    path = place.removeprefix(_OCI_LAYOUT)
    before, at, after = path.rpartition("@")
    digest = None
    if at and is_digest(after):
        path, digest = before, after
    before, colon, after = path.rpartition(":")
    if colon and is_tag(after):
        return OciLayout(name, store, before, after, digest)
    return OciLayout(name, store, path, "latest", digest)


def _is_git(text: str) -> bool:
    if text.startswith(("./", "../")):
        return False
    if text.startswith("github.com/"):
        return True
    if match := _PROTOCOL.match(text):
        protocol = match[0].lower()
        if protocol in ("http", "https"):
            return urlsplit(text).path.endswith(".git")
        return protocol in ("ssh", "git")
    return not _SCHEME.match(text) and bool(_SCP.fullmatch(text))


def _git_caps(url: str, suffix: str) -> set[str]:
    """Return the capability that a frontend needs for a git URL with a query.

    An older frontend reads the query as part of the name; with this attribute it fails instead.
    """
    is_query = "?" in url.partition("#")[0] and ("://" in url or url.startswith("github.com/"))
    if not is_query or not _is_git(url):
        return set()
    return {f"moby.buildkit.frontend.gitquerystring{suffix}"}
