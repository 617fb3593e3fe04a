"""What the log says of outages, dead letters and bugs: enough to act on, and nothing of anybody's mail."""

from __future__ import annotations

import pytest
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.testing import capture_logs

from router.config import Config
from router.config.roles import Role, kinds
from router.dead_reasons import DeadReason
from router.messages import DeadLetter
from router.reports import EFFECTS, ONE_DATABASE, ONE_STORE, LogReports
from router.sampling import LINES
from tests.support.backends import places

SECRET = "MARKER-PAYLOAD"
CONFIG = Config.model_validate({"online": {"kind": "redis", "url": "redis://127.0.0.1"}})
REDIS = places(CONFIG)


@pytest.fixture
def reports() -> LogReports:
    return LogReports(kinds(CONFIG), lambda seconds, call: None)


def test_an_outage_has_its_server_its_error_and_what_it_means(reports: LogReports) -> None:
    with capture_logs() as said:
        reports.outage(REDIS[Role.ONLINE], "connection refused")
        reports.outage_over(REDIS[Role.ONLINE], 61.04, 12)
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


PUBSUB = {"ingress": "pubsub", "push": "pubsub"}
FIRESTORE = {"online": "firestore", "cold": "firestore"}


@pytest.mark.parametrize(
    ("named", "role", "effect"),
    [
        *(({}, role, ONE_DATABASE) for role in Role),
        ({"push": "pubsub"}, Role.PUSH, EFFECTS[Role.PUSH]),
        ({"cold": "firestore"}, Role.ONLINE, ONE_DATABASE),
        ({"cold": "firestore"}, Role.COLD, EFFECTS[Role.COLD]),
        (PUBSUB, Role.INGRESS, EFFECTS[Role.INGRESS]),
        (PUBSUB, Role.ONLINE, ONE_STORE),
        (PUBSUB, Role.COLD, EFFECTS[Role.COLD]),
        (PUBSUB | FIRESTORE, Role.ONLINE, ONE_STORE),
        (PUBSUB | FIRESTORE, Role.COLD, EFFECTS[Role.COLD]),
        (FIRESTORE, Role.INGRESS, EFFECTS[Role.INGRESS]),
        (PUBSUB | {"cold": "firestore"}, Role.ONLINE, EFFECTS[Role.ONLINE]),
    ],
)
def test_the_effect_is_that_of_all_that_the_outage_takes_along(named: dict[str, str], role: Role, effect: str) -> None:
    """What is in one file, or one Firestore, fails together."""
    config = Config.model_validate({section: {"kind": kind} for section, kind in named.items()})
    with capture_logs() as said:
        LogReports(kinds(config), lambda seconds, call: None).outage(places(config)[role], "no")
    assert said[0]["effect"] == effect


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


def test_a_dead_letter_names_no_request_and_no_trace_beside_its_recipient(reports: LogReports) -> None:
    """Who knows whose request it was would know who wrote to whom."""
    letter = DeadLetter("the-id", "urn:sm:user:bob", DeadReason.QUEUE_FULL, "", b"", 1, 0)
    with bound_contextvars(request_id="r-1", trace_id="t-1"), capture_logs(processors=[merge_contextvars]) as said:
        reports.dead_letter(letter)
    assert not {"request_id", "trace_id"} & said[0].keys()


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
