"""The durable log of names, on SQLite and on PostgreSQL."""
