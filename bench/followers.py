"""Measure how soon the followers of a list know a new name, and what they cost the service."""

import os
import resource
import select
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from hpack import Encoder
from hyperframe.frame import HeadersFrame, SettingsFrame, WindowUpdateFrame

from .answers import fetch
from .measure import Bench
from .memory import Footprint, resident
from .services import OURS, Service

TITLE = "followers"
SERVICE = OURS[0]
FOLLOWERS = 2_000
STREAMS = 100  # of each HTTP/2 connection: Hypercorn's limit
NAMES = 9  # appended one by one, with a pause in which every follower gets the name
PAUSE = 1.0  # seconds
QUIET = 5.0  # seconds without news

HTTP1 = b"GET /wizards HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
HTTP2 = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "localhost"),
    (":path", "/wizards"),
    ("accept", "text/event-stream"),
]


class Cost(NamedTuple):
    """What was measured, or is promised at most."""

    first: float  # milliseconds from the append's request to the first follower
    last: float
    memory: float  # KiB of each follower
    processor: float  # milliseconds of processor time in a second without news


PROMISED = {"HTTP/1.1": Cost(20, 250, 48, 10), "HTTP/2": Cost(20, 600, 48, 10)}


def measure(bench: Bench) -> list[Footprint]:
    """Measure the service alone, because no other contender lets clients follow its list."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 2 * FOLLOWERS + 1000), most))
    footprints = []
    for version, clients in (("HTTP/1.1", Clients(HTTP1, 1)), ("HTTP/2", Clients(_http2(), STREAMS))):
        with bench.start(SERVICE, 3) as service, clients.stack:
            cost = _cost(service, clients)
        promised = PROMISED[version]
        title = f"{FOLLOWERS:,} {TITLE} over {version}"
        footprints += [
            Footprint(f"{title}: from an append to the first", cost.first, promised.first, "ms"),
            Footprint(f"{title}: from an append to the last", cost.last, promised.last, "ms"),
            Footprint(f"{title}: memory of each", cost.memory, promised.memory, "KiB"),
            Footprint(f"{title}: processor time of a quiet second", cost.processor, promised.processor, "ms"),
        ]
    return footprints


class Clients:
    """Connections with `followers` streams each, which `opening` opens."""

    def __init__(self, opening: bytes, followers: int) -> None:
        self.stack = ExitStack()
        self._opening = opening
        self._count = FOLLOWERS // followers
        self._received: dict[int, bytes] = {}
        self._poll = select.epoll()

    def connect(self, port: int) -> None:
        """Connect, and wait until each follower has the whole list."""
        sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(self._count)]
        for connection in sockets:
            self.stack.enter_context(connection).sendall(self._opening)
            self._received[connection.fileno()] = b""
            self._poll.register(connection, select.EPOLLIN)
        self.wait(b'"name":"Hermione"')

    def wait(self, news: bytes) -> tuple[float, float]:
        """Return when the first follower got the news, and when the last did."""
        arrivals: list[float] = []
        while len(arrivals) < FOLLOWERS:
            for number, _ in self._poll.poll():
                seen = self._received[number].count(news)
                self._received[number] += os.read(number, 2**18)
                arrivals += [time.perf_counter()] * (self._received[number].count(news) - seen)
        return arrivals[0], arrivals[-1]


def _cost(service: Service, clients: Clients) -> Cost:
    fetch(service.port, "/wizards")
    before = resident(service)
    clients.connect(service.port)
    memory = (resident(service) - before) / FOLLOWERS / 2**10
    delays = [_delays(service, clients, f"News-{number}") for number in range(NAMES)]
    time.sleep(PAUSE)
    used = _processor_time(service)
    time.sleep(QUIET)
    processor = (_processor_time(service) - used) / QUIET * 1000
    first, last = (median(each) for each in zip(*delays, strict=True))
    return Cost(first, last, memory, processor)


def _delays(service: Service, clients: Clients, name: str) -> tuple[float, float]:
    time.sleep(PAUSE)
    begin = time.perf_counter()
    with socket.create_connection(("127.0.0.1", service.port)) as appender:
        appender.sendall(f"HEAD /wizards?name={name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        first, last = clients.wait(f'"name":"{name}"'.encode())
    return (first - begin) * 1000, (last - begin) * 1000


def _http2() -> bytes:
    encoder = Encoder()
    frames = [SettingsFrame(0).serialize(), WindowUpdateFrame(0, window_increment=2**30).serialize()]
    for stream in range(1, 2 * STREAMS, 2):
        block = encoder.encode(HTTP2)
        frames.append(HeadersFrame(stream, block, flags=("END_HEADERS", "END_STREAM")).serialize())
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"".join(frames)


def _processor_time(service: Service) -> float:
    # In seconds: fields 14 and 15 of proc(5), behind the name in brackets.
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
