"""Helpers of the tests: servers, databases, clients, and a checker of histories."""
