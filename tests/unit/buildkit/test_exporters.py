"""buildkit/exporters.py: outputs and tags as a Solve's exporters."""

import pytest

from kitcache.buildkit.exporters import Exporter, make_exporters
from kitcache.errors import UsageError
from kitcache.options.build import BuildRequest
from kitcache.options.outputs import parse_output

FULL = "docker.io/library/app:latest"


def make(*outputs: str, is_engine: bool = False, **fields: object) -> tuple[Exporter, ...]:
    request = BuildRequest(outputs=tuple(map(parse_output, outputs)))
    return make_exporters(request._replace(**fields), is_engine=is_engine)  # type: ignore[arg-type]


def refuse(*outputs: str, **fields: object) -> str:
    with pytest.raises(UsageError) as caught:
        make(*outputs, **fields)  # type: ignore[arg-type]
    return caught.value.problem


def test_without_an_output_an_engine_gets_the_image_and_buildkitd_keeps_it() -> None:
    assert make(is_engine=True, tags=("app",)) == (Exporter("moby", (("name", FULL),)),)
    assert make(is_engine=True) == (Exporter("moby"),)
    assert make(tags=("app",)) == ()


def test_cacheonly_is_no_exporter() -> None:
    assert make("type=cacheonly", is_engine=True) == ()
    (exporter,) = make("type=cacheonly", "out", is_engine=True)
    assert exporter == Exporter("local", (), "directory", "out")


@pytest.mark.parametrize(
    ("text", "exporter"),
    [
        ("out", Exporter("local", (), "directory", "out")),
        ("-", Exporter("tar", (), "file", "-")),
        ("type=oci,dest=x", Exporter("oci", (), "file", "x")),
        ("type=oci,dest=x,tar=false", Exporter("oci", (("tar", "false"),), "store", "x")),
        ("type=docker,dest=x", Exporter("docker", (), "file", "x")),
        ("type=image", Exporter("image")),
    ],
)
def test_what_comes_back(text: str, exporter: Exporter) -> None:
    assert make(text) == (exporter,)


def test_an_engine_has_an_exporter_of_its_own_for_images() -> None:
    for text in ("type=docker", "type=image", "type=moby"):
        assert make(text, is_engine=True)[0].kind == "moby"
    assert make("type=docker,dest=x", is_engine=True)[0].kind == "docker"


def test_what_buildkitd_cannot_load_comes_here_to_be_loaded() -> None:
    (exporter,) = make("type=docker", tags=("app",))
    assert (exporter.kind, exporter.receives, exporter.dest) == ("docker", "load", None)


def test_a_registry_is_a_pushed_image() -> None:
    (exporter,) = make("type=registry,name=app")
    assert exporter.kind == "image"
    assert dict(exporter.attrs) == {"unpack": "false", "name": FULL, "push": "true"}
    assert dict(make("type=registry,unpack=true", tags=("a",))[0].attrs)["unpack"] == "true"


def test_tags_name_every_image_and_nothing_else() -> None:
    tags = ("app", "example.com/app:2", "app:latest")
    exporters = make("type=image,name=other", "type=oci,dest=x", "out", tags=tags)
    names = [dict(exporter.attrs).get("name") for exporter in exporters]
    assert names == [f"{FULL},example.com/app:2", f"{FULL},example.com/app:2", None]


def test_names_are_in_full_but_for_a_star_and_a_push_by_digest() -> None:
    assert dict(make('type=image,"name=app,b:1"')[0].attrs)["name"] == (
        f"{FULL},docker.io/library/b:1"
    )
    assert dict(make("type=image,name=*")[0].attrs)["name"] == "*"
    (exporter,) = make("type=image,name=app,push-by-digest=true,push=true", is_engine=True)
    assert (exporter.kind, dict(exporter.attrs)["name"]) == ("image", "docker.io/library/app")


def test_a_push_needs_a_name() -> None:
    assert refuse("type=registry") == "tag is needed when pushing to registry"
    assert refuse("type=image,push=true") == "tag is needed when pushing to registry"


def test_what_cannot_be_together() -> None:
    assert refuse("-", "type=oci") == "multiple outputs configured to write to stdout"
    unpacked = ("type=oci,dest=x,tar=false", "type=oci,dest=y,tar=false")
    assert "one OCI layout directory" in refuse(*unpacked)
    lists: tuple[dict[str, object], ...] = (
        {"platforms": ("linux/amd64", "linux/arm64")},
        {"attests": (("sbom", ""),)},
    )
    for fields in lists:
        assert "does not support exporting manifest lists" in refuse("type=docker,dest=x", **fields)
        assert make("type=oci,dest=x", **fields)  # type: ignore[arg-type]
