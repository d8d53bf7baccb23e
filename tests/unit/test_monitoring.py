"""Alerts and the dashboard ask for metrics that there are, and for labels that these have."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from imagewright.metrics import Metrics

FILES = Path(__file__).parents[2] / "charts/imagewright/files"
NAME = re.compile(r"\b(?:imagebuild|buildcacheprune)_[a-z_]+\b")
GROUPING = re.compile(r"\bby \(([a-z_, ]+)\)")
OF_KUBERNETES = {"pod", "namespace", "le"}
"""Labels that Prometheus adds, or that belong to a histogram."""
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def alerts() -> list[dict[str, Any]]:
    """The alerts of the chart."""
    found: list[dict[str, Any]] = yaml.safe_load((FILES / "alerts.yaml").read_text())
    return found


def panels() -> list[dict[str, Any]]:
    """The panels of the chart's dashboard."""
    found: list[dict[str, Any]] = json.loads((FILES / "dashboard.json").read_text())["panels"]
    return found


def series() -> dict[str, set[str]]:
    """The labels of every series that the operator shows, by the series' name."""
    collectors = Metrics().registry._collector_to_names
    return {
        f"{metric.name}{suffix}": {*getattr(collector, "_labelnames", ())}
        for collector in collectors
        for metric in collector.collect()
        for suffix in SUFFIXES.get(metric.type, ("",))
    }


QUESTIONS = {
    **{alert["alert"]: [alert["expr"]] for alert in alerts()},
    **{panel["title"]: [target["expr"] for target in panel["targets"]] for panel in panels()},
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_is_asked_for_is_shown(name: str) -> None:
    known = series()
    for question in QUESTIONS[name]:
        asked = set(NAME.findall(question))
        assert asked, question
        assert asked <= set(known)
        labels = set().union(*(known[one] for one in asked)) | OF_KUBERNETES
        for group in GROUPING.findall(question):
            assert set(group.split(", ")) <= labels, question


def test_an_alert_says_what_is_wrong_and_where_to_look() -> None:
    for alert in alerts():
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert alert["annotations"]["summary"].endswith(".")
        assert alert["annotations"]["description"].endswith(".")


def test_no_two_panels_lie_upon_one_another() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in panels()}) == len(places)
