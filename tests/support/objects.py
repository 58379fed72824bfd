"""An object store of this machine that speaks as much of S3 as GDAL asks of it; fails on demand.

It keeps no signatures: who may do what is the business of the real ones.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from geothresh.raster import gdal, objects

Fault = Literal["busy", "forbidden", "cut", "cut after", "slow", "torn", "held", "gone"]
"""503; 403; the connection ends before the body was read; after it was stored; an answer after a
while; half of the body is stored, and success told; nothing happens until `released`; success is
told and nothing stored."""


@dataclass(slots=True)
class ObjectStore:
    """Buckets and objects, and what is done to those who ask for them."""

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    """By ``bucket/key``."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Methods and paths with queries, in their order."""
    headers: list[str] = field(default_factory=list)
    """All headers that came."""
    faults: list[tuple[str, Fault]] = field(default_factory=list)
    """What becomes of the next requests: a pattern of ``METHOD /path?query``, and the fault; each
    is used up; see `always`."""
    always: list[tuple[str, Fault]] = field(default_factory=list)
    """The same, of all requests."""
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    """Parts of uploads that are not complete, by their id."""
    before: Callable[[str], None] | None = None
    """Called with ``METHOD /path?query`` before anything else."""
    page: int = 1000
    """Keys in an answer to who asks for a list."""
    released: threading.Event = field(default_factory=threading.Event)
    """Of what is held."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def host(self) -> str:
        """Without the scheme, as AWS_S3_ENDPOINT has it."""
        return self.url.removeprefix("http://")

    @property
    def environment(self) -> dict[str, str]:
        """What makes GDAL ask this store for all of S3, Google's and Azure's."""
        secret = "a-secret-of-the-tests"
        return {
            "AWS_S3_ENDPOINT": self.host,
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
            "AWS_ACCESS_KEY_ID": "AKIDTESTONLY",
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "CPL_GS_ENDPOINT": f"{self.url}/",
            "GS_ACCESS_KEY_ID": "GOOGTESTONLY",
            "GS_SECRET_ACCESS_KEY": secret,
            "AZURE_STORAGE_CONNECTION_STRING": f"DefaultEndpointsProtocol=http;AccountName=account;"
            f"AccountKey={b64encode(secret.encode()).decode()};BlobEndpoint={self.url}/account",
        }

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make GDAL ask this store, and not wait long before it tries again."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setitem(gdal._OPTIONS, "GDAL_HTTP_RETRY_DELAY", 0.01)
        monkeypatch.setattr(objects, "_DELAY", 0.01)
        monkeypatch.setattr(gdal, "_AGAIN_AFTER", (0.01, 0.01))
        monkeypatch.setitem(gdal._SENDING_OPTIONS, "GDAL_HTTP_MAX_RETRY", 2)

    def puts(self, key: str) -> int:
        """How often an object was asked to be stored."""
        return sum(method == "PUT" and path.startswith(f"/{key}") for method, path in self.asked)

    def fault(self, request: str) -> Fault | None:
        """What becomes of a request."""
        with self._lock:
            for place, (pattern, fault) in enumerate(self.faults):
                if re.search(pattern, request):
                    del self.faults[place]
                    return fault
        return next((fault for pattern, fault in self.always if re.search(pattern, request)), None)


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Serve an empty one on a port of 127.0.0.1."""
    store = ObjectStore()
    handler = type("Handler", (_Handler,), {"store": store})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        serving.daemon_threads = True
        store.url = f"http://127.0.0.1:{serving.server_port}"
        thread = threading.Thread(target=serving.serve_forever, args=[0.02])
        thread.start()
        try:
            yield store
        finally:
            store.released.set()
            serving.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    store: ObjectStore
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        store = self.store
        request = f"{self.command} {self.path}"
        store.asked.append((self.command, self.path))
        store.headers += [f"{name}: {value}" for name, value in self.headers.items()]
        if store.before is not None:
            store.before(request)
        fault = store.fault(request)
        if fault == "cut":
            self.rfile.read(min(1000, int(self.headers.get("Content-Length", 0))))
            self.close_connection = True
            self.connection.close()
            return
        body = self._body()
        if fault == "slow":
            time.sleep(0.2)
        if fault == "held":
            store.released.wait()
            self.close_connection = True
            return
        if fault in ("busy", "forbidden"):
            code, word = (503, "SlowDown") if fault == "busy" else (403, "AccessDenied")
            self._answer(code, _xml("Error", f"<Code>{word}</Code><Message>{word}</Message>"))
            return
        if fault == "torn":
            body = body[: len(body) // 2]
        if fault == "gone":
            self._answer(200, b"", {"ETag": '"0"'})
            return
        url = urlsplit(self.path)
        query = parse_qs(url.query, keep_blank_values=True)
        answer = self._of(unquote(url.path).lstrip("/"), query, body)
        if fault == "cut after":
            self.close_connection = True
            self.connection.close()
            return
        self._answer(*answer)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _of(
        self, key: str, query: dict[str, list[str]], body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        store = self.store
        if self.command == "PUT":
            source = self.headers.get("x-amz-copy-source")
            if source is not None:
                body = store.objects[unquote(source).lstrip("/")]
            if query.get("comp") == ["block"]:  # of Azure's
                store.uploads.setdefault(key, {})[int(query["blockid"][0])] = body
                return 201, b"", {}
            if query.get("comp") == ["blocklist"]:
                blocks = store.uploads.pop(key)
                body = b"".join(blocks[int(one)] for one in re.findall(rb"<Latest>(\d+)<", body))
                store.objects[key] = body
                return 201, b"", {"ETag": _etag(body)}
            if "partNumber" in query:
                store.uploads[query["uploadId"][0]][int(query["partNumber"][0])] = body
            else:
                store.objects[key] = body
            if source is not None:
                return 200, _xml("CopyObjectResult", f"<ETag>{_etag(body)}</ETag>"), {}
            # 201 is what Azure says.
            code = 201 if "x-ms-blob-type" in self.headers else 200
            return code, b"", {"ETag": _etag(body)}
        if self.command == "POST" and "uploads" in query:
            upload = f"u{len(store.uploads)}"
            store.uploads[upload] = {}
            return 200, _xml("InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>"), {}
        if self.command == "POST" and "uploadId" in query:
            parts = store.uploads.pop(query["uploadId"][0])
            store.objects[key] = b"".join(parts[number] for number in sorted(parts))
            return 200, _xml("CompleteMultipartUploadResult", ""), {}
        if self.command == "DELETE":
            store.uploads.pop(query.get("uploadId", [""])[0], None)
            if "uploadId" not in query:
                store.objects.pop(key, None)
            return 204, b"", {}
        if "/" not in key.rstrip("/"):
            return 200, self._list(key.rstrip("/"), query), {}
        return self._get(key)

    def _get(self, key: str) -> tuple[int, bytes, dict[str, str]]:
        content = self.store.objects.get(key)
        if content is None:
            return 404, _xml("Error", "<Code>NoSuchKey</Code><Message>no such key</Message>"), {}
        headers = {"ETag": _etag(content), "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return 200, content, headers
        first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
        if first >= len(content):
            return 416, b"", {"Content-Range": f"bytes */{len(content)}"}
        part = content[first : last + 1]
        where = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
        return 206, part, headers | {"Content-Range": where}

    def _list(self, bucket: str, query: dict[str, list[str]]) -> bytes:
        prefix = query.get("prefix", [""])[0]
        end = query.get("delimiter", [""])[0]
        entries = {}
        for name, content in sorted(self.store.objects.items()):
            if not name.startswith(f"{bucket}/{prefix}"):
                continue
            key = name.split("/", 1)[1]
            inside, found, _ = key.removeprefix(prefix).partition(end) if end else (key, "", "")
            if found:
                folder = escape(f"{prefix}{inside}{end}")
                entries[folder] = f"<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"
            else:
                entries[key] = (
                    f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size>"
                    f"<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                )
        after = query.get("marker", [""])[0]
        page = [key for key in sorted(entries) if key > after]
        more = len(page) > self.store.page
        page = page[: self.store.page]
        last = f"<NextMarker>{escape(page[-1])}</NextMarker>" if more else ""
        return _xml(
            "ListBucketResult",
            f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>{last}"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>"
            + "".join(entries[key] for key in page),
        )

    def _answer(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if code != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815 - http.server's names

    def log_message(self, *arguments: object) -> None:
        """Nothing: tests look at `asked`."""


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def _xml(name: str, inside: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{name}>{inside}</{name}>'.encode()
