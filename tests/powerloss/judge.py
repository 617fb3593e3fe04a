"""What a fresh router finds on an image, against what was confirmed before the power went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from router.clock import SystemClock
from tests.contract.stage import staged
from tests.powerloss.images import Image
from tests.powerloss.traffic import USERS, Mail, Recorded, tag_of
from tests.support.clock import ManualClock
from tests.support.pipelines import routed, running
from tests.support.stores import EmbeddedStores

CAP = 100_000
ROUTE_SECONDS = 60.0
"""Real ones: what has not been routed by then never will be."""


async def look(image: Image, recorded: Recorded, folder: Path) -> list[str]:
    """What is wrong with ``image``, which is opened in ``folder``, an empty one."""
    image.write(folder)
    for name, content in recorded.others.items():
        (folder / name).write_bytes(content)
    found: dict[str, list[str]] = {}
    async with staged(EmbeddedStores(folder), ManualClock(SystemClock().now()), cap=CAP) as stage:
        try:
            async with running(stage, ROUTE_SECONDS):
                await routed(stage)
        except TimeoutError:
            return ["the ingress is not routed"]
        for user in USERS:
            batch = await stage.queue.fetch(user, 500)
            found[user] = [tag_of(queued.message.envelope) for queued in batch]
        letters = await stage.letters()
    wrong = [f"{id_} is the dead letter {reason}" for id_, reason in letters]
    for user in USERS:
        wrong += judged(found[user], [mail for mail in recorded.mail if mail.user == user], image.at)
    return wrong


def judged(found: Sequence[str], mail: Sequence[Mail], at: int) -> list[str]:
    """What is wrong with ``found``, the tags of all that one user is given, after the power went at ``at``."""
    wrong = [f"{tag} is there {count} times" for tag, count in Counter(found).items() if count > 1]
    there = set(found)
    for one in mail:
        if 0 <= one.confirmed_at <= at and not 0 <= one.ack_began_at < at and one.tag not in there:
            wrong.append(f"{one.tag} was accepted and is not there")
        if 0 <= one.acked_at <= at and one.tag in there:
            wrong.append(f"{one.tag} was acknowledged and is there again")
    return wrong + _out_of_order(found, {one.tag: one for one in mail})


def _out_of_order(found: Sequence[str], mail: dict[str, Mail]) -> list[str]:
    wrong, first = [], float("inf")
    """When the earliest of those behind was confirmed."""
    for tag in reversed(found):
        if first < mail[tag].began:
            wrong.append(f"{tag} stands before what was accepted before it was sent")
        if mail[tag].confirmed >= 0:
            first = min(first, mail[tag].confirmed)
    return wrong
