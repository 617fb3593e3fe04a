"""``python -m tests.chaos.disk``: what becomes of mail when the disk under it is damaged.

Each round, by its seed: a router takes mail over its real API; then it is killed, and bits of its data file or of the
log beside it flip, a page becomes zeroes, or the end is missing. Then it starts again, and all is read. Nothing that is
served may differ from what was sent, and what is lost must be told: as the dead letter ``damaged``, in the log, by an
exit code, or by ``router doctor``. Only a log that is cut short can lose mail in silence, as one that ended there.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import httpx
import msgspec
from msgspec import Struct

from router.backends.embedded.schema import FILE_NAME, VERSION, create
from router.cli.exits import Code
from tests.chaos.recording import sealed, tag_of
from tests.chaos.topologies import Cluster, embedded
from tests.support.production import Node
from tests.support.tracebacks import traceback_in

USERS = tuple(f"urn:sm:user:disk{number}" for number in range(3))
MESSAGES = 60
PAGE = 2048
TOLD = ("is damaged", "not an intact database", "log of the database")
"""What the log says where the file or its log is damaged."""


class Damage(Struct, frozen=True):
    """What is done to which file. Places are shares of its length."""

    file: str
    kind: str
    places: tuple[float, ...]
    bits: tuple[int, ...]
    folded: bool
    """The log was folded into the data file before."""
    running: bool
    """The router is still at work then, and killed afterwards."""


def plan(seed: int) -> Damage:
    """The damage of ``seed``."""
    chance = random.Random(f"{seed} disk")
    count = chance.choice((1, 1, 3, 20))
    return Damage(
        file=chance.choice((FILE_NAME, FILE_NAME, f"{FILE_NAME}-wal")),
        kind=chance.choice(("flip", "flip", "zero", "truncate")),
        places=tuple(chance.random() for _ in range(count)),
        bits=tuple(chance.randrange(8) for _ in range(count)),
        folded=chance.random() < 0.5,
        running=chance.random() < 0.2,
    )


def apply(damage: Damage, data_dir: Path) -> bool:
    """Whether there was anything to damage."""
    path = data_dir / damage.file
    content = bytearray(path.read_bytes()) if path.exists() else bytearray()
    if not content:
        return False
    if damage.kind == "truncate":
        del content[int(damage.places[0] * len(content)) :]
    for place, bit in zip(damage.places, damage.bits, strict=True) if damage.kind != "truncate" else ():
        at = int(place * len(content))
        if damage.kind == "flip":
            content[at] ^= 1 << bit
        else:
            start = at // PAGE * PAGE
            content[start : start + PAGE] = bytes(len(content[start : start + PAGE]))
    with path.open("r+b") as file:
        file.write(content)
        file.truncate(len(content))
    return True


class Round:
    """One router, its mail, and what was found wrong with it."""

    def __init__(self, cluster: Cluster, data_dir: Path, seed: int) -> None:
        self.faults: list[str] = []
        self.told = ""
        """How the router said that mail may be lost."""
        self.served: dict[str, tuple[str, str]] = {}
        self.letters: set[str] = set()
        self._cluster = cluster
        self._data_dir = data_dir
        self._chance = random.Random(f"{seed} mail")
        self._node: Node = cluster.nodes["serve"]
        self._sent: dict[str, tuple[str, str]] = {}
        """(user, tag) by id, in the order of acceptance."""
        self._acked: set[str] = set()

    def run(self, damage: Damage) -> str:
        """The whole round; returns what became of it in a few words."""
        self._node.start()
        self._node.wait()
        for number in range(MESSAGES):
            self._send(number)
            if self._chance.random() < 0.1:
                self._read(self._chance.choice(USERS), limit=7)
        if damage.folded:
            self._fold()
        there = apply(damage, self._data_dir) if damage.running else True
        if damage.running:
            self._read(self._chance.choice(USERS), limit=500)
        self._node.kill()
        there = there if damage.running else apply(damage, self._data_dir)
        self._start_again()
        for user in USERS:
            self._read_all(user)
        self._letters()
        self._look_at_log()
        self._node.kill()
        self._judge(silent=damage.kind == "truncate" and damage.file.endswith("-wal"))
        return (self.told or "nothing told") if there else "nothing to damage"

    def _fold(self) -> None:
        with closing(sqlite3.connect(self._data_dir / FILE_NAME, timeout=10)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _request(self, method: str, path: str, user: str, content: bytes | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._cluster.token(user)}", "Content-Type": "application/json"}
        url = f"http://127.0.0.1:{self._node.port}{path}"
        return httpx.request(method, url, headers=headers, content=content, timeout=30)

    def _send(self, number: int) -> None:
        user, tag = self._chance.choice(USERS), f"disk.{number}"
        body = sealed(user, tag, self._chance.choice((10, 500, 4000, 20_000)))
        answer = self._request("POST", "/api/send", USERS[0], body)
        if answer.status_code == 202:
            self._sent[answer.json()["id"]] = user, tag

    def _read(self, user: str, limit: int) -> int | None:
        """Fetch a page, check it, acknowledge it; how many it held, or ``None`` where there was no page."""
        answer = self._request("GET", f"/api/messages?limit={limit}", user)
        if not answer.is_success:
            self._refused(answer)
            return None
        messages = answer.json()["messages"]
        for message in messages:
            self._serve(user, message)
        ids = [message["id"] for message in messages]
        if ids:
            acked = self._request("POST", "/api/messages/ack", user, msgspec.json.encode({"messageIds": ids}))
            if not acked.is_success:
                self._refused(acked)
                return None
            self._acked.update(ids)
        return len(ids)

    def _refused(self, answer: httpx.Response) -> None:
        if answer.status_code != 503:
            self.faults.append(f"{answer.request.url.path} is answered {answer.status_code}")

    def _serve(self, user: str, message: dict[str, object]) -> None:
        id_, envelope = str(message["id"]), message["envelope"]
        assert isinstance(envelope, dict)
        found = str(envelope.get("recipientId")), tag_of(str(envelope.get("encryptedData")))
        if found != self._sent.get(id_) or found[0] != user:
            self.faults.append(f"{user} was given {id_} as {found}, and it is {self._sent.get(id_)}")
        self.served[id_] = found

    def _read_all(self, user: str) -> None:
        for _ in range(MESSAGES):
            if not self._read(user, limit=20):
                return

    def _start_again(self) -> None:
        self._node.start()
        try:
            self._node.wait()
        except AssertionError:
            if self._node.ended != Code.CONFIG or FILE_NAME not in self._node.said():
                self.faults.append(f"it ended with {self._node.ended}: {self._node.said()[-300:]}")
            self.told = "refused with 78"
            self._ask_doctor()
            self._look_at_log()
            self._mend()
            self._node.start()
            self._node.wait()

    def _mend(self) -> None:
        """As docs/operations.md says: what can be read is saved; else it begins anew."""
        broken = self._data_dir / "broken"
        broken.mkdir()
        for path in self._data_dir.glob(f"{FILE_NAME}*"):
            path.rename(broken / path.name)
        dumped = subprocess.run(
            ["sqlite3", str(broken / FILE_NAME), ".dump"], capture_output=True, check=False
        ).stdout.replace(b"ROLLBACK;", b"COMMIT;")
        mended = self._data_dir / FILE_NAME
        subprocess.run(["sqlite3", str(mended)], input=dumped, capture_output=True, check=False)
        if not _is_usable(mended):
            for path in self._data_dir.glob(f"{FILE_NAME}*"):
                path.unlink()
            self.told += ", begun anew"

    def _letters(self) -> None:
        done = self._command("dead-letters", "--json")
        for line in done.stdout.splitlines() if done.returncode == 0 else ():
            letter = json.loads(line)
            self.letters.add(letter["id"])
            if letter["reason"] != "damaged":
                self.faults.append(f"{letter['id']} is a dead letter: {letter['reason']}")

    def _ask_doctor(self) -> None:
        done = self._command("doctor", "--json")
        for finding in json.loads(done.stdout or '{"findings": []}')["findings"]:
            if finding["severity"] == "error" and finding["check"].startswith("embedded."):
                self.told = self.told or f"by doctor, {finding['check']}"

    def _look_at_log(self) -> None:
        said = self._node.log().decode(errors="replace")
        if any(words in said for words in TOLD):
            self.told = self.told or "in the log"
        if told := traceback_in(said):
            self.faults.append(f"it logged a traceback: {told}")

    def _command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "router", *arguments]
        return subprocess.run(
            command, env=self._cluster.settings, capture_output=True, text=True, timeout=60, check=False
        )

    def _judge(self, *, silent: bool) -> None:
        missing = [id_ for id_ in self._sent if id_ not in self.served and id_ not in self.letters]
        if missing and not self.told:
            self._ask_doctor()
        if missing and not self.told and not silent:
            self.faults.append(f"{len(missing)} messages are lost without a word: {missing[:3]}")


def _is_usable(path: Path) -> bool:
    """Whether the tables are all there; then it gets its version."""
    with closing(sqlite3.connect(":memory:")) as wanted, closing(sqlite3.connect(path)) as db:
        create(wanted)
        tables = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
        if db.execute(tables).fetchall() != wanted.execute(tables).fetchall():
            return False
        db.execute(f"PRAGMA user_version = {VERSION}")
        (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        return bool(found == "ok")


def run(seed: int, folder: Path) -> tuple[Damage, str, list[str]]:
    """One round in ``folder``, which is empty: the damage, what became of it, and what was found wrong."""
    damage = plan(seed)
    with embedded(folder, {}) as cluster:
        one = Round(cluster, folder / "data", seed)
        became = one.run(damage)
    return damage, became, one.faults


def main(arguments: Sequence[str]) -> int:
    """0 where nothing was wrong."""
    parser = argparse.ArgumentParser("python -m tests.chaos.disk", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of the first round (0)")
    parser.add_argument("--rounds", type=int, default=20, help="each with a seed of its own (20)")
    options = parser.parse_args(arguments)
    became: Counter[str] = Counter()
    wrong = 0
    for seed in range(options.seed, options.seed + options.rounds):
        folder = Path(tempfile.mkdtemp(prefix="disk-"))
        damage, what, faults = run(seed, folder)
        shutil.rmtree(folder)
        text = f"{damage.kind} {damage.file}: {what}"
        became[text] += 1
        wrong += bool(faults)
        sys.stdout.write(f"seed {seed}: {'; '.join([text, *faults])}\n")
        sys.stdout.flush()
    for what, count in sorted(became.items()):
        sys.stdout.write(f"{count:4}  {what}\n")
    sys.stdout.write(f"{options.rounds} rounds, {wrong} with something wrong.\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
