"""Make the names that fill a list before the measurement."""

import os

NAMES = "BENCH_NAMES"  # the environment variable with the number of names that a contender starts with

# Ordinary names, so that gzip compresses them like real names, neither like a series nor like noise. With 21
# characters each, a page of 100,000 names has 7 MiB.
FIRST = ("Albus", "Cho", "Fleur", "Ginny", "Lavender", "Luna", "Minerva", "Neville", "Nymphadora", "Remus")
LAST = ("Abbott", "Black", "Chang", "Delacour", "Longbottom", "Lovegood", "Lupin", "Patil", "Shacklebolt")
GOLDEN = 11400714819323198485  # Knuth's multiplicative hash: looks random, equal on every machine


def names(count: int) -> list[str]:
    """Return `count` names, beginning with the tutorial's three."""
    return ["Harry", "Ron", "Hermione", *map(_name, range(3, count))]


def first_names() -> list[str]:
    """Return the names that this process starts with."""
    return names(int(os.environ.get(NAMES, "3")))


def page(of: list[str]) -> bytes:
    """Return the correct page for a list of names that need no escaping."""
    return "".join(f"<p>Hello {name} is a wizard of system design with Flask!</p>" for name in of).encode()


def _name(index: int) -> str:
    mixed = index * GOLDEN % 2**64 >> 32
    return f"{FIRST[mixed % len(FIRST)]} {LAST[mixed // len(FIRST) % len(LAST)]} {index}"
