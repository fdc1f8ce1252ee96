"""Addresses of object stores on the command line: parsed once, warned about, without a secret."""

from pathlib import Path

import pytest

from kitcache.cli.console import Console
from kitcache.cli.objects import secret_warnings
from kitcache.cli.text import request_notes, reset_lines, reset_notes
from kitcache.errors import UsageError
from kitcache.options.objectcaches import ObjectCache
from kitcache.store.open import StoreAddress
from kitcache.store.values import RequestCounts, StoreReport
from tests.hostile.command import run
from tests.unit.cli.test_text import NOTHING

SECRET = "access_key_id=AKIA,secret_access_key=hush,session_token=hush"
PASTED = f"type=s3,bucket=b,region=r,{SECRET}"
SHORT = "s3://b/?region=r"
COMMANDS = (
    ("du",),
    ("ls",),
    ("why", "9c1e"),
    ("reset", "--yes"),
    ("prune", "--max-used-space", "5GB"),
    ("untag", "main"),
    ("tag", "main", "other"),
    ("trim", "main", "--max-used-space", "5GB"),
    ("verify",),
    ("verify", "--repair"),
)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_refuses_an_incomplete_address(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    answer = run(tmp_path, words[0], f"type=s3,bucket=b,{SECRET}", *words[1:])
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("kitcache: region ($AWS_REGION) not set for s3 cache\n")
    assert "hint: add region=REGION" in answer.err
    assert "hush" not in answer.err


@pytest.mark.parametrize(
    "words",
    [
        ("du", "--json", f"type=s3,bucket=b,{SECRET},region"),
        ("why", "a", "b", PASTED),
        ("du", f"--bogus={PASTED}", "a"),
        ("reset", PASTED, "--min-age", PASTED),
        (PASTED,),
        ("merge", PASTED, "cache"),
        ("merge", "a", PASTED),
        ("verify", "a", "--from", PASTED),
        ("ls", f"./{PASTED}"),
    ],
)
def test_no_secret_is_printed(words: tuple[str, ...], tmp_path: Path) -> None:
    answer = run(tmp_path, *words)
    assert answer.code
    assert "hush" not in answer.out + answer.err


def test_warnings_about_an_address_come_once(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    seen: list[StoreAddress] = []

    def work(address: StoreAddress) -> int:
        assert isinstance(address, ObjectCache)
        seen.append(address)
        console.print_report(address.address, StoreReport(RequestCounts(), address.warnings))
        return 0

    assert console.each([f"{PASTED},bukcet=x"] * 2, work) == 0
    assert [str(address) for address in seen] == [SHORT] * 2
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        f'kitcache: {SHORT}: s3 cache: unknown attribute "bukcet"; did you mean bucket?',
        f"kitcache: {SHORT}: secret_access_key and session_token are on the command line, where"
        " other users of this machine can read them; instead, set AWS_PROFILE, or AWS_ACCESS_KEY_ID"
        " and AWS_SECRET_ACCESS_KEY",
        *[f"kitcache: {SHORT}: 0 requests: none"] * 2,
    ]
    assert out == ""


def test_with_json_they_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert Console(wants_json=True).each([f"{PASTED},bukcet=x"], lambda _: 0) == 0
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err.count(f"kitcache: {SHORT}: ")) == ("", 2, 2)


def test_an_error_of_the_system_names_the_short_form(capsys: pytest.CaptureFixture[str]) -> None:
    def work(address: StoreAddress) -> int:
        raise OSError(5, "Input/output error")

    assert Console().each([PASTED], work) == 1
    assert f"kitcache: {SHORT}: failed: Input/output error" in capsys.readouterr().err


def test_secrets_of_azure_have_their_own_advice() -> None:
    cache = ObjectCache("azblob", "c", endpoint_url="http://a?sig=hush", secret_access_key="hush")
    (warning,) = secret_warnings(cache)
    assert warning.startswith(
        "secret_access_key and the SAS in account_url are on the command line"
    )
    assert "az login" in warning
    assert list(secret_warnings(ObjectCache("s3", "b"))) == []


def test_requests_are_counted_by_kind() -> None:
    counts = RequestCounts(list=1200, get=3, delete=1)
    assert list(request_notes("c", counts)) == ["c: 1,204 requests: 1,200 list, 3 get, 1 delete"]
    assert list(request_notes("c", None)) == []


def test_a_run_that_needs_a_confirmation_prints_its_numbers_and_why() -> None:
    doubt = "this is the first run of kitcache on this cache"
    result = NOTHING._replace(path=SHORT, outcome="dry-run", requests=RequestCounts(), reason=doubt)
    assert list(reset_lines(result)) == [
        f"{SHORT}: nothing to delete; kept 0, 0 B, for 0 tags (0.0 s)"
    ]
    assert (result.needs_confirmation, result.exit_code) == (True, 15)
    for other in (
        result._replace(reason=""),
        result._replace(outcome="refused"),
        NOTHING._replace(outcome="dry-run", reason=doubt),
    ):
        assert (other.needs_confirmation, other.exit_code) == (False, 0)


def test_an_upload_is_named_by_its_blob() -> None:
    name = f"ci/blobs/sha256:{'9c1e' * 16}?uploadId=2~AbC/d"
    (note,) = reset_notes(NOTHING._replace(ingests_kept=((name, "last written 1 s ago"),)))
    assert note == "./cache: kept 1 upload: sha256:9c1e9c1e9c1e (last written 1 s ago)"


def test_a_limit_of_a_disk_is_a_usage_error(tmp_path: Path) -> None:
    for words in (("--max-used-space", "10%"), ("--min-free-space", "20GB")):
        answer = run(tmp_path, "prune", *words, PASTED)
        option = " ".join(words) if words[1].endswith("%") else words[0]
        assert answer.code == UsageError.exit_code
        assert f"kitcache: {SHORT}: {option} needs a disk, and an object store has none\n" in (
            answer.err
        )
        assert "hint: write a size: --max-used-space 500GB" in answer.err
