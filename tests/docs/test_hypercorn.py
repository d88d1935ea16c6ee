"""The table of patches in docs/hypercorn.md."""

import re

from support.servers import ROOT
from wizards.server import patches

TABLE = (ROOT / "docs/hypercorn.md").read_text()


def test_every_test_exists() -> None:
    """Each row names a test that exists, with and without a server."""
    named = re.findall(r"`(test_\w+)::(test_\w+)`", TABLE)
    assert len(named) > 40
    for file, test in named:
        assert f"def {test}(" in (ROOT / f"tests/server/{file}.py").read_text(), test
    for row in TABLE.splitlines():
        if row.startswith("| ") and not row.startswith(("| fault", "| ---")):
            cells = row.split(" | ")
            assert sum("test_" in cell for cell in cells) == 2, row


def test_every_patch_has_a_row() -> None:
    """Each patch is in the table, and nothing else is said to be one."""
    ours = {patch.ours for patch in (patches.HOOK, *patches.PATCHES, *patches.QUIC_PATCHES)}
    ours |= {"http1.HTTP1Protocol"}  # the base of http1_short_cut.ShortCutProtocol
    modules = "|".join({name.partition(".")[0] for name in ours})
    named = set(re.findall(rf"`((?:{modules})\.(?!py`)\w+)`", TABLE))
    assert named - {"patches.digest"} == ours
