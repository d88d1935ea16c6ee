"""The options of `make bench`, in a module of their own: `--help` needs nothing installed."""

import argparse


def parse() -> argparse.Namespace:
    """Return the options on the command line; exit after `--help`."""
    parser = argparse.ArgumentParser(
        prog="make bench ARGS=...",
        description="Measure, print the tables, and write results.md, results.json and results.svg.",
    )
    parser.add_argument("--quick", action="store_true", help="one round of one second each")
    parser.add_argument(
        "--only",
        default="",
        metavar="PATTERN",
        help="run the workloads whose title matches; if none matches, list the titles",
    )
    return parser.parse_args()


if __name__ == "__main__":
    parse()
