"""`-q`, `--iidfile` and `image_id` say what `docker run` takes, in each kind of image store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kitcache.buildkit.client import Client
from kitcache.buildkit.daemon.address import find_daemon
from tests.integration.build.kit import Kit, context
from tests.integration.daemon import BASE, Daemon
from tests.integration.listener import into_engine, listen_unix


@pytest.fixture(scope="module")
def older() -> Iterator[Daemon]:
    """A docker engine without the containerd image store."""
    with Daemon(containerd_store=False) as running:
        running.base_image()
        yield running


@pytest.fixture(params=["containerd", "older"])
def kit_of_each(request: pytest.FixtureRequest, daemon: Daemon, tmp_path: Path) -> Kit:
    daemon.base_image()
    engine = daemon if request.param == "containerd" else request.getfixturevalue("older")
    return Kit(engine, tmp_path / "home")


@pytest.fixture
def where(tmp_path: Path) -> Path:
    """Makes an image that says who it is."""
    lines = (f"FROM {BASE}", "COPY f /f", 'CMD ["busybox", "cat", "/f"]')
    return context(tmp_path / "c", "\n".join(lines), f=f"made in {tmp_path}")


def run(engine: Daemon, image: str) -> str:
    return engine.must("run", "--rm", "--network", "none", image)


def test_it_runs(kit_of_each: Kit, where: Path, tmp_path: Path) -> None:
    kit, engine = kit_of_each, kit_of_each.daemon
    iidfile = tmp_path / "iid"
    built = kit.must("-q", "--iidfile", iidfile, "-t", "image-id:1", where)
    image = iidfile.read_text()
    assert (built.err, built.out) == ("", f"{image}\n")
    assert run(engine, image) == f"made in {tmp_path}"
    assert engine.must("image", "inspect", "--format", "{{.Id}}", "image-id:1") == f"{image}\n"
    with Client(find_daemon(engine.env)) as client:
        assert client.build(str(where)).image_id == image


def test_it_runs_with_attestations(daemon: Daemon, where: Path, tmp_path: Path) -> None:
    image = Kit(daemon, tmp_path / "home").must("-q", "--provenance=true", where).out.strip()
    assert run(daemon, image) == f"made in {tmp_path}"


def test_it_runs_where_a_buildkitd_built_it(
    kit_of_each: Kit, daemon: Daemon, where: Path, tmp_path: Path
) -> None:
    """The daemon that builds has no images: they are loaded into the engine that docker uses."""
    address = tmp_path / "s"
    with listen_unix(address, into_engine(daemon.socket)):
        built = kit_of_each.must("-q", "--addr", f"unix://{address}", "--load", where)
    assert run(kit_of_each.daemon, built.out.strip()) == f"made in {tmp_path}"
