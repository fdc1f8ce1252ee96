"""A sound cache to damage, for every hostile test; and a cache and a context for builds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import exec_kit, faulty, privilege
from tests.hostile.build import Sample, make_sample
from tests.hostile.sound_cache import Cache
from tests.property.disk import fast_directory


@pytest.fixture(autouse=True, scope="session")
def _loud_skips(request: pytest.FixtureRequest) -> None:
    privilege.capture = request.config.pluginmanager.getplugin("capturemanager")


@pytest.fixture(scope="session")
def fault_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[faulty.Server]:
    """Runs commands of which one call fails; `docker` is the client of exec_client.py there."""
    if faulty.compiler() is None:
        privilege.cannot("a C compiler is not installed")
    scratch = tmp_path_factory.mktemp("faults")
    path = exec_kit.install(scratch / "bin")["PATH"]
    with faulty.Server(scratch, PATH=path, EXEC_DO="export") as server:
        yield server


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """A tmp_path for what runs hundreds of times, and syncs each time."""
    with fast_directory() as path:
        yield path


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """Two tags and four dead blobs in tmp_path/cache, bystanders beside it."""
    return make_sample(tmp_path)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """One tag in tmp_path/cache, to which a build exports another one."""
    return Cache(tmp_path / "cache")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A build's context in tmp_path/context: all of it is copied."""
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    return directory
