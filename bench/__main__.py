"""Measure, print the tables, and write results.md, results.json and results.svg (`python -m bench`)."""

import re
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from . import chart, followers, memory, options, report, wrk
from .measure import Bench
from .workloads import WORKLOADS

FOLDER = Path(__file__).parent
ROUNDS = 5


def main() -> int:
    """Run the benchmark and return the exit status."""
    wanted = options.parse()
    if shutil.which("wrk") is None:
        sys.stderr.write(wrk.HINT)
        return 1
    titles = [*(work.title for work in WORKLOADS), memory.TITLE, followers.TITLE]
    chosen = {title for title in titles if re.search(wanted.only, title)}
    if not chosen:
        sys.stderr.write("\n".join(["bench: none of these matches:", *titles, ""]))
        return 1
    with TemporaryDirectory(prefix="wizards-bench-") as folder:
        bench = Bench([work for work in WORKLOADS if work.title in chosen], Path(folder))
        bench.run(*((1, 1) if wanted.quick else (ROUNDS,)))
        alone = [each for each in (memory, followers) if each.TITLE in chosen]
        footprints = [footprint for each in alone for footprint in each.measure(bench)]
    results = report.Results(bench, footprints)
    sys.stdout.write(results.markdown())
    if not (wanted.quick or wanted.only):  # a partial run does not replace the results of a whole run
        (FOLDER / "results.md").write_text(results.markdown())
        (FOLDER / "results.json").write_text(results.json())
        (FOLDER / "results.svg").write_text(chart.draw(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
