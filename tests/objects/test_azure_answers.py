"""AzureClient and the answers that Azurite does not give: versions, busy services, cut pages."""

import os
import re
import ssl
import sys
import threading
import types
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import trustme
from azure.core.exceptions import ClientAuthenticationError

from kitcache.errors import KitcacheError
from kitcache.options.objectcaches import ObjectCache
from kitcache.store.objects import azureclient
from kitcache.store.objects.azure import open_azure
from kitcache.store.objects.azurelisting import date_ns, parse_page
from kitcache.store.objects.client import ObjectClient, ObjectInfo, Target


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = {"initial_backoff": 0, "increment_base": 0, "random_jitter_range": 0}
    monkeypatch.setattr(azureclient, "_RETRY", {"retry_total": 3, **waits})


def keys(client: ObjectClient, prefix: str, **options: Any) -> list[list[str]]:
    return [[item.key for item in page.objects] for page in client.list_pages(prefix, **options)]


PAGE = """<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>{}</Blobs>{}
</EnumerationResults>"""
BLOB = (
    "<Blob><Name{}>{}</Name>{}<Properties><Last-Modified>Mon, 30 Nov 2026 01:52:20 GMT"
    "</Last-Modified><Etag>0x8D</Etag><Content-Length>64</Content-Length></Properties></Blob>"
)
WRITTEN_NS = int(datetime(2026, 11, 30, 1, 52, 20, tzinfo=UTC).timestamp()) * 10**9


def test_an_encoded_name_is_decoded_and_another_is_not() -> None:
    blobs = BLOB.format(' Encoded="true"', "a%01b%2F", "") + BLOB.format("", "c%01", "")
    objects, marker, _ = parse_page(PAGE.format(blobs, "<NextMarker>2!x</NextMarker>").encode())
    assert objects == [
        ObjectInfo("a\x01b/", 64, WRITTEN_NS, '"0x8D"'),
        ObjectInfo("c%01", 64, WRITTEN_NS, '"0x8D"'),
    ]
    assert marker == "2!x"


def version(name: str, *, is_current: bool = False) -> str:
    current = "<IsCurrentVersion>true</IsCurrentVersion>" if is_current else ""
    return f"<VersionId>2026-11-30T01:52:2{name}.0Z</VersionId>{current}"


def test_versions_follow_each_other_newest_first() -> None:
    blobs = (
        BLOB.format("", "a", version("1"))
        + BLOB.format("", "a", version("2", is_current=True))
        + BLOB.format("", "b", version("0"))
    )
    objects, marker, _ = parse_page(PAGE.format(blobs, "<NextMarker/>").encode())
    assert [(item.key, item.version[18], item.is_current) for item in objects] == [
        ("a", "2", True),
        ("a", "1", False),
        ("b", "0", False),
    ]
    assert marker == ""


NAMELESS = PAGE.format("<Blob></Blob>", "").encode()


@pytest.mark.parametrize("data", [PAGE.encode()[:60], b"", b"<html></html>", b"{}", NAMELESS])
def test_a_truncated_page_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a complete page"):
        parse_page(data)


def test_dates() -> None:
    assert date_ns("Thu, 01 Jan 1970 00:00:01 GMT") == 10**9
    assert date_ns("Tue, 29 Feb 2028 23:59:59 GMT") == 1835481599 * 10**9


Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[str, str, bytes], Answer]], str]]:
    """Start a server. Its answers are those of a function of method, path and body."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Callable[[str, str, bytes], Answer]) -> str:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, headers, data = answer(self.command, self.path, body)
                self.send_response(status)
                headers = {"Content-Length": str(len(data))} | headers
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/account"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def client_at(url: str) -> ObjectClient:
    return open_azure(
        ObjectCache(
            "azblob", "c", endpoint_url=url, account_name="account", secret_access_key="a2V5"
        )
    )


XML = {"Content-Type": "application/xml"}


def test_a_busy_service_is_asked_again(serve: Any) -> None:
    answers = [(503, {"x-ms-error-code": "ServerBusy"}, b"")] * 2
    answers.append((200, XML, PAGE.format(BLOB.format("", "a", ""), "").encode()))
    client = client_at(serve(lambda *_: answers.pop(0)))
    assert keys(client, "") == [["a"]]
    assert client.requests == {"list": 3}
    client.close()


def test_a_service_that_stays_busy_is_an_error(serve: Any) -> None:
    client = client_at(serve(lambda *_: (503, {"x-ms-error-code": "ServerBusy"}, b"")))
    with pytest.raises(KitcacheError, match="the service is busy"):
        list(client.list_pages(""))
    assert client.requests == {"list": 4}
    client.close()


@pytest.mark.parametrize("data", [b"<html>", b"{}", PAGE.encode()[:80]])
def test_another_web_server(serve: Any, data: bytes) -> None:
    client = client_at(serve(lambda *_: (200, XML, data)))
    with pytest.raises(KitcacheError, match="not one of Azure Blob Storage"):
        list(client.list_pages(""))
    client.close()


def test_a_download_goes_on_where_it_broke(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azureclient, "PART_BYTES", 1000)
    data = os.urandom(3500)
    breaks = [1000]
    ranges: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers.get("Range") or self.headers["x-ms-range"]
            ranges.append(f"{asked} {self.headers.get('If-Match', '')}".strip())
            first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
            last = min(last, len(data) - 1)
            part = data[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            self.send_header("Content-Length", str(len(part)))
            self.send_header("ETag", '"0x8D"')
            self.send_header("Last-Modified", "Mon, 30 Nov 2026 01:52:20 GMT")
            self.end_headers()
            if first in breaks:
                breaks.remove(first)
                self.wfile.write(part[:400])
                self.close_connection = True
                return
            self.wfile.write(part)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        client = client_at(f"http://127.0.0.1:{server.server_port}/account")
        assert b"".join(client.read_parts("x", len(data)) or ()) == data
        client.close()
        server.shutdown()
    assert breaks == []
    assert ranges.count('bytes=1000-1999 "0x8D"') == 2
    assert ranges.count('bytes=2000-2999 "0x8D"') == 1


class VersionedService:
    """A container with versions, as far as deletion needs it. `blobs`: newest version last."""

    def __init__(self, *names: str) -> None:
        self.blobs = {name: ["1", "2"] for name in names}
        self.current = dict.fromkeys(names, "2")
        self.batches: list[list[str]] = []
        self.is_permanent = "true"

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        key, _, query = path.removeprefix("/account/c/").partition("?")
        if method == "HEAD":
            held = query.removeprefix("versionid=") in self.blobs.get(key, ())
            etag = f'"{query[-1]}"'
            headers = {"ETag": etag, "Last-Modified": "Mon, 30 Nov 2026 01:52:20 GMT"}
            return (200 if held else 404), headers, b""
        requests = re.findall(rb"DELETE (\S+) HTTP.*?\r\n\r\n", body, re.DOTALL)
        parts = re.findall(rb"DELETE \S+ HTTP.*?\r\n\r\n", body, re.DOTALL)
        self.batches.append([name.decode().rpartition("/")[2].rstrip("?") for name in requests])
        answers = [self.delete(part.decode()) for part in parts]
        text = "".join(
            f"--b\r\nContent-Type: application/http\r\nContent-ID: {n}\r\n\r\n"
            f"HTTP/1.1 {line}\r\n\r\n"
            for n, line in enumerate(answers)
        )
        return 202, {"Content-Type": "multipart/mixed; boundary=b"}, f"{text}--b--\r\n".encode()

    def delete(self, request: str) -> str:
        path = request.split()[1]
        key, _, query = path.rpartition("/")[2].partition("?")
        condition = re.search(r"If-Match: (\S+)", request)
        if not query:
            if condition and condition[1] != f'"{self.current[key]}"':
                return "412 Changed\r\nx-ms-error-code: ConditionNotMet"
            self.current[key] = ""
            return f"202 Accepted\r\nx-ms-delete-type-permanent: {self.is_permanent}"
        version = query.removeprefix("versionid=")
        if self.current[key] == version:
            return "403 Forbidden\r\nx-ms-error-code: OperationNotAllowedOnRootBlob"
        if version not in self.blobs[key]:
            return "404 Missing\r\nx-ms-error-code: BlobNotFound"
        self.blobs[key].remove(version)
        return f"202 Accepted\r\nx-ms-delete-type-permanent: {self.is_permanent}"


def test_versions_are_deleted_and_a_newer_one_stays(serve: Any) -> None:
    service = VersionedService("a", "b", "c")
    client = client_at(serve(service.answer))
    assert client.delete([Target("a", "1"), Target("b", "9")]) == {}
    assert service.batches == [["a?versionid=1", "b?versionid=9"]]
    assert service.blobs["a"] == ["2"]
    service.batches.clear()
    targets = [Target("a", "2"), Target("b", "1"), Target("c", "2", '"2"')]
    assert client.delete(targets) == {}
    assert service.blobs == {"a": [], "b": ["2"], "c": ["1"]}
    assert service.current == {"a": "", "b": "2", "c": ""}
    assert client.requests["head"] == 1
    assert service.batches[1:] == [["a", "c"], ["a?versionid=2", "c?versionid=2"]]
    client.close()


@pytest.mark.parametrize(("is_permanent", "warnings"), [("true", 0), ("false", 1)])
def test_soft_delete_is_reported_once(serve: Any, is_permanent: str, warnings: int) -> None:
    service = VersionedService("a", "b")
    service.is_permanent = is_permanent
    client = client_at(serve(service.answer))
    client.delete([Target("a", "1")])
    client.delete([Target("b", "1")])
    assert len(client.warnings) == warnings
    assert all("has soft delete" in warning for warning in client.warnings)
    client.close()


def test_a_version_that_a_newer_one_replaces_is_deleted_alone(serve: Any) -> None:
    service = VersionedService("a")

    def answer(method: str, path: str, body: bytes) -> Answer:
        result = service.answer(method, path, body)
        if method == "HEAD":
            service.blobs["a"].append("3")
            service.current["a"] = "3"
        return result

    client = client_at(serve(answer))
    assert client.delete([Target("a", "2")]) == {}
    assert (service.blobs, service.current) == ({"a": ["1", "3"]}, {"a": "3"})
    client.close()


@pytest.mark.parametrize(("undelete", "exists"), [(200, True), (404, False), (501, False)])
def test_restore(serve: Any, undelete: int, exists: bool) -> None:
    def answer(method: str, path: str, body: bytes) -> Answer:
        if method == "PUT":
            assert path.endswith("/b/x?comp=undelete")
            return undelete, {}, b""
        facts = {"ETag": '"1"', "Last-Modified": "Mon, 30 Nov 2026 01:52:20 GMT"}
        return (200 if exists else 404), facts, b""

    client = client_at(serve(answer))
    assert client.restore("b/x") is exists
    client.close()


def test_abilities_of_a_container_with_versions(serve: Any) -> None:
    page = PAGE.format(BLOB.format("", "a", version("1", is_current=True)), "")
    client = client_at(serve(lambda *_: (200, XML, page.encode())))
    assert client.abilities() == (True, True, False)
    client.close()


class RefusedCredential:
    """azure-identity's DefaultAzureCredential on a machine without a login."""

    def get_token(self, *scopes: str, **options: Any) -> Any:
        assert scopes == ("https://storage.azure.com/.default",)
        raise ClientAuthenticationError("DefaultAzureCredential failed. Attempted: secret=hush")


def test_the_credentials_of_the_environment_are_used_without_a_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    identity = types.ModuleType("azure.identity")
    identity.DefaultAzureCredential = RefusedCredential  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "azure.identity", identity)
    cache = ObjectCache("azblob", "c", endpoint_url="https://127.0.0.1:1", account_name="account")
    client = open_azure(cache)
    with pytest.raises(
        KitcacheError, match="no credential of the environment is accepted"
    ) as caught:
        list(client.list_pages(""))
    assert "hush" not in str(caught.value)
    assert "az login" in str(caught.value)
    client.close()


def test_a_certificate_that_is_not_trusted() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign, assignment]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        client = client_at(f"https://127.0.0.1:{server.server_port}/account")
        with pytest.raises(KitcacheError, match="its certificate is not trusted"):
            client.stat("x")
        client.close()
        server.shutdown()


def test_a_proxy_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    client = client_at("https://account.example")
    with pytest.raises(KitcacheError, match="the proxy of HTTPS_PROXY does not answer"):
        client.stat("x")
    client.close()
