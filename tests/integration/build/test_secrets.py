"""Secrets reach the step that names them, and nothing else: no output, no image, no cache."""

import hashlib
import json
from pathlib import Path

import pytest

from kitcache import Client, Secret
from tests.integration.build.kit import Kit, context, running, tree_bytes
from tests.integration.daemon import BASE, Daemon

WORDS = {"file": "hush-4711-file", "env": "hush-4712-env", "id": "hush-4713-id"}
MOUNTS = " ".join(f"--mount=type=secret,id={name},required=true" for name in WORDS)
STEP = MOUNTS + " " + " && ".join(
    f"busybox sha256sum < /run/secrets/{name} > /out/{name}" for name in WORDS
)  # fmt: skip
USED = running(STEP).replace("FROM scratch\nCOPY --from=work /out /\n", "")


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """The three ways to give a secret."""
    (tmp_path / "secret.txt").write_text(WORDS["file"])
    file = f"id=file,src={tmp_path / 'secret.txt'}"
    return [word for text in (file, "id=env,env=HUSH", "id=id") for word in ("--secret", text)]


ENV = {"HUSH": WORDS["env"], "id": WORDS["id"]}


def hidden(text: bytes) -> bool:
    return not any(word.encode() in text for word in WORDS.values())


def test_each_kind_of_secret_reaches_its_step(kit: Kit, tmp_path: Path, options: list[str]) -> None:
    found = kit.files(*options, context(tmp_path / "c", running(STEP)), env=ENV)
    assert found == {
        name: f"{hashlib.sha256(word.encode()).hexdigest()}  -\n".encode()
        for name, word in WORDS.items()
    }


@pytest.mark.parametrize("progress", ["plain", "rawjson"])
def test_a_secret_is_nowhere_in_what_a_build_leaves(
    kit: Kit, tmp_path: Path, options: list[str], progress: str
) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    built = kit.must(
        *options,
        *("--progress", progress, "--network=none", "--no-cache", "--provenance=mode=max"),
        *("-t", "hush:1", "--output", f"type=oci,dest={out}/oci,tar=false", "--load"),
        *("--cache-to", f"type=local,dest={cache},mode=max,compression=uncompressed"),
        *("--metadata-file", out / "metadata.json", "--iidfile", out / "iid"),
        context(tmp_path / "c", USED),
        env=ENV,
    )
    assert hidden(built.stdout + built.err.encode())
    assert b"busybox sha256sum" in tree_bytes(out)
    assert hidden(tree_bytes(out))
    assert len(list((cache / "blobs" / "sha256").iterdir())) > 3
    assert hidden(tree_bytes(cache))
    history = kit.daemon.must("history", "--no-trunc", "hush:1")
    assert "busybox sha256sum" in history
    assert hidden((history + kit.daemon.must("image", "inspect", "hush:1")).encode())


def test_a_failing_step_does_not_tell_the_secrets_it_had(
    kit: Kit, tmp_path: Path, options: list[str]
) -> None:
    where = context(tmp_path / "c", USED + f"RUN {MOUNTS} exit 7\n")
    built = kit.run(*options, "--network=none", where, env=ENV)
    assert built.code == 21
    assert "exit code: 7" in built.err
    assert hidden(built.stdout + built.err.encode())


def test_a_secret_that_was_not_given(kit: Kit, tmp_path: Path) -> None:
    needs = f"FROM {BASE}\nRUN --mount=type=secret,id=gone,required=true true\n"
    built = kit.run("--network=none", context(tmp_path / "c", needs))
    assert built.code == 21
    assert "secret gone: not found" in built.err
    assert "Dockerfile:2" in built.err


def test_a_secret_whose_file_is_gone_is_named(kit: Kit, tmp_path: Path) -> None:
    needs = f"FROM {BASE}\nRUN --mount=type=secret,id=lost,required=true true\n"
    secret = f"id=lost,src={tmp_path / 'nowhere'}"
    built = kit.run("--secret", secret, "--network=none", context(tmp_path / "c", needs))
    assert built.code == 1
    assert f"{tmp_path}/nowhere: the file of the secret lost cannot be read: No such" in built.err
    assert "nothing was built" in built.err


def test_an_empty_variable_is_warned_of(kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "c", "FROM scratch\nCOPY one /\n", one="1")
    built = kit.must("--secret", "id=x,env=NOT_SET_ANYWHERE", "-o", "type=cacheonly", where)
    assert "secret x is empty" in built.err


def test_a_secret_of_the_library_is_in_no_repr(daemon: Daemon, kit: Kit, tmp_path: Path) -> None:
    where = context(tmp_path / "c", running(STEP))
    secrets = [Secret(name, data=word.encode()) for name, word in WORDS.items()]
    updates: list[object] = []
    with Client(f"unix://{daemon.socket}") as client:
        result = client.build(
            str(where),
            no_cache=True,
            network="none",
            secrets=secrets,
            outputs=[f"type=local,dest={tmp_path / 'out'}"],
            on_update=updates.append,
        )
    assert (
        (tmp_path / "out" / "env")
        .read_text()
        .startswith(hashlib.sha256(WORDS["env"].encode()).hexdigest())
    )
    shown = repr((secrets, result, updates)) + json.dumps(dict(result.metadata))
    assert hidden(shown.encode())
