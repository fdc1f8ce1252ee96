"""The private daemon itself: it stands apart from the machine's docker, and it leaves nothing."""

from pathlib import Path

import pytest

from .daemon import Daemon, mounts_below


def processes_naming(text: str) -> list[str]:
    """Command lines of living processes that hold a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in command:
            found.append(command)
    return found


def test_it_leaves_no_process_mount_or_file(daemon: Daemon) -> None:
    with Daemon() as other:
        assert other.root != daemon.root
        other.base_image()
        root = str(other.root)
        assert len(processes_naming(root)) == 2, "dockerd and its own containerd"
    assert processes_naming(root) == []
    assert mounts_below(Path(root)) == []
    assert not Path(root).exists()


def test_two_daemons_do_not_share_images(daemon: Daemon) -> None:
    with Daemon() as other:
        assert other.must("image", "ls", "--quiet") == ""
        assert daemon.must("image", "ls", "--quiet") != ""


def test_it_is_not_led_elsewhere_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, daemon: Daemon
) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "nowhere")
    monkeypatch.setenv("BUILDX_BUILDER", "nobody")
    with Daemon() as other:
        assert "DOCKER_CONTEXT" not in other.env
        found = other.must("info", "--format", "{{.DockerRootDir}}").strip()
        assert found == f"{other.root}/data"
