"""A server that gives temporary credentials, as those of containers on AWS do."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class MetadataServer:
    """Another set for each question: ``secrets`` has those of all sets, by their access keys.

    Attributes:
        lifetime_s: Of each set, from now on.
        stays: It gives the last one again.
    """

    def __init__(self, secrets: dict[str, str]) -> None:
        self.secrets = secrets
        self.sets: list[dict[str, str]] = []
        self.lifetime_s = 3600.0
        self.stays = False
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(server.sets[-1] if server.stays else server.next_set()).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def next_set(self) -> dict[str, str]:
        number = len(self.sets)
        ends = time.gmtime(time.time() + self.lifetime_s)
        new = {
            "AccessKeyId": f"ASIA{number:016d}",
            "SecretAccessKey": f"{number}".rjust(40, "s"),
            "Token": f"{number}".rjust(1000, "t"),
            "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", ends),
        }
        self.secrets[new["AccessKeyId"]] = new["SecretAccessKey"]
        self.sets.append(new)
        return new

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """By botocore, from now on, and nothing else."""
        url = f"http://127.0.0.1:{self._http.server_port}/credentials"
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            monkeypatch.setenv(name, "/nowhere")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
