"""A bucket on the loopback: as much of Google's JSON API as TensorStore and gcsfs ask for, with its
conditional writes; and it fails when it is told to."""

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, unquote, urlsplit

UPLOAD = re.compile(r"/(?:resumable/)?upload/storage/v1/b/[^/]+/o")
TO = re.compile(r"/storage/v1/b/[^/]+/o/([^/]+)/(rewriteTo/b/[^/]+|moveTo)/o/([^/]+)")
OBJECT = re.compile(r"/(?:download/)?storage/v1/b/[^/]+/o/(.+)")
LIST = re.compile(r"/storage/v1/b/[^/]+/o")
TIME = "2026-01-01T00:00:00.000Z"


@dataclass
class Bucket:
    """What is in it: (generation, bytes) by name. The next `failures` requests are answered 503."""

    url: str = ""
    objects: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    failures: int = 0
    requests: int = 0
    uploads: dict[str, bytes] = field(default_factory=dict)  # resumable ones, by name
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, name: str, content: bytes) -> dict[str, str]:
        self.objects[name] = self.objects.get(name, (0, b""))[0] + 1, content
        return self.resource(name)

    def resource(self, name: str) -> dict[str, str]:
        generation, content = self.objects[name]
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": "data",
            "size": str(len(content)),
            "generation": str(generation),
            "contentType": "application/octet-stream",
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
            "timeCreated": TIME,
            "updated": TIME,
        }

    def listing(self, prefix: str, delimiter: str) -> dict[str, list]:
        items, folders = [], set()
        for name in sorted(self.objects):
            if name.startswith(prefix):
                first, cut, _ = name[len(prefix) :].partition(delimiter or "\0")
                if cut:
                    folders.add(f"{prefix}{first}{cut}")
                else:
                    items.append(self.resource(name))
        return {"items": items, "prefixes": sorted(folders)}


@contextmanager
def serve() -> Iterator[Bucket]:
    bucket = Bucket()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, code: int, content: bytes = b"", **headers: str) -> None:
            self.send_response(code)
            for name, value in {"content-length": str(len(content)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(content)

        def tell(self, value: object) -> None:
            self.answer(200, json.dumps(value).encode(), content_type="application/json")

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            with bucket.lock:
                self.route(body)

        def route(self, body: bytes) -> None:
            url = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            bucket.requests += 1
            if bucket.failures > 0:
                bucket.failures -= 1
                return self.answer(503)
            if UPLOAD.fullmatch(url.path):
                return self.upload(query, body)
            if match := TO.fullmatch(url.path):
                source, how, target = map(unquote, match.groups())
                if source not in bucket.objects:
                    return self.answer(404)
                made = bucket.put(target, bucket.objects[source][1])
                if how == "moveTo":
                    del bucket.objects[source]
                    return self.tell(made)
                return self.tell({"done": True, "resource": made})
            if LIST.fullmatch(url.path):
                listed = bucket.listing(query.get("prefix", ""), query.get("delimiter", ""))
                return self.tell(listed)
            if match := OBJECT.fullmatch(url.path):
                return self.object(unquote(match[1]), query)
            return self.tell({"kind": "storage#bucket", "name": "data"})

        def is_stale(self, name: str, query: dict[str, str]) -> bool:
            generation = str(bucket.objects.get(name, (0, b""))[0])
            return query.get("ifGenerationMatch", generation) != generation

        def upload(self, query: dict[str, str], body: bytes) -> None:
            name = query.get("name", "")
            if query["uploadType"] == "multipart":
                boundary = (
                    self.headers["content-type"].partition("boundary=")[2].strip('"').encode()
                )
                parts = body.split(b"--" + boundary)[1:3]
                about, body = (re.split(rb"\r?\n\r?\n", part, maxsplit=1)[1] for part in parts)
                name = json.loads(about)["name"]
                body = re.sub(rb"\r?\n\Z", b"", body)
            if self.is_stale(name, query):
                return self.answer(412)
            if query["uploadType"] != "resumable":
                return self.tell(bucket.put(name, body))
            if "content-range" not in {key.lower() for key in self.headers}:
                bucket.uploads[name] = b""
                path, query_text = urlsplit(self.path).path, "uploadType=resumable&name="
                return self.answer(200, location=f"{bucket.url}{path}?{query_text}{quote(name)}")
            bucket.uploads[name] += body
            if self.headers["content-range"].endswith("/*"):
                return self.answer(308, range=f"bytes=0-{len(bucket.uploads[name]) - 1}")
            return self.tell(bucket.put(name, bucket.uploads.pop(name)))

        def object(self, name: str, query: dict[str, str]) -> None:
            if name not in bucket.objects:
                return self.answer(404)
            if self.is_stale(name, query):
                return self.answer(412)
            if self.command == "DELETE":
                del bucket.objects[name]
                return self.answer(204)
            if query.get("alt") != "media":
                return self.tell(bucket.resource(name))
            return self.read(*bucket.objects[name])

        def read(self, generation: int, content: bytes) -> None:
            _, _, wanted = self.headers.get("range", "").partition("=")
            first, _, last = wanted.partition("-")
            end = min(int(last) + 1 if first and last else len(content), len(content))
            begin = int(first) if first else len(content) - int(last or len(content))
            shown = {"content_range": f"bytes {begin}-{end - 1}/{len(content)}"} if wanted else {}
            self.answer(
                206 if wanted else 200,
                content[begin:end],
                x_goog_generation=str(generation),
                **shown,
            )

        do_GET = do_POST = do_DELETE = do_PUT = do

        def log_message(self, *unused: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a client that was killed
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    bucket.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield bucket
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
