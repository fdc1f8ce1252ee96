"""buildkit/targets.py: where results may go is checked before, and a layout is named after."""

import base64
import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from kitcache.buildkit.exporters import Exporter
from kitcache.buildkit.session.outputs import DirectoryTarget, StreamTarget
from kitcache.buildkit.session.stores import IncomingBlob, WritableContentStore
from kitcache.buildkit.targets import Targets, open_targets
from kitcache.errors import Damaged, KitcacheError, NotACache, UsageError
from kitcache.oci.digest import parse_digest
from kitcache.store.directory import DirectoryStore
from kitcache.upkeep.jobcaches import LockedCaches, LockOptions
from tests.hostile.build import INDEX, MANIFEST, digest_of, encode

TERMS = LockOptions(5.0, None, lambda _: None)
IMAGE_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def to_file(dest: object) -> Exporter:
    return Exporter("tar", (), "file", str(dest))


def to_directory(dest: object) -> Exporter:
    return Exporter("local", (), "directory", str(dest))


def to_layout(dest: object, name: str = "") -> Exporter:
    attrs = (("tar", "false"), *((("name", name),) if name else ()))
    return Exporter("oci", attrs, "store", str(dest))


def open_one(exporter: Exporter, stack: ExitStack) -> Targets:
    return open_targets([exporter], None, LockedCaches(TERMS, stack, "nothing was built"), stack)


def refuse(kind: type[KitcacheError], exporter: Exporter) -> KitcacheError:
    with ExitStack() as stack, pytest.raises(kind) as caught:
        open_one(exporter, stack)
    return caught.value


def test_each_output_has_the_number_of_its_exporter(tmp_path: Path, stack: ExitStack) -> None:
    stdout = io.BytesIO()
    exporters = [
        Exporter("image"),
        to_file(tmp_path / "a/b/out.tar"),
        to_directory(tmp_path / "out/deep"),
        to_file("-"),
    ]
    targets = open_targets(
        exporters, stdout, LockedCaches(TERMS, stack, "nothing was built"), stack
    )
    assert targets.files == {
        1: StreamTarget(str(tmp_path / "a/b/out.tar")),
        2: DirectoryTarget(str(tmp_path / "out/deep")),
        3: StreamTarget(stdout),
    }
    assert dict(targets.stores) == {}
    assert (tmp_path / "out/deep").is_dir()
    assert list((tmp_path / "a/b").iterdir()) == []


def test_nothing_is_written_where_nothing_is_wanted(stack: ExitStack) -> None:
    targets = open_one(Exporter("moby"), stack)
    assert (dict(targets.files), targets.layout, targets.loads) == ({}, None, ())
    targets.publish({}, TERMS)


def test_an_archive_is_not_shown_to_a_person() -> None:
    assert "refusing to write to console" in str(refuse(UsageError, to_file("-")))


def test_a_file_in_the_place_of_a_directory_and_the_other_way_round(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("file", "dangling"):
        assert "is a file" in str(refuse(UsageError, to_directory(tmp_path / name)))
    assert "is a directory" in str(refuse(UsageError, to_file(tmp_path)))


@pytest.mark.parametrize("make", [to_file, to_directory])
def test_what_lies_below_a_file_cannot_be_made(tmp_path: Path, make: Any) -> None:
    (tmp_path / "file").touch()
    error = refuse(KitcacheError, make(tmp_path / "file/x/y"))
    assert "cannot be made" in str(error)
    assert error.effect == "nothing was built"


# A layout.


def send(targets: Targets, *, media_type: str | None = MANIFEST) -> dict[str, Any]:
    """An image of one blob, as the daemon sends it; its descriptor."""
    store = targets.stores["export"]
    assert isinstance(store, WritableContentStore)
    body = {"schemaVersion": 2, "layers": []}
    data = encode(body | ({"mediaType": media_type} if media_type else {}))
    digest = digest_of(data)
    begun = store.begin(digest, len(data), parse_digest(digest))
    if isinstance(begun, IncomingBlob):
        begun.write(memoryview(data))
        begun.commit(len(data), parse_digest(digest))
        begun.close()
    return {"mediaType": media_type or MANIFEST, "digest": digest, "size": len(data)}


def response(descriptor: object, **more: str) -> dict[str, str]:
    encoded = base64.b64encode(json.dumps(descriptor).encode()).decode()
    return {"containerimage.descriptor": encoded, **more}


def entries(layout: Path) -> list[tuple[str, str | None, str | None]]:
    """Digest, tag and image name of each entry."""
    found = json.loads((layout / "index.json").read_bytes())["manifests"]
    named = [(entry["digest"], entry.get("annotations") or {}) for entry in found]
    return [(digest, notes.get(REF_NAME), notes.get(IMAGE_NAME)) for digest, notes in named]


def test_an_image_without_a_name_is_the_latest(tmp_path: Path, stack: ExitStack) -> None:
    targets = open_one(to_layout(tmp_path / "l"), stack)
    image = send(targets)
    targets.publish(response(image), TERMS)
    assert entries(tmp_path / "l") == [(image["digest"], "latest", None)]


def test_an_image_is_named_as_it_was_asked_for(tmp_path: Path, stack: ExitStack) -> None:
    names = "docker.io/library/app:1,localhost:5000/app"
    targets = open_one(to_layout(tmp_path / "l", names), stack)
    image = send(targets)
    answer = response(image) | {"image.name": "another.exporters/name:9"}
    targets.publish(answer, TERMS)
    assert entries(tmp_path / "l") == [
        (image["digest"], "1", "docker.io/library/app:1"),
        (image["digest"], "latest", "localhost:5000/app"),
    ]


def test_a_name_that_only_the_daemon_knows(tmp_path: Path, stack: ExitStack) -> None:
    targets = open_one(to_layout(tmp_path / "l", "*"), stack)
    image = send(targets)
    targets.publish(response(image) | {"image.name": "a:1"}, TERMS)
    assert entries(tmp_path / "l") == [(image["digest"], "1", "a:1")]


OTHER = {"mediaType": INDEX, "digest": "sha256:" + "0" * 64, "size": 1}


@pytest.mark.parametrize(
    "answer",
    [response(OTHER), {}, {"containerimage.descriptor": "!"}, response("x"), response([])],
    ids=["another's", "none", "no base64", "a text", "a list"],
)
def test_what_was_sent_counts_and_not_what_is_said_of_it(
    tmp_path: Path, stack: ExitStack, answer: dict[str, str]
) -> None:
    targets = open_one(to_layout(tmp_path / "l"), stack)
    image = send(targets)
    targets.publish(answer, TERMS)
    assert [digest for digest, *_ in entries(tmp_path / "l")] == [image["digest"]]


def test_an_image_that_never_came_is_not_named(tmp_path: Path, stack: ExitStack) -> None:
    targets = open_one(to_layout(tmp_path / "l"), stack)
    with pytest.raises(KitcacheError, match="sent no image"):
        targets.publish(response(OTHER), TERMS)
    assert entries(tmp_path / "l") == []


def test_a_directory_of_others_is_no_layout(tmp_path: Path) -> None:
    (tmp_path / "l").mkdir()
    (tmp_path / "l/mine").touch()
    refuse(NotACache, to_layout(tmp_path / "l"))
    assert [path.name for path in (tmp_path / "l").iterdir()] == ["mine"]


def test_an_index_that_broke_during_the_build_is_a_damaged_cache(
    tmp_path: Path, stack: ExitStack
) -> None:
    targets = open_one(to_layout(tmp_path / "l"), stack)
    image = send(targets)
    (tmp_path / "l/index.json").write_bytes(b"[]")
    with pytest.raises(Damaged, match=r"index.json") as caught:
        targets.publish(response(image), TERMS)
    assert (caught.value.path, caught.value.kind) == (str(tmp_path / "l"), "malformed")
    assert (tmp_path / "l/index.json").read_bytes() == b"[]"


@pytest.mark.parametrize("moment", ["before", "in between"])
def test_an_image_that_lacks_a_blob_is_an_error(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Another client's reset, which holds none of our locks, deletes it."""
    targets = open_one(to_layout(tmp_path / "l"), stack)
    image = send(targets)
    real = DirectoryStore.commit_roots

    def lose(*args: Any, **more: Any) -> Any:
        (tmp_path / "l/blobs/sha256" / image["digest"][7:]).unlink()
        return real(*args, **more) if args else None

    if moment == "before":
        lose()
    else:
        monkeypatch.setattr(DirectoryStore, "commit_roots", lose)
    with pytest.raises(Damaged, match="is missing") as caught:
        targets.publish(response(image), TERMS)
    is_published = moment != "before"
    assert caught.value.kind == ("lost" if is_published else "missing")
    assert len(entries(tmp_path / "l")) == is_published
