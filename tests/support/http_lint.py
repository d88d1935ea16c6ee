"""httplint: a linter for HTTP messages, which knows the RFCs."""

from collections.abc import Iterator
from email.utils import formatdate

import httpx
from httplint import HttpRequestLinter, HttpResponseLinter
from httplint.note import levels
from httplint.status import STATUS_BAD_REQUEST


def faults_of(response: httpx.Response, body: bytes) -> Iterator[str]:
    """Yield what httplint finds wrong with a response; `body` is what was sent, before any decoding.

    The server adds a Date. A 400 is what the request deserves.
    """
    request = HttpRequestLinter()
    request.process_request_topline(response.request.method.encode(), response.request.url.raw_path, b"1.1")
    request.process_headers(response.request.headers.raw)
    request.finish_content(complete=True)
    linter = HttpResponseLinter(_related=request)
    linter.is_head_response = response.request.method == "HEAD"
    linter.process_response_topline(b"1.1", str(response.status_code).encode(), None)
    linter.process_headers([*response.headers.raw, (b"date", formatdate(usegmt=True).encode())])
    linter.feed_content(body)
    linter.finish_content(complete=True)
    for note in linter.notes:
        if note.level in (levels.WARN, levels.BAD) and not isinstance(note, STATUS_BAD_REQUEST):
            yield f"{response.request.method} {response.request.url}: {note.summary}"
