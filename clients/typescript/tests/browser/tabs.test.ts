// Tabs that are killed at any moment, in a real browser: the one that comes after goes on with what IndexedDB has kept.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Browser, CDPSession, Page } from "playwright-core";
import { clientOf, envelope, ROUTER, someone, until, waiting, type User } from "../support.js";
import { chance, launch } from "./chromium.js";
import { Pages } from "./pages.js";

const KILLS = Number(process.env.KILLS);
const SEED = Number(process.env.SEED);
const BACKLOG = 150;
const PAGE = 2;
/** Of all kills. The others are as when somebody closes the tab. */
const CRASHES = 0.3;
/** Of the exchange in which a tab dies: the router gets it or not, the tab has its answer or not, and works on a while. */
const MOMENTS = ["before a request", "before its answer", "with its answer", "after its answer"] as const;
type Moment = (typeof MOMENTS)[number];

/** Kills one tab after another, each in an exchange that chance chooses. */
class Killer {
  readonly kills = new Map<Moment, number>();
  readonly #random = chance(SEED);
  #moment: Moment | undefined;
  #after = 0;
  #kill: (moment: Moment) => Promise<void> = () => Promise.resolve();

  constructor(
    readonly pages: Pages,
    readonly browser: CDPSession,
    /** Looks at an exchange of which the router has had its part. */
    readonly look: (path: string, body: Buffer, go: () => Promise<{ status: number; body: Buffer }>) => ReturnType<typeof go>,
  ) {
    pages.between = async (path, body, go) => {
      const now = this.#after-- === 0 ? this.#moment : undefined;
      const kill = this.#kill; // Of this tab.
      if (now === "before a request") return void (await kill(now));
      const answer = await this.look(path, body, go);
      if (now === "before its answer") return void (await kill(now));
      if (now === "with its answer") void kill(now);
      if (now === "after its answer") void this.#later().then(() => kill(now));
      return answer;
    };
  }

  get count(): number {
    return [...this.kills.values()].reduce((sum, count) => sum + count, 0);
  }

  /** Opens a tab that does this, until it is killed or, which chance may decide as well, done. */
  async live(page: Page, work: (page: Page) => Promise<unknown>, mortal = true): Promise<void> {
    this.#moment = MOMENTS[Math.floor(this.#random() * MOMENTS.length)]!;
    this.#after = mortal ? Math.floor(this.#random() * 3) : -1;
    const session = this.#random() < CRASHES ? await page.context().newCDPSession(page) : undefined;
    let [killed, done] = [undefined as Promise<void> | undefined, false];
    const gone = new Promise<void>((resolve) => page.once("close", () => resolve()).once("crash", () => resolve()));
    this.#kill = async (moment) => {
      if (done) return;
      this.kills.set(moment, (this.kills.get(moment) ?? 0) + 1);
      // What crashes doesn't answer.
      killed = session ? session.send("Page.crash").then(() => {}, () => {}) : page.close();
      await gone;
    };
    await Promise.race([work(page), gone]).catch((error: unknown) => {
      if (!killed) throw error;
    });
    done = true;
    if (!page.isClosed()) await page.close();
  }

  /** For a time that chance chooses, counted in answers of the browser. */
  async #later(): Promise<void> {
    for (let left = Math.floor(this.#random() * 12); left > 0; left -= 1) await this.browser.send("Browser.getVersion");
  }
}

async function open(browser: Browser, pages: Pages): Promise<() => Promise<Page>> {
  const context = await browser.newContext();
  return async () => {
    const page = await context.newPage();
    await page.goto(pages.url, { waitUntil: "domcontentloaded" });
    return page;
  };
}

const drain = (page: Page, url: string, user: User) =>
  page.evaluate(
    async ([url, token, limit]) => {
      const { Inbox, RouterClient } = await load();
      const inbox = await Inbox.open();
      await new RouterClient({ url, token: () => token }).drain(inbox.save, { limit });
      return (await inbox.messages()).map(({ envelope }) => atob(envelope.encryptedData ?? ""));
    },
    [url, user.token, PAGE] as const,
  );

test(`${KILLS} tabs that die in the middle of draining lose nothing, and get nothing that they have acknowledged`, async (t) => {
  const [alice, bob] = [someone(), someone()];
  const sender = clientOf(alice);
  const sent: string[] = [];
  const acknowledged = new Set<string>();
  const wrong: string[] = [];
  const pages = await Pages.serve(t, ROUTER);
  const browser = await launch(t);
  const killer = new Killer(pages, await browser.newBrowserCDPSession(), async (_path, body, go) => {
    const before = new Set(acknowledged);
    const answer = await go();
    const ids = body.length > 0 ? (JSON.parse(body.toString()) as { messageIds: string[] }).messageIds : [];
    if (answer.status < 300) ids.forEach((id) => acknowledged.add(id));
    const page = answer.body.length > 0 ? (JSON.parse(answer.body.toString()) as { messages: Array<{ id: string }> }).messages : [];
    for (const { id } of page) if (before.has(id) || ids.includes(id)) wrong.push(`${id} was acknowledged, and is repeated`);
    return answer;
  });
  const tab = await open(browser, pages);
  while (killer.count < KILLS) {
    if (acknowledged.size === sent.length) {
      const more = Array.from({ length: BACKLOG }, (_, index) => String(sent.length + index));
      await sender.sendBatch(more.map((each) => envelope(bob, each)));
      await until(bob, (texts) => texts.length === BACKLOG);
      sent.push(...more);
    }
    await killer.live(await tab(), (page) => drain(page, pages.url, bob));
    assert.deepEqual(wrong, []);
  }
  let kept: unknown;
  await killer.live(await tab(), async (page) => (kept = await drain(page, pages.url, bob)), false);
  assert.deepEqual(kept, sent, "each once, in order");
  assert.equal(acknowledged.size, sent.length);
  assert.deepEqual(await waiting(bob), []);
  assert.equal(killer.kills.size, MOMENTS.length);
});

test("tabs that die while they send what is in the outbox send each message once, in order", async (t) => {
  const [alice, bob] = [someone(), someone()];
  const pages = await Pages.serve(t, ROUTER);
  const browser = await launch(t);
  const killer = new Killer(pages, await browser.newBrowserCDPSession(), (_path, _body, go) => go());
  const tab = await open(browser, pages);
  const written: number[] = [];
  let number = 0;
  const write = async (page: Page, count: number) => {
    const texts = Array.from({ length: count }, () => String((number += 1)));
    written.push(...texts.map(Number));
    const left = await page.evaluate(
      async ([url, token, envelopes]) => {
        const { Outbox, RouterClient } = await load();
        const outbox = await Outbox.open();
        for (const envelope of envelopes) await outbox.add(envelope);
        await outbox.flush(new RouterClient({ url, token: () => token })); // Only here it may be killed.
        return (await outbox.waiting()).length;
      },
      [pages.url, alice.token, texts.map((text) => envelope(bob, text))] as const,
    );
    assert.equal(left, 0);
  };
  while (killer.count < Math.ceil(KILLS / 10)) await killer.live(await tab(), (page) => write(page, 3));
  await killer.live(await tab(), (page) => write(page, 1), false);
  const arrived = new Set<string>();
  const order: number[] = [];
  await until(bob, (texts) => texts.at(-1) === String(number) || texts.length === 500);
  await clientOf(bob).drain((messages) => {
    for (const { id, envelope } of messages) {
      assert.ok(!arrived.has(id));
      arrived.add(id);
      order.push(Number(atob(envelope.encryptedData ?? "")));
    }
  });
  assert.deepEqual(order, written);
});
