"""fakes3.py BLOBS LIVE ROOTS: a stand-in for S3 with a million blobs, on loopback.

To fill a real server with as many objects takes hours. This one computes its listings. It stores
small objects, forgets nothing that is deleted, and ends with its stdin. It prints its port.
"""

import hashlib
import json
import os
import sys
import threading
from bisect import bisect_right
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import gmtime, strftime, time
from typing import NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

BLOBS = "blobs/sha256:"
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
_OLD = 1_767_225_600
_SPACE = 16**16
_PAGE = 1000
_REST = "0123456789abcdef" * 3
_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


class Small(NamedTuple):
    data: bytes
    written_s: float


class Bucket:
    """Blobs whose digests have even distances, roots that reach some of them, small objects."""

    def __init__(self, blobs: int, live: int, roots: int) -> None:
        self._blobs = blobs
        self._step = _SPACE // blobs
        self.small: dict[str, Small] = {}
        reached = range(0, blobs, blobs // live)
        size = -(-len(reached) // roots)
        for start in range(0, len(reached), size):
            document = self._cacheconfig(reached[start : start + size])
            self.small[f"manifests/root-{start // size:05d}"] = Small(document, _OLD)

    def _name(self, number: int) -> str:
        return f"{number * self._step:016x}{_REST}"

    def _cacheconfig(self, numbers: range) -> bytes:
        created = "2026-01-01T00:00:00.123456789Z"
        layers = [
            {
                "blob": f"sha256:{self._name(number)}",
                "parent": place - 1,
                "annotations": {
                    "mediaType": _LAYER_TYPE,
                    "diffID": f"sha256:{self._name(number)[::-1]}",
                    "size": 1000,
                    "createdAt": created,
                },
            }
            for place, number in enumerate(numbers)
        ]
        records = [
            {
                "digest": f"sha256:{self._name(number)[::-1]}",
                "layers": [{"layer": place, "createdAt": created}],
                "inputs": [[{"link": max(0, place - 1)}]],
            }
            for place, number in enumerate(numbers)
        ]
        return json.dumps({"layers": layers, "records": records}, separators=(",", ":")).encode()

    def _number_after(self, key: str) -> int:
        """Return the number of the first blob whose key is greater."""
        if not key.startswith(BLOBS):
            return 0 if key < BLOBS else self._blobs
        digits = key.removeprefix(BLOBS)
        # Characters after the digits of a key sort above all digits.
        near = int(digits.rstrip("~\U0010ffff")[:16].ljust(16, "0"), 16) // self._step
        if digits.endswith("\U0010ffff") and len(digits) == 1:
            return self._blobs
        numbers = range(max(0, near - 1), self._blobs)
        return next((n for n in numbers if self._name(n) > digits), self._blobs)

    def page(self, prefix: str, after: str) -> tuple[list[tuple[str, int, float, str]], bool]:
        """Return key, size, time and ETag of objects, and whether more follow."""
        entries = list(self._blob_entries(prefix, after))
        keys = sorted(self.small)
        for key in keys[bisect_right(keys, after) :]:
            if key.startswith(prefix):
                small = self.small[key]
                entries.append((key, len(small.data), small.written_s, _etag(small.data)))
        return entries[:_PAGE], len(entries) > _PAGE

    def _blob_entries(self, prefix: str, after: str) -> Iterator[tuple[str, int, float, str]]:
        if not (prefix.startswith(BLOBS) or BLOBS.startswith(prefix)):
            return
        first = self._number_after(after)
        for number in range(first, min(first + _PAGE + 1, self._blobs)):
            name = self._name(number)
            if (BLOBS + name).startswith(prefix):
                yield BLOBS + name, 1000, _OLD, name[:32]


def _etag(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    bucket: Bucket

    def do_GET(self) -> None:
        key, query = self._split()
        if key:
            self._send_object(key)
        elif "versioning" in query:
            self._send(f"<VersioningConfiguration {_NAMESPACE}/>".encode())
        elif "uploads" in query:
            self._send(f"<ListMultipartUploadsResult {_NAMESPACE}/>".encode())
        else:
            self._send_listing(query.get("prefix", ""), query)

    def do_HEAD(self) -> None:
        self._send_object(self._split()[0])

    def do_PUT(self) -> None:
        key, _ = self._split()
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "x-amz-copy-source" in self.headers:
            data = self.bucket.small[key].data
        self.bucket.small[key] = Small(data, time())
        result = f'<CopyObjectResult><ETag>"{_etag(data)}"</ETag></CopyObjectResult>'
        self._send(result.encode(), etag=_etag(data))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._send(f"<DeleteResult {_NAMESPACE}/>".encode())

    def _split(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        _, _, key = unquote(parts.path).removeprefix("/").partition("/")
        query = parse_qs(parts.query, keep_blank_values=True)
        return key, {name: values[0] for name, values in query.items()}

    def _send_listing(self, prefix: str, query: dict[str, str]) -> None:
        after = query.get("continuation-token", query.get("start-after", ""))
        entries, has_more = self.bucket.page(prefix, after)
        text = "".join(
            f"<Contents><Key>{quote(key)}</Key><LastModified>{_iso(when)}</LastModified>"
            f"<ETag>&quot;{etag}&quot;</ETag><Size>{size}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for key, size, when, etag in entries
        )
        token = entries[-1][0] if entries else ""
        following = f"<NextContinuationToken>{token}</NextContinuationToken>" if has_more else ""
        head = (
            f"<ListBucketResult {_NAMESPACE}><Name>b</Name><KeyCount>{len(entries)}</KeyCount>"
            f"<MaxKeys>{_PAGE}</MaxKeys><EncodingType>url</EncodingType>"
            f"<IsTruncated>{'true' if has_more else 'false'}</IsTruncated>{following}"
        )
        self._send(f"{head}{text}</ListBucketResult>".encode())

    def _send_object(self, key: str) -> None:
        small = self.bucket.small.get(key)
        if small is None:
            self._send(b"<Error><Code>NoSuchKey</Code></Error>", status=404)
        else:
            modified = formatdate(small.written_s, usegmt=True)
            self._send(small.data, etag=_etag(small.data), modified=modified)

    def _send(self, body: bytes, *, status: int = 200, etag: str = "", modified: str = "") -> None:
        self.send_response(status)
        for name, value in (("ETag", etag and f'"{etag}"'), ("Last-Modified", modified)):
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


def _iso(seconds: float) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S.000Z", gmtime(seconds))


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    Handler.bucket = Bucket(*map(int, sys.argv[1:]))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    print(server.server_port, flush=True)
    server.serve_forever()
