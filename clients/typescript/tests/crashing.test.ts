// A client dies at any moment, and another one goes on with what is on its disk.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { QueuedMessage } from "sealed-router-client";
import { between, clientOf, envelope, someone, text, until, waiting } from "./support.js";

const DEATHS = 100;
const BACKLOG = 150;
const PAGE = 2;
const MOMENTS = ["before a request", "before its answer", "before it saves", "when it has saved"] as const;

test("a client that dies between any two steps loses nothing, and gets nothing that it has acknowledged", async () => {
  const [alice, bob] = [someone(), someone()];
  const sender = clientOf(alice);
  const sent = Array.from({ length: BACKLOG }, (_, index) => `backlog ${index}`);
  await sender.sendBatch(sent.map((each) => envelope(bob, each)));
  await until(bob, (texts) => texts.length === BACKLOG);

  const disk = new Map<string, string>();
  const acknowledged = new Set<string>();
  const wrong: string[] = []; // What a fetch throws, the client would try again.
  const random = chance(4711);
  const died = new Map<string, number>();
  const live = async (moment?: string, steps = 0): Promise<void> => {
    const life = new AbortController();
    const pass = (now: (typeof MOMENTS)[number]) => {
      if (now === moment && steps-- === 0) {
        died.set(now, (died.get(now) ?? 0) + 1);
        life.abort(new Error("died"));
      }
      life.signal.throwIfAborted();
    };
    const fetch = between(async ({ init, go }) => {
      pass("before a request");
      const ids = init.body ? (JSON.parse(String(init.body)) as { messageIds: string[] }).messageIds : [];
      const response = await go();
      for (const id of ids) {
        if (!disk.has(id)) wrong.push(`${id} is acknowledged, and was not saved`);
        if (response.ok) acknowledged.add(id);
      }
      const body = await response.text();
      const { messages } = JSON.parse(body || '{"messages": []}') as { messages: QueuedMessage[] };
      for (const { id } of messages) if (acknowledged.has(id)) wrong.push(`${id} was acknowledged, and is repeated`);
      pass("before its answer");
      return new Response(body || null, response);
    });
    const save = async (messages: QueuedMessage[]) => {
      pass("before it saves");
      for (const message of messages) disk.set(message.id, text(message));
      pass("when it has saved");
    };
    await clientOf(bob, { fetch }).drain(save, { limit: PAGE, signal: life.signal }).catch((error: unknown) => {
      if (!life.signal.aborted || error !== life.signal.reason) throw error;
    });
    assert.deepEqual(wrong, []);
  };
  const deaths = () => [...died.values()].reduce((sum, count) => sum + count, 0);
  for (let number = 0; deaths() < DEATHS; number += 1) {
    if (acknowledged.size === sent.length) {
      await sender.send(envelope(bob, `later ${number}`));
      sent.push(`later ${number}`);
      await until(bob, (texts) => texts.length > 0);
    }
    await live(MOMENTS[Math.floor(random() * MOMENTS.length)], Math.floor(random() * 3));
  }
  await live();
  assert.deepEqual([...disk.values()], sent, "each once, in order");
  assert.deepEqual([...acknowledged], [...disk.keys()]);
  assert.deepEqual(await waiting(bob), []);
  assert.equal(died.size, MOMENTS.length);
});

/** The same numbers from 0 to 1 in each run. */
function chance(seed: number): () => number {
  return () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
}
