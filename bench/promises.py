"""The promised rates, as multiples of a reference's rate in the same round."""

from typing import NamedTuple

from .services import FLASK, FLASK_SQLITE, FLOOR, OTHERS, OURS, Contender

HYPERCORN, _, GRANIAN = OURS
RIVALS = [who for who in OTHERS if who.server == GRANIAN.server and who.name in ("Starlette", "BlackSheep")]


class Promise(NamedTuple):
    """On `workload` the rate of `ours` is at least `factor` times the rate of `reference`.

    The reference's rate may be that of another workload.
    """

    workload: str
    ours: Contender
    factor: float
    reference: Contender
    reference_workload: str


def _same(workload: str, factor: float, reference: Contender, ours: Contender = HYPERCORN) -> Promise:
    return Promise(workload, ours, factor, reference, workload)


PROMISES = (
    _same("/", 0.95, FLOOR[0]),
    _same("/api/wizards", 0.95, FLOOR[0]),
    _same("/wizards, 3 names", 0.90, FLOOR[0]),
    _same("/wizards, 10,000 names", 0.90, FLOOR[0]),
    _same("/wizards, 10,000 names", 5, FLASK[0]),
    _same("/wizards, 10,000 names, gzip", 0.90, FLOOR[0]),
    _same("/wizards, 10,000 names, gzip", 10, FLASK[0]),
    Promise("/wizards, 100,000 names, unchanged", HYPERCORN, 1, HYPERCORN, "/wizards, 3 names, unchanged"),
    _same("durable appends, 1 client", 1, FLASK_SQLITE[0]),
    _same("durable appends, 64 clients", 4.5, FLASK_SQLITE[0]),
    *(_same(path, 1, rival, GRANIAN) for path in ("/", "/api/wizards") for rival in RIVALS),
    *(_same("/wizards, 3 names", 0.90, rival, GRANIAN) for rival in RIVALS),
)
