"""A bucket on the loopback: enough of Google's JSON API, and it fails when it is told to."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlparse


@dataclass
class Bucket:
    """What is in it: (generation, bytes) by name. The next `failures` requests are answered 503."""

    url: str = ""
    objects: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    failures: int = 0
    requests: int = 0


@contextmanager
def serve() -> Iterator[Bucket]:
    bucket = Bucket()

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, code: int, content: bytes = b"", **headers: str) -> None:
            self.send_response(code)
            for name, value in {"content-length": str(len(content)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(content)

        def do(self) -> None:
            url = urlparse(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            name = query.get("name") or unquote(url.path.partition("/o/")[2])
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            bucket.requests += 1
            if bucket.failures > 0:
                bucket.failures -= 1
                return self.answer(503)
            generation, content = bucket.objects.get(name, (0, b""))
            if query.get("ifGenerationMatch", str(generation)) != str(generation):
                return self.answer(412)
            if self.command == "POST":
                bucket.objects[name] = generation + 1, body
                made = {"name": name, "size": str(len(body)), "generation": str(generation + 1)}
                return self.answer(200, json.dumps(made).encode())
            if not generation:
                return self.answer(404)
            if self.command == "DELETE":
                del bucket.objects[name]
                return self.answer(204)
            return self.read(generation, content)

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

        do_GET = do_POST = do_DELETE = do

        def log_message(self, *unused: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    bucket.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield bucket
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
