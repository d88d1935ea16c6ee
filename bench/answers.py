"""Fetch and check a response before each measurement, so that no wrong answer counts as fast."""

import zlib
from dataclasses import dataclass, field
from http.client import HTTPConnection


class WrongAnswerError(SystemExit):
    """A contender's response is wrong. Uncaught, this error ends the benchmark with one line."""


GZIP = 16 + zlib.MAX_WBITS


@dataclass(frozen=True)
class Answer:
    """A response, decompressed, and its size in bytes on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)
    size: int


def fetch(port: int, path: str, headers: dict[str, str] | None = None) -> Answer:
    """Send a GET to a service on this machine, which may still be starting."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path, headers={"Accept-Encoding": "identity", **(headers or {})})
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    head = f"HTTP/1.1 {response.status} {response.reason}\r\n\r\n"
    size = len(head) + sum(len(name) + len(value) + 4 for name, value in response.getheaders()) + len(body)
    found = {name.lower(): value for name, value in response.getheaders()}
    if found.get("content-encoding") == "gzip":
        body = zlib.decompress(body, GZIP)
    return Answer(response.status, found, body, size)


def same_bytes(one: Answer, other: Answer) -> bool:
    """Return whether two responses are equal except for their date."""
    return {**one.headers, "date": ""} == {**other.headers, "date": ""} and one.body == other.body
