import assert from "node:assert/strict";
import { test } from "node:test";
import { IDBFactory, IDBObjectStore } from "fake-indexeddb";
import { Unauthorized, Unreachable } from "sealed-router-client";
import { Inbox, Outbox } from "sealed-router-client/indexeddb";
import { between, clientOf, envelope, problem, QuickClock, someone, text, until, waiting } from "./support.js";

const message = (id: string) => ({ id, envelope: { recipientId: "bob", encryptedData: btoa(id) } });

test("an inbox holds each message once, in order, after a restart too", async () => {
  const factory = new IDBFactory();
  const first = await Inbox.open("mail", factory);
  await first.save([message("a"), message("b")]);
  await first.save([message("b"), message("c")]);
  first.close();
  const second = await Inbox.open("mail", factory);
  await second.save([message("a"), message("d")]);
  assert.deepEqual((await second.messages()).map(text), ["a", "b", "c", "d"]);
});

test("what was deleted from an inbox does not come again, until nobody can send it again", async (t) => {
  const factory = new IDBFactory();
  const inbox = await Inbox.open("mail", factory);
  await inbox.save([message("a"), message("b")]);
  await inbox.delete("a");
  await inbox.delete("unknown");
  await inbox.save([message("a")]);
  assert.deepEqual(await inbox.messages(), [message("b")]);
  const later = Date.now() + 32 * 24 * 3600 * 1000;
  t.mock.method(Date, "now", () => later);
  const forgetful = await Inbox.open("mail", factory);
  await forgetful.save([message("a")]);
  assert.deepEqual(await forgetful.messages(), [message("b"), message("a")]);
});

test("a full disk is an error, and nothing of the page is acknowledged", async (t) => {
  const [alice, bob] = [someone(), someone()];
  await clientOf(alice).send(envelope(bob, "hello"));
  await until(bob, (texts) => texts.length === 1);
  const inbox = await Inbox.open("mail", new IDBFactory());
  const add = IDBObjectStore.prototype.add;
  t.mock.method(IDBObjectStore.prototype, "add", function (this: IDBObjectStore, value: unknown) {
    const request = add.call(this, value);
    request.onsuccess = () => this.transaction.abort(); // As a browser does at the end, when there is no room.
    return request;
  });
  await assert.rejects(clientOf(bob).drain(inbox.save), /aborted/);
  assert.deepEqual(await waiting(bob), ["hello"]);
});

test("an outbox sends what it holds, in order and once, though the page goes before the answer comes", async () => {
  const [alice, bob] = [someone(), someone()];
  const factory = new IDBFactory();
  const first = await Outbox.open("mail", factory);
  for (const each of ["a", "b", "c"]) await first.add(envelope(bob, each));
  const fetch = between(async ({ go }) => {
    await go();
    throw new TypeError("the page has gone");
  });
  await assert.rejects(first.flush(clientOf(alice, { fetch, clock: new QuickClock() })), Unreachable);
  first.close();
  const second = await Outbox.open("mail", factory);
  await second.add(envelope(bob, "d"));
  assert.equal((await second.waiting()).length, 4);
  assert.deepEqual(await second.flush(clientOf(alice)), []);
  assert.deepEqual(await second.waiting(), []);
  assert.deepEqual(await until(bob, (texts) => texts.includes("d")), ["a", "b", "c", "d"]);
});

test("an outbox tells what is refused, and does not stop at it", async () => {
  const [alice, bob] = [someone(), someone()];
  const outbox = await Outbox.open("mail", new IDBFactory());
  await outbox.add({ recipientId: "no:urn" });
  await outbox.add(envelope(bob, "good"));
  const [refused, ...others] = await outbox.flush(clientOf(alice));
  assert.deepEqual([refused!.envelope, refused!.error.status, others], [{ recipientId: "no:urn" }, 400, []]);
  assert.deepEqual(await outbox.waiting(), []);
  assert.deepEqual(await until(bob, (texts) => texts.length > 0), ["good"]);
});

test("what an outage leaves stays in the outbox, in order", async () => {
  const [alice, bob] = [someone(), someone()];
  const outbox = await Outbox.open("mail", new IDBFactory());
  for (const each of ["a", "b"]) await outbox.add(envelope(bob, each));
  const fetch = between(async () => problem(503, "unavailable"));
  await assert.rejects(outbox.flush(clientOf(alice, { fetch, clock: new QuickClock() })), Unreachable);
  await assert.rejects(outbox.flush(clientOf({ ...alice, token: "a.bad.one" })), Unauthorized);
  await outbox.flush(clientOf(alice));
  assert.deepEqual(await until(bob, (texts) => texts.length === 2), ["a", "b"]);
});
