// Tabs that are killed at any moment, in a real browser: the one that comes after goes on with what IndexedDB has kept.
import assert from "node:assert/strict";
import { test } from "node:test";
import { clientOf, envelope, ROUTER, someone, until, waiting } from "../support.js";
import { chance, Tabs } from "./chromium.js";
import { Pages, type Answer } from "./pages.js";

const KILLS = Number(process.env.KILLS);
const SEED = Number(process.env.SEED);
const BACKLOG = 150;
const PAGE = 2;
/** Of all kills. The others are as when somebody closes the tab. */
const CRASHES = 0.3;
/** Of the exchange in which a tab dies: the router gets it or not, the tab has its answer or not, and works on a while. */
const MOMENTS = ["before a request", "before its answer", "with its answer", "after its answer"] as const;
type Moment = (typeof MOMENTS)[number];

/** Opens one tab after another and kills it, each in an exchange that chance chooses. */
class Killer {
  readonly kills = new Map<Moment, number>();
  readonly #random = chance(SEED);
  #moment: Moment | undefined;
  #after = 0;
  #kill: (moment: Moment) => Promise<void> = () => Promise.resolve();

  constructor(
    readonly pages: Pages,
    readonly tabs: Tabs,
    /** Looks at an exchange of which the router has its part. */
    readonly look: (body: Buffer, go: () => Promise<Answer>) => Promise<Answer>,
  ) {
    pages.between = async (number, body, go) => {
      const now = number === pages.number && this.#after-- === 0 ? this.#moment : undefined;
      const kill = this.#kill; // Of this tab.
      if (now === "before a request") return void (await kill(now));
      const answer = await this.look(body, go);
      if (now === "before its answer") return void (await kill(now));
      if (now === "with its answer") void kill(now);
      if (now === "after its answer") void this.#later().then(() => kill(now));
      return answer;
    };
  }

  get count(): number {
    return [...this.kills.values()].reduce((sum, count) => sum + count, 0);
  }

  /** Has a tab do this, until it is killed or, which chance may decide as well, done: then this gives what it has told. */
  async live<T>(does: string, given: object, mortal = true): Promise<T | undefined> {
    this.#moment = MOMENTS[Math.floor(this.#random() * MOMENTS.length)]!;
    this.#after = mortal ? Math.floor(this.#random() * 3) : -1;
    const crashes = this.#random() < CRASHES;
    let [done, died] = [false, () => {}];
    const killed = new Promise<undefined>((resolve) => (died = () => resolve(undefined)));
    this.#kill = async (moment) => {
      if (done) return;
      done = true;
      this.kills.set(moment, (this.kills.get(moment) ?? 0) + 1);
      if (crashes) await (await opened).crash();
      await (await opened).close();
      died();
    };
    const told = this.pages.told();
    const opened = this.tabs.open(this.pages.does(does, given));
    const result = await Promise.race([told, killed]);
    if (done) return await killed;
    done = true;
    await (await opened).close();
    return result as T;
  }

  /** For a time that chance chooses, counted in answers of the browser. */
  async #later(): Promise<void> {
    for (let left = Math.floor(this.#random() * 12); left > 0; left -= 1) await this.tabs.send("Browser.getVersion");
  }
}

/** What a tab does, with `load` of its page and what it is `given`. */
const DRAIN = `
  const { Inbox, RouterClient } = await load();
  const inbox = await Inbox.open();
  await new RouterClient({ url: given.url, token: () => given.token }).drain(inbox.save, { limit: given.limit });
  return (await inbox.messages()).map(({ envelope }) => atob(envelope.encryptedData));`;
const SEND = `
  const { Outbox, RouterClient } = await load();
  const outbox = await Outbox.open();
  for (const envelope of given.envelopes) await outbox.add(envelope);
  await outbox.flush(new RouterClient({ url: given.url, token: () => given.token })); // Only here it may be killed.
  return (await outbox.waiting()).length;`;

test(`${KILLS} tabs that die in the middle of draining lose nothing, and get nothing that they have acknowledged`, async (t) => {
  const [alice, bob] = [someone(), someone()];
  const sender = clientOf(alice);
  const sent: string[] = [];
  const acknowledged = new Set<string>();
  const wrong: string[] = [];
  const pages = await Pages.serve(t, ROUTER);
  const killer = new Killer(pages, await Tabs.launch(t), async (body, go) => {
    const before = new Set(acknowledged);
    const answer = await go();
    const ids = body.length > 0 ? (JSON.parse(body.toString()) as { messageIds: string[] }).messageIds : [];
    if (answer.status < 300) ids.forEach((id) => acknowledged.add(id));
    const page = answer.body.length > 0 ? (JSON.parse(answer.body.toString()) as { messages: Array<{ id: string }> }).messages : [];
    for (const { id } of page) if (before.has(id) || ids.includes(id)) wrong.push(`${id} was acknowledged, and is repeated`);
    return answer;
  });
  const given = { token: bob.token, limit: PAGE };
  while (killer.count < KILLS) {
    if (acknowledged.size === sent.length) {
      const more = Array.from({ length: BACKLOG }, (_, index) => String(sent.length + index));
      await sender.sendBatch(more.map((each) => envelope(bob, each)));
      await until(bob, (texts) => texts.length === BACKLOG);
      sent.push(...more);
    }
    await killer.live(DRAIN, given);
    assert.deepEqual(wrong, []);
  }
  assert.deepEqual(await killer.live(DRAIN, given, false), sent, "each once, in order");
  assert.equal(acknowledged.size, sent.length);
  assert.deepEqual(await waiting(bob), []);
  assert.equal(killer.kills.size, MOMENTS.length);
});

test("tabs that die while they send what is in the outbox send each message once, in order", async (t) => {
  const [alice, bob] = [someone(), someone()];
  const pages = await Pages.serve(t, ROUTER);
  const killer = new Killer(pages, await Tabs.launch(t), (_body, go) => go());
  const written: number[] = [];
  const live = async (count: number, mortal: boolean) => {
    const texts = Array.from({ length: count }, (_, index) => String(written.length + index));
    written.push(...texts.map(Number));
    const given = { token: alice.token, envelopes: texts.map((text) => envelope(bob, text)) };
    return await killer.live<number>(SEND, given, mortal);
  };
  while (killer.count < Math.ceil(KILLS / 10)) await live(3, true);
  assert.equal(await live(1, false), 0);
  const arrived = new Set<string>();
  const order: number[] = [];
  await until(bob, (texts) => texts.at(-1) === String(written.at(-1)) || texts.length === 500);
  await clientOf(bob).drain((messages) => {
    for (const { id, envelope } of messages) {
      assert.ok(!arrived.has(id));
      arrived.add(id);
      order.push(Number(atob(envelope.encryptedData ?? "")));
    }
  });
  assert.deepEqual(order, written);
});
