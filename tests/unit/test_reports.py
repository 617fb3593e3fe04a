"""What the log says of outages, dead letters and bugs: enough to act on, and nothing of anybody's mail."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from router.config.places import Place, Role
from router.messages import DeadLetter, DeadReason
from router.reports import EFFECTS, LogReports
from router.sampling import LINES

SECRET = "MARKER-PAYLOAD"
REDIS = Place(Role.ONLINE, "redis", "127.0.0.1:6379 (single)")


@pytest.fixture
def reports() -> LogReports:
    return LogReports(lambda seconds, call: None)


def test_an_outage_has_its_server_its_error_and_what_it_means(reports: LogReports) -> None:
    with capture_logs() as said:
        reports.outage(REDIS, "connection refused")
        reports.outage_over(REDIS, 61.04, 12)
    where = {"dependency": "online", "kind": "redis", "server": "127.0.0.1:6379 (single)"}
    begins = {
        "event": "outage begins",
        "log_level": "error",
        "error": "connection refused",
        "effect": EFFECTS["online"],
    }
    over = {"event": "outage is over", "log_level": "warning", "seconds": 61.0, "failed_calls": 12}
    assert said == [{**where, **begins, "effect": EFFECTS["online"]}, {**where, **over}]
    assert set(EFFECTS) == set(Role)


def test_a_dead_letter_has_its_reason_and_nothing_of_the_letter(reports: LogReports) -> None:
    letter = DeadLetter("the-id", "urn:sm:user:bob", DeadReason.UNDECODABLE, SECRET, SECRET.encode(), 3, 0)
    with capture_logs() as said:
        reports.dead_letter(letter)
    assert said == [
        {
            "event": "dead letter",
            "log_level": "warning",
            "reason": "undecodable",
            "id": "the-id",
            "recipient": "urn:sm:user:bob",
            "attempts": 3,
        }
    ]


def test_bugs_alike_are_sampled_and_others_are_not(reports: LogReports) -> None:
    def fail(where: dict[str, str] | list[str]) -> None:
        try:
            where[SECRET]  # type: ignore[call-overload]  # a list takes no text
        except (KeyError, TypeError) as error:
            reports.bug("routing", error)

    with capture_logs() as said:
        for _ in range(LINES + 5):
            fail({})
        fail([])
        reports.finish()
    assert [line["event"] for line in said] == ["a bug in the router"] * (LINES + 1) + ["more of the same bug"]
    assert (said[-1]["left_out"], SECRET in said[-1]["bug"]) == (5, False)
