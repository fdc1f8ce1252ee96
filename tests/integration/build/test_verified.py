"""What verify says of a cache is what a real BuildKit makes of it.

A real cache is spoiled in one way after the other, with all digests right. Its steps write random
bytes, so that what comes out tells whether a step was run again: BuildKit calls a step CACHED
before it has tried to load what the step made.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kitcache.upkeep.health.verify import verify
from tests.integration import witness
from tests.integration.build.kit import Kit, context, running
from tests.integration.daemon import cache_to
from tests.property.model import digest_of

Json = dict[str, Any]
RANDOM = "busybox head -c 16 /dev/urandom | busybox base64 >/out"
DOCKERFILE = running(f"{RANDOM}/one", f"{RANDOM}/two")
CAP = 1024 * 1024


def read(cache: Path, digest: str) -> Json:
    value = json.loads(witness.blob_path(cache, digest).read_bytes())
    assert isinstance(value, dict)
    return value


def put(cache: Path, data: bytes) -> Json:
    """A blob with these bytes: its digest and size, as a descriptor has them."""
    digest = digest_of(data)
    witness.blob_path(cache, digest).write_bytes(data)
    return {"digest": digest, "size": len(data)}


def encode(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def padded(value: Json, size: int) -> bytes:
    """The document with a field that nobody knows, in so many bytes."""
    room = size - len(encode(value | {"pad": ""}))
    return encode(value | {"pad": "x" * room})


def as_it_was(root: Json, config: Json) -> None:
    """Rewritten all the same: what follows is no fault of the rewriting."""


def without_annotations(root: Json, config: Json) -> None:
    for layer in root["layers"]:
        del layer["annotations"]["containerd.io/uncompressed"]


def annotated_with_no_digest(root: Json, config: Json) -> None:
    for layer in root["layers"]:
        layer["annotations"]["containerd.io/uncompressed"] = "sha256:12"


def without_layers(root: Json, config: Json) -> None:
    root["layers"] = []


def records_in_a_loop(root: Json, config: Json) -> None:
    config["records"].append({"digest": digest_of(b"a"), "inputs": [[{"link": 0}]]})
    last = len(config["records"]) - 1
    config["records"][0]["inputs"] = [[{"link": last}]]


def no_such_record(root: Json, config: Json) -> None:
    config["records"].append({"digest": digest_of(b"a"), "inputs": [[{"link": 99}]]})


def no_such_layer(root: Json, config: Json) -> None:
    config["records"].append({"digest": digest_of(b"a"), "layers": [{"layer": 99}]})


def layers_in_a_loop(root: Json, config: Json) -> None:
    count = len(config["layers"])
    config["layers"].append({"blob": config["layers"][0]["blob"], "parent": count})
    config["records"].append({"digest": digest_of(b"a"), "layers": [{"layer": count}]})


def of_two_forms(root: Json, config: Json) -> None:
    root["manifests"] = []


def that_says_it_is_an_index(root: Json, config: Json) -> None:
    root["mediaType"] = "application/vnd.oci.image.index.v1+json"


SPOILED: dict[str, tuple[Callable[[Json, Json], None], str]] = {
    function.__name__: (function, imports)
    for function, imports in (
        (as_it_was, "full"),
        (without_annotations, "none"),
        (annotated_with_no_digest, "none"),
        (without_layers, "none"),
        (records_in_a_loop, "none"),
        (no_such_record, "none"),
        (no_such_layer, "none"),
        (layers_in_a_loop, "none"),
        (of_two_forms, "none"),
        (that_says_it_is_an_index, "none"),
    )
}


class Grown(NamedTuple):
    """A real cache, the context that it is of, and what its steps wrote."""

    cache: Path
    context: Path
    written: dict[str, str]


@pytest.fixture
def grown(kit: Kit, tmp_path: Path) -> Grown:
    """Exported by one build, with its result beside it."""
    where, cache = context(tmp_path / "context", DOCKERFILE), tmp_path / "grown"
    kit.daemon.prune()
    attrs = {"mode": "max", "image_manifest": "true"}
    out = where / "out"
    kit.must("--network=none", f"--cache-to={cache_to(cache, **attrs)}", "-o", out, where)
    return Grown(cache, where, files_in(out))


def files_in(out: Path) -> dict[str, str]:
    return {name: (out / name).read_text() for name in ("one", "two")}


def spoil(
    grown: Grown,
    change: Callable[[Json, Json], None],
    *,
    root_bytes: int = 0,
    config_bytes: int = 0,
) -> Path:
    """A copy of the cache with its root and its cacheconfig changed."""
    cache = grown.cache.with_name("spoiled")
    shutil.copytree(grown.cache, cache)
    (entry,) = witness.entries(cache)
    root = read(cache, entry["digest"])
    config = read(cache, root["config"]["digest"])
    change(root, config)
    data = padded(config, config_bytes) if config_bytes else encode(config)
    root["config"] |= put(cache, data)
    entry |= put(cache, padded(root, root_bytes) if root_bytes else encode(root))
    (cache / "index.json").write_bytes(encode({"schemaVersion": 2, "manifests": [entry]}))
    return cache


def check(kit: Kit, grown: Grown, cache: Path, imports: str) -> None:
    """The verdict; and of a build that knows nothing but that cache, which steps ran again."""
    (verdict,) = verify(cache).tags
    assert verdict.importable == imports, verdict
    source = f"--cache-from=type=local,src={cache}"
    for run in (kit.must, kit.buildx):
        kit.daemon.prune()
        out = grown.context / "out"
        shutil.rmtree(out)
        built = run("--network=none", source, "-o", out, grown.context)
        assert built.code == 0, built
        had = [name for name, text in files_in(out).items() if text == grown.written[name]]
        assert had == (["one", "two"] if imports == "full" else []), (verdict, built)


@pytest.mark.parametrize("name", SPOILED)
def test_a_verdict_is_what_buildkit_makes_of_it(kit: Kit, grown: Grown, name: str) -> None:
    change, imports = SPOILED[name]
    check(kit, grown, spoil(grown, change), imports)


@pytest.mark.parametrize("what", ["root_bytes", "config_bytes"])
@pytest.mark.parametrize(("size", "imports"), [(CAP, "full"), (CAP + 1, "none")])
def test_the_caps_are_exact(kit: Kit, grown: Grown, what: str, size: int, imports: str) -> None:
    check(kit, grown, spoil(grown, as_it_was, **{what: size}), imports)
