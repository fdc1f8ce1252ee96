import pytest

from kitcache.errors import UsageError
from kitcache.wrap.argv import UNDERSTOOD, direct_job, recognize


@pytest.mark.parametrize(
    ("words", "kind", "at"),
    [
        ("docker build .", "build", 1),
        ("docker -H x --context=y -D image build .", "build", 6),
        ("docker --config build builder build .", "build", 4),
        ("docker buildx --builder bake b", "build", 4),
        ("docker buildx bake", "bake", 2),
        ("buildx f", "bake", 1),
        ("/opt/docker-buildx -D bake", "bake", 2),
        ("docker compose -f x build", "compose", 2),
        ("docker --host x compose up", "compose", 4),
        ("docker-compose run web", "compose", 1),
        ("buildctl --addr build -debug b", "buildctl", 4),
    ],
)
def test_what_a_command_is(words: str, kind: str, at: int) -> None:
    found = recognize(words.split())
    assert (found.kind, found.at, found.argv) == (kind, at, tuple(words.split()))


@pytest.mark.parametrize(
    "words",
    ["ls", "docker", "docker run build", "docker image ls", "docker compose down", "buildx",
     "docker --tlscacert build", "docker -- build", "buildctl prune", "docker image build-more"],
)  # fmt: skip
def test_what_is_not_understood_names_what_is(words: str) -> None:
    with pytest.raises(UsageError) as caught:
        recognize(words.split())
    assert all(line in str(caught.value) for line in UNDERSTOOD)


def test_exports_and_imports_are_found_and_values_of_others_are_not() -> None:
    words = ["docker", "build", "--cache-to", "a", "-t", "--cache-to", "--cache-from=b", "-fo=c",
             "--label", "--cache-to=x", ".", "--cache-to=d", "--", "--cache-to=e"]  # fmt: skip
    job = direct_job(recognize(words))
    assert (job.exports, job.imports, job.solves) == (("a", "d"), ("b",), (0, 0))
    wanted = [*words[:3], "A", *words[4:11], "--cache-to=D", *words[12:]]
    assert job.rewrite(("A", "D")).argv == tuple(wanted)


def test_an_option_without_its_value_is_left_to_the_client() -> None:
    assert direct_job(recognize(["docker", "build", "--cache-to"])).exports == ()
