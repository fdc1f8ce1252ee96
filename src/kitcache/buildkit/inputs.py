"""What a build reads: contexts and the Dockerfile, as the daemon will ask for them.

Pure: what only the disk can tell comes in as an argument. Sources: buildx build/opt.go
(loadInputs), BuildKit util/gitutil, frontend/dockerfile/dfgitutil, frontend/dockerui/context.go.
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
    """A named context that is an image in a directory here.

    name: the context's. store: our word for the directory; the daemon asks for the content store
    "oci:" + store. digest: None where the tag has to be looked up in the directory's index.json.
    """

    name: str
    store: str
    path: str
    tag: str
    digest: str | None = None

    def attr(self, digest: str) -> tuple[str, str]:
        """The frontend attribute, once the digest is known."""
        return f"context:{self.name}", f"{_OCI_LAYOUT}{self.store}:{self.tag}@{digest}"


class Inputs(NamedTuple):
    """What a build reads.

    attrs: frontend attributes. sources: the local names that the daemon may ask for, each with its
    directory as the user wrote it. stdin: what standard input is: nothing, the "context" (a tar, to
    be uploaded) or the "dockerfile", which then is the one file, named Dockerfile, of the local
    "dockerfile". is_context_empty: the local "context" holds nothing.
    """

    attrs: Pairs
    sources: Pairs = ()
    layouts: tuple[OciLayout, ...] = ()
    stdin: Literal["", "context", "dockerfile"] = ""
    is_context_empty: bool = False


def is_remote(text: str) -> bool:
    """True for a URL that the daemon fetches by itself; a directory of that name goes first."""
    return text.startswith(("http://", "https://")) or _is_git(text)


def is_archive(header: bytes) -> bool:
    """True if these first bytes (1 KiB will do) begin a tar, plain or as gzip, bzip2 or xz."""
    if header.startswith(_ARCHIVES):
        return True
    block = header[:512]
    try:
        told = int(block[148:156].strip(b" \0") or b"-1", 8)
    except ValueError:
        return False
    return len(block) == 512 and told == sum(block[:148]) + 8 * 0x20 + sum(block[156:])


def find_inputs(
    request: BuildRequest,
    is_directory: Callable[[str], bool],
    *,
    stdin_is_archive: bool = False,
    upload_id: str = "",
) -> Inputs:
    """What this build reads. Raises UsageError.

    stdin_is_archive, upload_id: needed for the context "-" alone; the latter is the last part of
    the URL under which the daemon asks for the upload.
    """
    _check_stdin(request)
    if request.context == STDIN:
        inputs = _from_stdin(request, upload_id if stdin_is_archive else None)
    elif is_directory(request.context):
        inputs = _from_directory(request, is_directory)
    elif is_remote(request.context):
        inputs = _from_url(request)
    else:
        raise UsageError(
            f"unable to prepare context: path {quote_go(hide_password(request.context))} not found",
            hints=("name a directory, a git or http URL, or - for stdin",),
        )
    return _add_named(inputs, request.build_contexts, is_directory)


def _check_stdin(request: BuildRequest) -> None:
    if not request.context:
        raise UsageError('please specify build context (e.g. "." for the current directory)')
    if request.context == STDIN and request.dockerfile == STDIN:
        raise UsageError("invalid argument: can't use stdin for both build context and dockerfile")
    if request.dockerfile and request.dockerfile.startswith(("http://", "https://")):
        raise UsageError(
            "a Dockerfile is not fetched from a URL",
            hints=("curl -fsSL URL | kitcache build -f - CONTEXT",),
        )


def _from_stdin(request: BuildRequest, upload_id: str | None) -> Inputs:
    if upload_id is not None:
        url = f"http://buildkit-session/{upload_id}"
        filename = request.dockerfile or "Dockerfile"
        return Inputs((("context", url), ("filename", filename)), stdin="context")
    if request.dockerfile:
        raise UsageError(
            "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles",
            hints=("leave out --file", "send a tar to stdin"),
        )
    return Inputs(_DOCKERFILE_HERE, stdin="dockerfile", is_context_empty=True)


_DOCKERFILE_HERE = (("dockerfilekey", "dockerfile"), ("filename", "Dockerfile"))


def _from_directory(request: BuildRequest, is_directory: Callable[[str], bool]) -> Inputs:
    sources = (("context", request.context),)
    if request.dockerfile == STDIN:
        return Inputs(_DOCKERFILE_HERE, sources, stdin="dockerfile")
    if not request.dockerfile:
        return Inputs((("filename", "Dockerfile"),), (*sources, ("dockerfile", request.context)))
    if is_directory(request.dockerfile):
        raise UsageError(
            f"--file {request.dockerfile} is a directory",
            hints=(f"--file {posixpath.join(request.dockerfile, 'Dockerfile')}",),
        )
    folder, name = posixpath.split(request.dockerfile)
    return Inputs((("filename", name),), (*sources, ("dockerfile", folder or ".")))


def _from_url(request: BuildRequest) -> Inputs:
    context = ("context", request.context)
    caps = _caps(request.context, "")
    if request.dockerfile == STDIN:
        return Inputs((context, *_DOCKERFILE_HERE, *caps), stdin="dockerfile")
    if request.dockerfile and request.dockerfile.startswith("/"):
        folder, name = posixpath.split(request.dockerfile)
        attrs = (context, ("dockerfilekey", "dockerfile"), ("filename", name), *caps)
        return Inputs(attrs, (("dockerfile", folder),))
    return Inputs((context, ("filename", request.dockerfile or "Dockerfile"), *caps))


def _add_named(inputs: Inputs, named: Pairs, is_directory: Callable[[str], bool]) -> Inputs:
    attrs = dict(inputs.attrs)
    sources = dict(inputs.sources)
    layouts: list[OciLayout] = []
    for name, place in named:
        key = f"context:{name}"
        if place.startswith(_BAKE):
            raise _no_context(name, place)
        if is_remote(place) or place.startswith(_IMAGE):
            attrs[key] = place
            _add_caps(attrs, _caps(place, "+forward"))
        elif place.startswith(_OCI_LAYOUT):
            layouts.append(_find_layout(name, place, f"context-{len(layouts)}"))
        elif is_directory(place):
            # The two names that the build's own context has are taken.
            local = f"_{name}" if name in ("context", "dockerfile") else name
            attrs[key] = f"local:{local}"
            sources[local] = place
        else:
            raise _no_context(name, place)
        _add_caps(attrs, (("frontend.caps", "moby.buildkit.frontend.contexts+forward"),))
    return inputs._replace(
        attrs=tuple(attrs.items()), sources=tuple(sources.items()), layouts=tuple(layouts)
    )


def _no_context(name: str, place: str) -> UsageError:
    if place.startswith(_BAKE):
        return UsageError(
            f"failed to get build context {name}: {place} names a target of a bake file",
            hints=("name a directory, a URL, docker-image://… or oci-layout://…",),
        )
    return UsageError(
        f"failed to get build context {name}: {hide_password(place)} is no directory",
        hints=(f"--build-context {name}=docker-image://IMAGE   if it is an image",),
    )


def parse_build_context(text: str) -> tuple[str, str]:
    """The name and the place in the value of --build-context. Raises UsageError in buildx's words.

    Source: buildx util/buildflags/context.go.
    """
    name, equals, place = text.partition("=")
    if not equals:
        raise UsageError(f"invalid context value: {text}, expected key=value")
    try:
        full = normalize_reference(name)
    except InvalidImageName as error:
        raise UsageError(f"invalid context name {name}: {error}") from None
    return shorten_reference(full), place


def _find_layout(name: str, place: str, store: str) -> OciLayout:
    """What an oci-layout://PATH[:TAG][@DIGEST] names; an @ or a colon may belong to the path."""
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
    if found := _PROTOCOL.match(text):
        protocol = found[0].lower()
        if protocol in ("http", "https"):
            return urlsplit(text).path.endswith(".git")
        return protocol in ("ssh", "git")
    return not _SCHEME.match(text) and bool(_SCP.fullmatch(text))


def _caps(url: str, suffix: str) -> Pairs:
    """What a frontend has to know for a git URL with a query; an older one says that it does not.

    It would take the query for a part of the name.
    """
    is_query = "?" in url.partition("#")[0] and ("://" in url or url.startswith("github.com/"))
    if not is_query or not _is_git(url):
        return ()
    return (("frontend.caps", f"moby.buildkit.frontend.gitquerystring{suffix}"),)


def _add_caps(attrs: dict[str, str], caps: Pairs) -> None:
    for key, value in caps:
        known = filter(None, attrs.get(key, "").split(","))
        attrs[key] = ",".join(sorted({*known, value}))
