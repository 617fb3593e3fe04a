"""``examples/monitoring``: rules, dashboard and Compose file name what the router exports, and an alert fires."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from router.config import load_with_origins, with_ports
from router.core import connections
from router.web.application import ROUTES
from router.web.context import EdgeContext
from tests.support.every_metric import every_metric
from tests.support.servers import Server, free_port, prometheus_program, running
from tests.support.service import Router

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "monitoring"
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((FOLDER / "grafana" / "router.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
EXPRESSIONS = [rule["expr"] for rule in RULES] + [target["expr"] for panel in PANELS for target in panel["targets"]]

SELECTOR = re.compile(r"\b((?:router|process)_\w+|up|ALERTS)\b(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
GROUPING = re.compile(r"\bby \(([^)]*)\)")
WORDS = {
    "sum", "min", "max", "count", "rate", "increase", "absent", "abs", "histogram_quantile", "predict_linear",
    "vector", "offset", "and", "or",
}  # fmt: skip
OF_A_SCRAPE = {"job", "instance"}
RED = "When it is red"
FIRES_SECONDS = 60.0


def exported() -> dict[str, list[dict[str, str]]]:
    """By the name of each series that a router exports: the labels of its samples."""
    metrics = every_metric()
    EdgeContext([], metrics)
    metrics.closes(connections.CLOSE_CODES)
    for route in ROUTES:
        metrics.serves(route, [])
    found: dict[str, list[dict[str, str]]] = {"up": [{}], "ALERTS": [{"alertstate": "firing", "alertname": ""}]}
    for family in metrics.registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


EXPORTED = exported()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_names_series_that_the_router_exports(expression: str) -> None:
    """Their labels too, and where a label has to be equal to something, there is a series of that value."""
    labels = set(OF_A_SCRAPE)
    for name, matchers in SELECTOR.findall(expression):
        assert name in EXPORTED
        own = {label for sample in EXPORTED[name] for label in sample} | OF_A_SCRAPE
        labels |= own
        for label, operator, value in MATCHER.findall(matchers):
            assert label in own
            if operator == "=" and label not in (*OF_A_SCRAPE, "alertstate"):
                assert any(sample[label] == value for sample in EXPORTED[name])
    for grouping in GROUPING.findall(expression):
        assert {label.strip() for label in grouping.split(",")} <= labels
    rest = re.sub(r"\[[^\]]*\]|\d+[smhd]?\b", "", GROUPING.sub("", SELECTOR.sub("", expression)))
    assert set(re.findall(r"[A-Za-z_]\w*", rest)) <= WORDS, "a name that is no series of the router"


def test_the_check_of_expressions_sees_mistakes() -> None:
    for wrong in (
        "router_dead_letter_total",
        'router_dead_letters_total{cause="damaged"}',
        'router_dead_letters_total{reason="lost"}',
        "sum by (lane) (router_dead_letters_total)",
        "roter_dead_letters_total",
    ):
        with pytest.raises(AssertionError):
            test_an_expression_names_series_that_the_router_exports(wrong)


def test_each_rule_says_what_to_do_and_how_urgent_it_is() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert {"summary", "do"} == rule["annotations"].keys()
        assert len(rule["annotations"]["do"]) > 40


def test_each_panel_says_what_to_do_when_it_is_red() -> None:
    """One without a threshold is never red, and says what to look for."""
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in PANELS:
        assert panel["description"].startswith(RED), panel["title"]
        colours = [step["color"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        never = panel["description"].startswith(f"{RED}: no threshold.")
        assert ("red" in colours) != never, panel["title"]
        assert panel["targets"]


def test_what_texts_refer_to_is_there() -> None:
    texts = [text for rule in RULES for text in rule["annotations"].values()]
    texts += [panel["description"] for panel in PANELS]
    for page, anchor in re.findall(r"(docs/[a-z-]+\.md)#([a-z-]+)", " ".join(texts)):
        headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
        assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_compose_starts_a_router_that_prometheus_finds() -> None:
    router = COMPOSE["router"]
    config = with_ports(load_with_origins(None, router["environment"]).config, "serve")
    scrape = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"][0]
    assert scrape["static_configs"][0]["targets"] == [f"router:{config.server.admin_port}"]
    assert config.server.admin_host == "0.0.0.0"
    assert all(not port.endswith(f":{config.server.admin_port}") for port in router["ports"])
    for service in COMPOSE.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert not source.startswith(".") or (FOLDER / source).is_file()
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def promtool(*arguments: str, stdin: bytes = b"") -> None:
    command = [str(prometheus_program("promtool")), *arguments]
    done = subprocess.run(command, cwd=FOLDER, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def test_promtool_finds_the_rules_right() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "rules.yml")
    promtool("test", "rules", "rules_test.yml")


def test_promtool_finds_the_metrics_right() -> None:
    promtool("check", "metrics", stdin=every_metric().render())


class Prometheus:
    """A real one that looks at a router every second, with the rules of the example."""

    def __init__(self, folder: Path, target: int) -> None:
        config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(FOLDER / "rules.yml")]
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{target}"]
        folder.mkdir()
        file, port = folder / "prometheus.yml", free_port()
        file.write_text(yaml.safe_dump(config))
        command = [str(prometheus_program("prometheus")), f"--config.file={file}", f"--storage.tsdb.path={folder}/data"]
        self.server = Server([*command, f"--web.listen-address=127.0.0.1:{port}"], port, folder)
        self._api = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False)

    def _asked(self, path: str, **parameters: str) -> Any:
        answer = self._api.get(path, params=parameters)
        return answer.json()["data"] if answer.is_success else None  # 503 until it is ready

    def value(self, expression: str) -> float | None:
        found = self._asked("/query", query=expression)
        return float(found["result"][0]["value"][1]) if found and found["result"] else None

    def firing(self) -> set[tuple[str, str]]:
        """(name, reason) of each alert that fires."""
        alerts = (self._asked("/alerts") or {"alerts": []})["alerts"]
        return {(a["labels"]["alertname"], a["labels"].get("reason", "")) for a in alerts if a["state"] == "firing"}

    def close(self) -> None:
        self._api.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + FIRES_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_dead_letter_is_an_alert_in_prometheus(tmp_path: Path) -> None:
    """The first of its reason, of a process that has just started: its series was there before, with 0."""
    router = Router(tmp_path / "data", {"ROUTER_LIMITS__QUEUE_MESSAGES": "1"})
    prometheus = Prometheus(tmp_path / "prometheus", router.admin_ports["serve"])
    try:
        with router.running(), running(prometheus.server):
            until(lambda: prometheus.value('router_dead_letters_total{reason="queue-full"}') == 0)
            assert prometheus.firing() == set()
            headers = {"authorization": f"Bearer {router.token('alice')}"}
            for _ in range(2):
                body = {"recipientId": "urn:sm:user:bob", "payload": "AAAA"}
                assert httpx.post(f"{router.url}/api/send", json=body, headers=headers).status_code == 202
            until(lambda: prometheus.firing() == {("RouterDeadLetters", "queue-full")})
            until(lambda: prometheus.value('router_queue_messages{queue="cold"}') is not None)
    finally:
        prometheus.close()
