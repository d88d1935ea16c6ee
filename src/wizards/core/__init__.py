"""The shared list: batches, snapshots and the rendered documents. Knows no framework, database or server."""
