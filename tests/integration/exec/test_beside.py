"""A local export beside one to a registry in the same build: the client names one root in both."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.integration.build.registry import Registry, login
from tests.integration.daemon import Daemon
from tests.integration.witness import entries, ref_name

from .kit import assert_swept_and_cached, context, wrapped

OUTPUT = ("--progress=plain", "--network=none", "--output=type=cacheonly")


def test_it_keeps_its_own_tag(daemon: Daemon, tmp_path: Path, need: Callable[..., None]) -> None:
    need("docker-registry", "setpriv")
    (tmp_path / "registry").mkdir()
    (tmp_path / "config").mkdir()
    with Registry(tmp_path / "registry") as registry:
        auths = {"auths": {registry.host: {"auth": login()}}}
        (tmp_path / "config" / "config.json").write_text(json.dumps(auths))
        client = ("docker", "--config", tmp_path / "config", "buildx")
        # In two forms, so that there are two roots.
        remote = f"type=registry,ref={registry.host}/x/y:c,mode=max,image-manifest=true"
        local = "type=local,dest=%s,mode=max,tag=%s,reset=true"
        app = context(tmp_path, "1")
        for tag, order in (("a", slice(None)), ("b", slice(None, None, -1))):
            caches = [f"--cache-to={value}" for value in (local % ("cache", tag), remote)[order]]
            wrapped(daemon, tmp_path, *client, "build", *OUTPUT, *caches, app)
        assert sorted(map(ref_name, entries(tmp_path / "cache"))) == ["a", "b"]
        target = {"context": "app", "output": ["type=cacheonly"]}
        target |= {"cache-to": [local % ("baked", "a"), remote]}  # type: ignore[dict-item]
        (tmp_path / "docker-bake.json").write_text(json.dumps({"target": {"default": target}}))
        wrapped(daemon, tmp_path, *client, "bake", "--progress=plain")
        assert registry.tags("x/y") == ["c"]
    assert_swept_and_cached(daemon, tmp_path, tmp_path / "baked", "a")
    assert_swept_and_cached(daemon, tmp_path, tmp_path / "cache", "b")
