"""Hypercorn: graceful shutdown and patches for its bugs. Does nothing under another server."""
