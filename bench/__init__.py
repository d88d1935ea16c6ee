"""Benchmark the whole service: wrk drives real servers on this machine (`make bench`)."""
