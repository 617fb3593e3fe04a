"""The plan of a chaos run comes from its seed alone, and covers everything that can fail."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.faults import Chaos
from tests.chaos.plan import SPANS, Fault, Shape, Target, make
from tests.chaos.recording import Recorder
from tests.chaos.topologies import API, embedded
from tests.support.balancer import Balancer

NODES = Shape("nodes", ("api",), (Target("api", "api", ("kill", "pause")), Target("wires", "connections", ("cut",))))
OTHERS = Shape("others", ("ws",), (Target("ws", "ws", ("stop",)),))


def test_a_seed_is_a_plan() -> None:
    assert make(7, 600, [NODES], 3) == make(7, 600, [NODES], 3)
    assert make(7, 600, [NODES], 3) != make(8, 600, [NODES], 3)


def test_everything_fails_about_as_often() -> None:
    faults = make(7, 600, [NODES], 3)
    counts = Counter((fault.kind, fault.target) for fault in faults)
    assert counts.keys() == {("kill", "api"), ("pause", "api"), ("cut", "wires")}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert 150 <= len(faults) <= 250


def test_whatever_is_up_stored_mail_is_damaged(tmp_path: Path) -> None:
    with embedded(tmp_path, {}) as cluster:
        for shape in cluster.shapes:
            damaged = {fault.target for fault in make(7, 600, [shape], 3) if fault.kind == "damage"}
            assert damaged == cluster.stored.keys() == {"hot", "cold", "ingress"}


def test_faults_come_in_time_and_last_as_long_as_their_kind_may() -> None:
    faults = make(7, 600, [NODES, OTHERS], 3)
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    assert all(0 < fault.at < 600 for fault in faults)
    spans = [(fault.seconds, SPANS[fault.kind]) for fault in faults if fault.kind != "reshape"]
    assert all(low <= seconds <= high for seconds, (low, high) in spans)


def test_only_what_is_up_fails() -> None:
    shape = NODES
    for fault in make(7, 600, [NODES, OTHERS], 3):
        if fault.kind == "reshape":
            shape = {"nodes": NODES, "others": OTHERS}[fault.target]
        else:
            assert fault.target in {target.name for target in shape.targets}
    assert sum(fault.kind == "reshape" for fault in make(7, 600, [NODES, OTHERS], 3)) == 7


@pytest.mark.anyio
@pytest.mark.parametrize("target", ["serve", API])
async def test_chaos_raises_for_a_kind_of_fault_that_it_does_not_know(tmp_path: Path, target: str) -> None:
    with embedded(tmp_path, {}) as cluster:
        chaos = Chaos(cluster, Recorder(), {API: Balancer([])}, 1)
        with pytest.raises(ExceptionGroup) as raised:
            await chaos.run([Fault(0.0, "zap", target, target, 0.0)])
    assert raised.group_contains(KeyError, match="zap")
