"""What a Firestore database must be: decided over what its admin service says."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator

import grpc

from router.backends.firestore import facts, resources
from router.backends.firestore.admin import Admin
from router.backends.firestore.facts import FirestoreFacts
from router.backends.firestore.names import Layout
from router.backends.google.channels import FIRESTORE, open_channel, project
from router.config import Config
from router.errors import Unavailable
from router.findings import Finding, error, fine, note, warning
from router.needs import THERE

UNSEEN = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED)


async def look(config: Config, chance: random.Random) -> AsyncIterator[Finding]:
    """Raises ``Unavailable``, and ``ConfigError`` where there are no credentials."""
    if FIRESTORE.emulator():
        why = "An emulator has no TTL policies and no admin service."
        yield note("firestore.database", "an emulator: its settings cannot be checked", why)
        return
    name = Layout(project(config), config.google.firestore_database, config.cold.collection).database
    async with await open_channel(FIRESTORE, config) as channel:
        admin = Admin(channel, name, chance)
        try:
            found = await facts.gather(admin, facts.expiring(config))
        except Unavailable as problem:
            if not _is_unseen(problem):
                raise
            why = "So it is unknown whether it is in the right mode and deletes expired documents."
            fix = "to check this, gcloud projects add-iam-policy-binding … --role=roles/datastore.viewer"
            yield note("firestore.database", f"these credentials may not read its settings ({problem})", why, fix)
            return
        for finding in judge(found, config):
            yield finding
        for need in resources.needs(admin, config):
            if need.what == resources.INDEXES:
                yield judge_indexes(need.where.rpartition("/")[2], await need.look())


def _is_unseen(problem: Unavailable) -> bool:
    cause = problem.__cause__
    return isinstance(cause, grpc.aio.AioRpcError) and cause.code() in UNSEEN


def judge_indexes(group: str, state: str) -> Finding:
    """What is to be said of the indexes of one collection."""
    check = "firestore.indexes"
    if state == THERE:
        return fine(check, f"{group}: there")
    why = "Without some, retention and `inspect-queue` fail; where they are not switched off, each write costs more."
    return warning(check, f"{group}: {state}", why, "router setup")


def judge(found: FirestoreFacts, config: Config) -> Iterator[Finding]:
    """All that is to be said of one database."""
    if found.mode != "FIRESTORE_NATIVE":
        why = "The router uses subcollections, transactions and collection groups of the native mode."
        fix = f"gcloud firestore databases update --type=firestore-native {resources.named(config)}"
        yield error("firestore.database", f"it is in {found.mode.lower()}", why, fix)
        return
    yield fine("firestore.database", f"native mode, {found.location}")
    if not found.protected:
        why = "A single command can delete it with all cold mail."
        fix = f"gcloud firestore databases update --delete-protection {resources.named(config)}"
        yield note("firestore.protection", "the database has no delete protection", why, fix)
    for group, state in found.expiry.items():
        yield _expiry(group, state, config)


def _expiry(group: str, state: str, config: Config) -> Finding:
    check = "firestore.ttl"
    if state == "ACTIVE":
        return fine(check, f"{group}: on {facts.EXPIRY_FIELD}")
    if state == "CREATING":
        return note(check, f"{group}: being created", "This may take some hours, and nothing waits for it.")
    why = (
        "Sweepers delete expired documents. Those that they miss stay, and cost money, until a TTL policy deletes them."
    )
    fix = f"`router setup`, or {resources.policy_command(config, group)}"
    return warning(check, f"{group}: no active TTL policy ({state.lower()})", why, fix)
