"""The dashboard for Grafana: five rows, unique panels, valid expressions."""

import json
import re
from pathlib import Path

import yaml

from tests.support.monitoring import DASHBOARD, expressions, needs_promtool, panels, promtool

ROWS = ["Is it ringing", "What waits for what", "Carrier", "House", "Partners"]
ACROSS = 24
"""Columns of Grafana's grid."""


def test_dashboard_has_its_rows() -> None:
    assert [panel["title"] for panel in panels() if panel["type"] == "row"] == ROWS


def test_panels_have_unique_ids_and_titles() -> None:
    for key in ("id", "title"):
        values = [panel[key] for panel in panels()]
        assert len(set(values)) == len(values), key


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels()):
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert all(0 <= x < ACROSS for x, _ in cells)
        taken |= cells


def test_panels_use_the_chosen_data_source() -> None:
    for panel in panels():
        targets = panel.get("targets", [])
        assert bool(targets) is (panel["type"] != "row")
        assert len({target["refId"] for target in targets}) == len(targets)
        assert all(target["datasource"]["uid"] == "${datasource}" for target in targets)


def test_variables_of_expressions_are_defined() -> None:
    defined = {each["name"] for each in json.loads(DASHBOARD.read_text(encoding="utf-8"))["templating"]["list"]}
    assert defined >= {name for each in expressions() for name in re.findall(r"\$\{?(\w+)", each)}


@needs_promtool
def test_expressions_of_the_dashboard_are_valid(tmp_path: Path) -> None:
    queries = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(queries)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    promtool("check", "rules", file)
