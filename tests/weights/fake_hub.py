"""A server on this machine that answers as the Hugging Face hub does, and fails when told to."""

import contextlib
import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
import re
import threading
from urllib.parse import unquote, urlsplit

# Larger files are in LFS, and served by another machine.
LFS_BYTES = 1000


def digest_of(content):
    """The hub's name of a content."""
    if len(content) > LFS_BYTES:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class FakeHub(ThreadingHTTPServer):
    """Repositories, and faults: by a part of the path, what goes wrong and how often.

    A fault is a status, or "wrong bytes", "truncated", "short", "stall", "drip", "portal",
    "endless" or "loop".
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.release = threading.Event()
        self.reset()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def reset(self):
        """Forgets all repositories, faults and requests."""
        self.commits = {}  # by (repo, commit): contents by name
        self.refs = {}  # by (repo, revision): commit
        self.gated = set()
        self.resumes = True  # sends parts of a file
        self.faults = {}  # by a part of the path: [fault, times]
        self.requests = []
        self.finished = []  # paths of answers that the client took whole
        self.tokens = {}  # by path: the token that came with the request
        self.release.set()  # answers that a fault holds back
        self.release = threading.Event()

    def stop(self):
        self.reset()
        self.shutdown()
        self.server_close()
        self.thread.join()

    def push(self, repo, files, revision="main"):
        """Makes files the newest commit of a revision and returns the commit."""
        key = repr((repo, revision, sorted(files.items())))
        commit = hashlib.sha1(key.encode()).hexdigest()
        self.commits[repo, commit] = dict(files)
        self.refs[repo, revision] = commit
        return commit

    def fail(self, part, fault, times=10**9):
        self.faults[part] = [fault, times]

    def fault(self, path):
        for part, entry in self.faults.items():
            if part in path and entry[1]:
                entry[1] -= 1
                return entry[0]
        return None

    def count(self, part):
        """Number of requests whose path has a part."""
        return sum(part in path for path in self.requests)

    def handle_error(self, request, client_address):
        """Clients that give up are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # it waits 40 ms between the headers and the body
    server: FakeHub

    def log_message(self, format, *args):  # silent
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(path)
        self.server.tokens[path] = self.headers.get("Authorization")
        fault = self.server.fault(path)
        if isinstance(fault, int):
            return self.refuse(fault)
        if fault == "stall":
            self.server.release.wait(30)
            self.close_connection = True
            return None
        if fault == "portal":
            return self.answer(b"<html>Please log in to the hotel</html>")
        if fault == "loop":
            return self.answer(b"", 307, {"Location": path})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            return self.model(*match.groups())
        if match := re.fullmatch(r"(/cdn)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.file(bool(match[1]), match[2], match[3], match[4], fault)
        return self.refuse(404)

    def model(self, repo, revision):
        commit = self.commit(repo, revision)
        if commit is None:
            return None
        files = self.server.commits[repo, commit]
        answer = {
            "id": repo,
            "sha": commit,
            "siblings": [_sibling(*file) for file in files.items()],
        }
        return self.answer(json.dumps(answer).encode())

    def commit(self, repo, revision):
        """The commit, or None after an answer that there is none."""
        if repo in self.server.gated:
            return self.refuse(403, "GatedRepo")
        if not any(repo == known for known, _ in self.server.commits):
            return self.refuse(404, "RepoNotFound")
        commit = self.server.refs.get((repo, revision), revision)
        if (repo, commit) not in self.server.commits:
            return self.refuse(404, "RevisionNotFound")
        return commit

    def file(self, cdn, repo, revision, name, fault):
        commit = self.commit(repo, revision)
        if commit is None:
            return None
        content = self.server.commits[repo, commit].get(name)
        if content is None:
            return self.refuse(404, "EntryNotFound")
        if len(content) > LFS_BYTES and not cdn:
            digest = digest_of(content)
            location = f"http://localhost:{self.server.server_port}/cdn{self.path}"
            headers = {"Location": location, "X-Repo-Commit": commit}
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": len(content)}
            return self.answer(b"", 302, {**headers, **linked})
        if fault == "wrong bytes":
            content = content[:-1] + bytes([content[-1] ^ 1])
        wanted = self.headers.get("Range") if self.server.resumes else None
        start = int((wanted or "bytes=0-")[len("bytes=") : -1])
        status = 206 if start else 200
        headers = {"ETag": f'"{digest_of(content)}"', "X-Repo-Commit": commit}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.answer(content[start:], status, headers, fault)

    def refuse(self, status, code=None):
        self.answer(b"", status, {"X-Error-Code": code, "Retry-After": "86400"} if code else {})

    def answer(self, body, status=200, headers=None, fault=None):
        """Sends an answer; a client that is gone is no fault."""
        half = body[: len(body) // 2]
        if fault in ("short", "endless"):
            body = half if fault == "short" else body * 200
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in {"Content-Length": len(body), **(headers or {})}.items():
                self.send_header(name, str(value))
            self.end_headers()
            if self.command == "HEAD":
                return
            if fault == "drip":
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    if self.server.release.wait(0.02):
                        break
            else:
                self.wfile.write(half if fault == "truncated" else body)
                self.server.finished.append(self.path)
            if fault in ("drip", "truncated"):
                self.close_connection = True


def _sibling(name, content):
    """What the hub states of a file."""
    sibling = {"rfilename": name, "size": len(content), "blobId": digest_of(content[:LFS_BYTES])}
    if len(content) > LFS_BYTES:
        digest = digest_of(content)
        sibling["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
    return sibling
