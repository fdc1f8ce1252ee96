"""buildkit/sources.py: what one build lets the daemon ask for, found before anything is built."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from kitcache.buildkit.session.memory import MemoryFiles
from kitcache.buildkit.sources import SessionSources, open_sources
from kitcache.errors import KitcacheError, NotACache, NotFound, UsageError
from kitcache.oci.digest import parse_digest
from kitcache.options.build import BuildRequest
from tests.hostile.build import Sample

DOCKERFILE = b"FROM scratch\n"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_bytes(DOCKERFILE)
    return directory


def make_tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(DOCKERFILE)
        archive.addfile(entry, io.BytesIO(DOCKERFILE))
    return out.getvalue()


def refuse(
    kind: type[KitcacheError], request: BuildRequest, stdin: BinaryIO | None = None
) -> KitcacheError:
    with ExitStack() as stack, pytest.raises(kind) as caught:
        open_sources(request, stdin, stack)
    return caught.value


def files_in(offer: SessionSources, name: str) -> MemoryFiles:
    found = offer.sources[name]
    assert isinstance(found, MemoryFiles)
    return found


def test_a_directory_is_offered_twice_and_nothing_else(context: Path, stack: ExitStack) -> None:
    offer = open_sources(BuildRequest(str(context)), None, stack)
    assert offer.directories == {"context": str(context), "dockerfile": str(context)}
    assert (dict(offer.uploads), dict(offer.stores)) == ({}, {})


def test_named_directories_are_offered_by_their_names(
    context: Path, tmp_path: Path, stack: ExitStack
) -> None:
    (tmp_path / "lib").mkdir()
    request = BuildRequest(str(context), build_contexts=(("lib", str(tmp_path / "lib")),))
    offer = open_sources(request, None, stack)
    assert str(tmp_path / "lib") in offer.directories.values()
    assert len(offer.directories) == 3


# The Dockerfile.


def test_a_dockerfile_that_is_not_there(context: Path) -> None:
    (context / "Dockerfile").unlink()
    error = refuse(NotFound, BuildRequest(str(context)))
    assert error.path == str(context / "Dockerfile")
    assert "there is no Dockerfile" in str(error)
    assert "nothing was built" in str(error)
    assert "name the Dockerfile" in str(error)


def test_the_lower_case_name_will_do_unless_one_was_named(context: Path, stack: ExitStack) -> None:
    (context / "Dockerfile").rename(context / "dockerfile")
    assert open_sources(BuildRequest(str(context)), None, stack).directories
    refuse(NotFound, BuildRequest(str(context), dockerfile=str(context / "Dockerfile")))


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_dockerfile_that_is_no_file(context: Path, make: object) -> None:
    (context / "Dockerfile").unlink()
    make(context / "Dockerfile")  # type: ignore[operator]
    assert "not a regular file" in str(refuse(UsageError, BuildRequest(str(context))))


def test_a_dockerfile_behind_a_loop_of_links(context: Path) -> None:
    (context / "Dockerfile").unlink()
    (context / "Dockerfile").symlink_to("Dockerfile")
    error = refuse(KitcacheError, BuildRequest(str(context)))
    assert "the Dockerfile cannot be opened" in str(error)
    assert error.effect == "nothing was built"


# Stdin.


@pytest.mark.parametrize("request_", [BuildRequest("-"), BuildRequest(".", dockerfile="-")])
def test_stdin_that_is_wanted_and_not_there(request_: BuildRequest) -> None:
    assert '"-" means stdin' in str(refuse(UsageError, request_))


def test_stdin_that_is_empty() -> None:
    assert "stdin is empty" in str(refuse(UsageError, BuildRequest("-"), io.BytesIO()))
    zstd = io.BytesIO(b"\x28\xb5\x2f\xfd and more")
    assert "compressed with zstd" in str(refuse(UsageError, BuildRequest("-"), zstd))


def test_a_tar_on_stdin_is_uploaded_whole(stack: ExitStack) -> None:
    data = make_tar()
    offer = open_sources(BuildRequest("-"), io.BytesIO(data), stack)
    ((name, stream),) = offer.uploads.items()
    assert (stream.read(10_000_000) + stream.read()) == data
    assert f"http://buildkit-session/{name}" in dict(offer.inputs.attrs).values()
    assert offer.directories == {}


def test_a_tar_in_a_pipe_is_read_as_it_comes(stack: ExitStack) -> None:
    data = make_tar()
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe, open(writing, "wb", buffering=0) as source:
        source.write(data[:2000])
        offer = open_sources(BuildRequest("-"), pipe, stack)
        (stream,) = offer.uploads.values()
        got = stream.read(65536)
        while len(got) < 2000:
            got += stream.read(65536)  # what is there by now, although the pipe has not ended
        source.write(data[2000:])
        source.close()
        while more := stream.read(65536):
            got += more
    assert got == data


def test_each_upload_has_a_name_of_its_own(stack: ExitStack) -> None:
    names = {
        name
        for _ in range(3)
        for name in open_sources(BuildRequest("-"), io.BytesIO(make_tar()), stack).uploads
    }
    assert len(names) == 3


@pytest.mark.parametrize("length", [1, 1023, 1024, 1025, 5000])
def test_a_dockerfile_on_stdin(context: Path, stack: ExitStack, length: int) -> None:
    text = (DOCKERFILE + b"#" * length)[:length]
    alone = open_sources(BuildRequest("-"), io.BytesIO(text), stack)
    assert files_in(alone, "dockerfile") == MemoryFiles({"Dockerfile": text})
    assert files_in(alone, "context") == MemoryFiles({})
    request = BuildRequest(str(context), dockerfile="-")
    beside = open_sources(request, io.BytesIO(text), stack)
    assert files_in(beside, "dockerfile") == MemoryFiles({"Dockerfile": text})
    assert beside.directories == {"context": str(context)}


class Pieces(io.RawIOBase):
    """A stream that came in three writes: no read goes past the end of one."""

    def __init__(self, data: bytes, first: int) -> None:
        self._pieces = [data[:first], data[first:1500], data[1500:]]

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        self._pieces = [piece for piece in self._pieces if piece]
        if not self._pieces:
            return b""
        came = self._pieces[0][: size if size >= 0 else None]
        self._pieces[0] = self._pieces[0][len(came) :]
        return came


def pieces(data: bytes, first: int) -> BinaryIO:
    return cast("BinaryIO", Pieces(data, first))


@pytest.mark.parametrize("first", [1, 400, 1200])
def test_a_dockerfile_that_comes_in_pieces(context: Path, stack: ExitStack, first: int) -> None:
    text = DOCKERFILE + b"#" * 5000
    alone = open_sources(BuildRequest("-"), pieces(text, first), stack)
    assert files_in(alone, "dockerfile") == MemoryFiles({"Dockerfile": text})
    request = BuildRequest(str(context), dockerfile="-")
    beside = open_sources(request, pieces(text, first), stack)
    assert files_in(beside, "dockerfile") == MemoryFiles({"Dockerfile": text})


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("first", [1, 5, 400])
def test_a_tar_that_comes_in_pieces(
    stack: ExitStack, compress: Callable[[bytes], bytes], first: int
) -> None:
    data = compress(make_tar())
    offer = open_sources(BuildRequest("-"), pieces(data, first), stack)
    (stream,) = offer.uploads.values()
    assert b"".join(iter(lambda: stream.read(65536), b"")) == data


def test_stdin_that_does_not_wait_is_no_end(stack: ExitStack) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with open(reading, "rb", buffering=0) as pipe, open(writing, "wb", buffering=0) as source:
        source.write(DOCKERFILE)
        assert "does not wait" in str(refuse(UsageError, BuildRequest("-"), pipe))
        source.write(make_tar())
        offer = open_sources(BuildRequest("-"), pipe, stack)
        (stream,) = offer.uploads.values()
        with pytest.raises(BlockingIOError):
            list(iter(lambda: stream.read(65536), b""))


def test_a_dockerfile_on_stdin_that_has_no_end() -> None:
    with open("/dev/zero", "rb") as zero:
        error = refuse(UsageError, BuildRequest("-"), zero)
    assert "too long for a Dockerfile" in str(error)


# Image layouts.


def layout_request(context: Path, reference: str) -> BuildRequest:
    return BuildRequest(str(context), build_contexts=(("base", f"oci-layout://{reference}"),))


@pytest.mark.parametrize("by", ["tag", "digest"])
def test_a_layout_is_opened_and_its_image_named(
    context: Path, sample: Sample, stack: ExitStack, by: str
) -> None:
    digest = str(sample.main["digest"])
    reference = f"{sample.dir}:main" if by == "tag" else f"{sample.dir}@{digest}"
    offer = open_sources(layout_request(context, reference), None, stack)
    ((store_id, store),) = offer.stores.items()
    assert store_id.startswith("oci:")
    value = dict(offer.inputs.attrs)["context:base"]
    assert value.startswith(f"oci-layout://{store_id.removeprefix('oci:')}")
    assert value.endswith(f"@{digest}")
    assert str(sample.dir) not in value
    blob = store.open_blob(parse_digest(digest))
    assert blob is not None
    os.close(blob.fd)


def test_a_layout_that_lacks_the_tag(context: Path, sample: Sample) -> None:
    error = refuse(NotFound, layout_request(context, f"{sample.dir}:none"))
    assert "it has no tag 'none'" in str(error)
    assert error.effect == "nothing was built"


def test_a_directory_that_is_no_layout(context: Path) -> None:
    error = refuse(NotACache, layout_request(context, f"{context}:main"))
    assert error.effect == "nothing was built"


@pytest.mark.parametrize("index", [b"{", b"[]", b"\xff"])
def test_a_layout_whose_index_is_garbage(context: Path, sample: Sample, index: bytes) -> None:
    (sample.dir / "index.json").write_bytes(index)
    error = refuse(KitcacheError, layout_request(context, f"{sample.dir}:main"))
    assert "index.json" in str(error)
    assert error.effect == "nothing was built"
