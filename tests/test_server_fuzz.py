"""A short run of `scripts/fuzz_server.py`: requests from the schema, and two tenants at random."""

from __future__ import annotations

from pathlib import Path

import fuzz_server


def test_two_tenants_never_see_each_other(tmp_path: Path) -> None:
    figures = fuzz_server.fuzz_tenants(120, 1, tmp_path)
    assert figures["leaks"].value == 0
    assert figures["answers that the model does not foresee"].value == 0


def test_no_request_breaks_the_server(tmp_path: Path) -> None:
    figures = fuzz_server.fuzz_schema(84, 1, tmp_path)
    assert figures["requests"].value >= 40
    assert figures["errors 500 and hangs"].value == 0 and figures["alive afterwards"].value == 1
