"""cli/policyfile.py: a file to a policy; what is no text of ours, and what is waited for."""

import os
from pathlib import Path
from threading import Event

import pytest

from kitcache.cli.policyfile import read_file
from kitcache.errors import Cancelled, KitcacheError, UsageError
from kitcache.options.prunepolicy import PrunePolicy, common_rule

TEXT = '# a policy\r\n\r\nkeep-tag = ["a",\t"b"]\r\nkeep-last = 3\r\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "p.toml"


def read(path: Path, data: bytes) -> PrunePolicy:
    path.write_bytes(data)
    return read_file(str(path), Event())


@pytest.mark.parametrize("text", [TEXT, TEXT.replace("\r\n", "\n"), TEXT[:-2], "\ufeff" + TEXT])
def test_lines_may_end_as_anywhere(path: Path, text: str) -> None:
    policy = read(path, text.encode())
    assert (policy.keep_tags, common_rule(policy).keep_last) == (("a", "b"), 3)
    assert policy.source == str(path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (TEXT.encode("utf-16"), "it is not UTF-8: this is not TOML"),
        (TEXT.encode() + b"# \xe9", "it is not UTF-8: this is not TOML"),
        (
            ("\ufeff" * 2 + TEXT).encode(),
            "this is not TOML: Invalid statement (at line 1, column 1)",
        ),
        (TEXT.replace("\n", "").encode(), "this is not TOML: Found invalid character '\\r'"),
        (TEXT.encode() + b"keep-lsat = 1\r\n", "keep-lsat: unknown key"),
        (TEXT.encode() + b"keep-last = 1\r\n", "this is not TOML: Cannot overwrite a value"),
        (TEXT.encode() + b"\0", "this is not TOML: Invalid statement"),
        (b"#" * (64 * 1024 + 1), "a policy has at most 65,536 bytes"),
    ],
)
def test_what_is_wrong_in_it(path: Path, data: bytes, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(path, data)
    assert caught.value.path == str(path)
    assert caught.value.problem.startswith(says)


def test_a_file_of_the_largest_size(path: Path) -> None:
    assert read(path, b"#" * 64 * 1024).is_empty


def test_a_name_of_nothing(path: Path) -> None:
    with pytest.raises(KitcacheError, match="cannot read the policy: No such file") as caught:
        read_file(str(path), Event())
    assert (caught.value.exit_code, caught.value.effect) == (1, "nothing was done")


def test_a_pipe_that_nobody_writes_is_left_to_itself(path: Path) -> None:
    os.mkfifo(path)
    cancel = Event()
    cancel.set()
    with pytest.raises(Cancelled) as caught:
        read_file(str(path), cancel)
    os.close(os.open(path, os.O_RDWR))
    assert (caught.value.path, caught.value.effect) == (str(path), "nothing was done")


def test_a_pipe_without_a_writer_is_not_waited_for_without_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(path)
    monkeypatch.setattr("kitcache.cli.policyfile.WRITER_TIMEOUT_S", 0.0)
    with pytest.raises(UsageError, match="no process writes to it"):
        read_file(str(path), Event())
