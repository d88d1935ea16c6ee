"""Raw TCP clients of a server on this machine."""

import socket
import struct


def connect(port: int) -> socket.socket:
    """Open a connection whose operations time out after 30 seconds; small writes are sent at once."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def reset_on_close(connection: socket.socket) -> None:
    """Make `connection.close()` send a TCP reset instead of an orderly end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def receive_all(connection: socket.socket) -> bytes:
    """Return everything that arrives until the server closes the connection."""
    return b"".join(iter(lambda: connection.recv(2**16), b""))


def receive_until(end: bytes, connection: socket.socket) -> bytes:
    """Return what arrives up to `end` and perhaps beyond; fail if the connection is closed before."""
    received = b""
    while end not in received:
        chunk = connection.recv(2**16)
        assert chunk, f"the connection was closed before {end!r}"
        received += chunk
    return received


def begin_append(port: int, name: str) -> socket.socket:
    """Send an append and return its connection once the application has received the request.

    Hypercorn sends the interim 100 response when the application starts to receive.
    """
    connection = connect(port)
    head = f"GET /wizards?name={name} HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nConnection: close"
    connection.sendall(f"{head}\r\n\r\n".encode())
    assert connection.recv(12) == b"HTTP/1.1 100"
    return connection


def receive_final_response(connection: socket.socket) -> bytes:
    """Return the response that follows an interim 100 response, up to the end of the connection."""
    return receive_all(connection).partition(b"\r\n\r\n")[2]
