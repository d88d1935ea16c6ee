"""The promised rates, as multiples of a reference's rate in the same round."""

from typing import NamedTuple

from .services import FLASK, FLASK_SQLITE, FLOOR, OTHERS, OURS, Contender

HYPERCORN, UVICORN, GRANIAN = OURS
SMALL = ("/", "/api/wizards", "/wizards, 3 names")


def _on_granian(*names: str) -> list[Contender]:
    return [who for who in OTHERS if who.server == GRANIAN.server and who.name in names]


RIVALS = _on_granian("Starlette", "BlackSheep")


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
    *(_same(title, 5, FLOOR[0]) for title in SMALL),
    *(_same(f"/wizards, {names} names, unchanged", 5, FLOOR[0]) for names in ("3", "100,000")),
    *(_same(title, 1, rival) for title in SMALL for rival in _on_granian("FastAPI")),
    *(_same(title, 0.90, UVICORN) for title in SMALL),
    _same("/wizards, 1,000 names", 2.5, FLOOR[0]),
    _same("/wizards, 10,000 names", 0.90, FLOOR[0]),
    _same("/wizards, 10,000 names", 5, FLASK[0]),
    _same("/wizards, 10,000 names, gzip", 4, FLOOR[0]),
    _same("/wizards, 10,000 names, gzip", 10, FLASK[0]),
    Promise("/wizards, 100,000 names, unchanged", HYPERCORN, 0.95, HYPERCORN, "/wizards, 3 names, unchanged"),
    _same("durable appends, 1 client", 1.6, FLASK_SQLITE[0]),
    _same("durable appends, 64 clients", 20, FLASK_SQLITE[0]),
    *(_same("/", factor, rival, GRANIAN) for factor, rival in zip((1, 0.95), RIVALS, strict=True)),
    *(_same("/api/wizards", 1, rival, GRANIAN) for rival in RIVALS),
    *(_same(SMALL[2], 0.90, rival, GRANIAN) for rival in RIVALS),
)
