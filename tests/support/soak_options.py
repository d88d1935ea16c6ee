"""The options of `make soak`, in a module of their own: `--help` needs nothing installed."""

import argparse
import random


def parse() -> argparse.Namespace:
    """Return the options on the command line; exit after `--help`."""
    parser = argparse.ArgumentParser(
        prog="make soak ARGS=...",
        description="Run a mixed workload while servers and PostgreSQL are killed at random.",
    )
    parser.add_argument("--minutes", type=float, default=10, help="how long new rounds are started")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="repeats a run's faults")
    return parser.parse_args()


if __name__ == "__main__":
    parse()
