"""One answer, fetched and looked at before anything is measured: nobody is fast by being wrong."""

import zlib
from dataclasses import dataclass, field
from http.client import HTTPConnection


class WrongAnswerError(SystemExit):
    """A contender does not answer as it has to. Uncaught, it ends the benchmark with one line."""


GZIP = 16 + zlib.MAX_WBITS


@dataclass(frozen=True)
class Answer:
    """An answer, unzipped, and how many bytes it took on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)
    size: int


def fetch(port: int, path: str, headers: dict[str, str] | None = None) -> Answer:
    """Ask a service on this machine; it may be starting still."""
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
    """Whether two services of one server send the same answer, but for the time of day."""
    return {**one.headers, "date": ""} == {**other.headers, "date": ""} and one.body == other.body
