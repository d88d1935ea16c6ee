"""Certificates that nobody has signed."""

import subprocess
from pathlib import Path


def make_certificate(directory: Path) -> tuple[str, str]:
    """Make a certificate and its key; return their files."""
    certificate, key = directory / "cert.pem", directory / "key.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=t -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    return str(certificate), str(key)
