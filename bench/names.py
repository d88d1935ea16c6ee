"""The names that a list is filled with before it is measured."""

import os

NAMES = "BENCH_NAMES"  # the environment variable that tells a contender how many names to start with

# Names as people have them: gzip finds in them what it would find in real ones, neither a mere series nor
# noise. With 21 characters each, a page of 100,000 of them has 7 MiB.
FIRST = ("Albus", "Cho", "Fleur", "Ginny", "Lavender", "Luna", "Minerva", "Neville", "Nymphadora", "Remus")
LAST = ("Abbott", "Black", "Chang", "Delacour", "Longbottom", "Lovegood", "Lupin", "Patil", "Shacklebolt")
GOLDEN = 11400714819323198485  # Knuth's multiplicative hash: random to look at, the same everywhere


def names(count: int) -> list[str]:
    """Return `count` names, the tutorial's three first."""
    return ["Harry", "Ron", "Hermione", *map(_name, range(3, count))]


def first_names() -> list[str]:
    """Return the names that this process was told to start with."""
    return names(int(os.environ.get(NAMES, "3")))


def page(of: list[str]) -> bytes:
    """Return the page that has to be answered for a list (of names that need no escaping)."""
    return "".join(f"<p>Hello {name} is a wizard of system design with Flask!</p>" for name in of).encode()


def _name(index: int) -> str:
    mixed = index * GOLDEN % 2**64 >> 32
    return f"{FIRST[mixed % len(FIRST)]} {LAST[mixed // len(FIRST) % len(LAST)]} {index}"
