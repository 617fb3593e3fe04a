// The client and its stores in a page of Chromium: another origin than the router's, its own fetch, WebSocket and IndexedDB.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { BrowserContext, Page } from "playwright-core";
import type { QueuedMessage } from "sealed-router-client";
import { clientOf, envelope, ROUTER, someone, until, waiting, type User } from "../support.js";
import { launch, PATIENCE_MS } from "./chromium.js";
import { Pages } from "./pages.js";

/** What the test keeps in a page. */
type Listening = { ended: Promise<void>; stop: AbortController };

test("the client and its stores in Chromium", async (t) => {
  const pages = await Pages.serve(t, ROUTER, Number(process.env.PAGE_PORT));
  const browser = await launch(t);

  const context = async () => {
    const made = await browser.newContext();
    made.setDefaultTimeout(PATIENCE_MS);
    return made;
  };
  const tab = async (context: BrowserContext) => {
    const page = await context.newPage();
    await page.goto(pages.url);
    return page;
  };
  const save = (page: Page, messages: QueuedMessage[]) =>
    page.evaluate(async (messages) => {
      const inbox = await (await load()).Inbox.open();
      await inbox.save(messages);
      inbox.close();
    }, messages);
  const kept = (page: Page) =>
    page.evaluate(async () => {
      const inbox = await (await load()).Inbox.open();
      return (await inbox.messages()).map(({ id }) => id);
    });
  const add = (page: Page, to: User, texts: string[]) =>
    page.evaluate(
      async (envelopes) => {
        const outbox = await (await load()).Outbox.open();
        for (const each of envelopes) await outbox.add(each);
        outbox.close();
      },
      texts.map((text) => envelope(to, text)),
    );
  const flush = (page: Page, from: User) =>
    page.evaluate(
      async ([url, token]) => {
        const { Outbox, RouterClient } = await load();
        const outbox = await Outbox.open();
        await outbox.flush(new RouterClient({ url, token: () => token }));
        return (await outbox.waiting()).length;
      },
      [ROUTER, from.token] as const,
    );
  const message = (id: string) => ({ id, envelope: { recipientId: "bob", encryptedData: btoa(id) } });

  await t.test("an inbox keeps each message once, in order, when the page is loaded again and in another tab", async () => {
    const one = await context();
    const page = await tab(one);
    await save(page, [message("c"), message("a")]);
    await page.reload();
    const other = await tab(one);
    await Promise.all([save(page, [message("a"), message("b")]), save(other, [message("b"), message("c")])]);
    assert.deepEqual(await kept(page), ["c", "a", "b"]);
    await page.evaluate(async () => await (await (await load()).Inbox.open()).delete("a"));
    await save(other, [message("a"), message("d")]);
    assert.deepEqual(await kept(other), ["c", "b", "d"]);
  });

  await t.test("an outbox that two tabs send at once is sent once, in order", async () => {
    const [alice, bob] = [someone(), someone()];
    const one = await context();
    const [page, other] = [await tab(one), await tab(one)];
    const texts = Array.from({ length: 40 }, (_, index) => String(index));
    await add(page, bob, texts);
    await Promise.all([flush(page, alice), flush(other, alice)]);
    await add(page, bob, ["last"]);
    assert.equal(await flush(page, alice), 0);
    assert.deepEqual(await until(bob, (texts) => texts.includes("last")), [...texts, "last"]);
  });

  await t.test("what is written without a network waits, and is sent when there is one", async () => {
    const [alice, bob] = [someone(), someone()];
    const one = await context();
    const page = await tab(one);
    await add(page, bob, ["a", "b"]);
    await one.setOffline(true);
    const failure = await page.evaluate(
      async ([url, token]) => {
        const { Outbox, RouterClient } = await load();
        const client = new RouterClient({ url, token: () => token, budgetSeconds: 0 });
        return await (await Outbox.open()).flush(client).catch((error: Error) => error.name);
      },
      [ROUTER, alice.token] as const,
    );
    assert.equal(failure, "Unreachable");
    await one.setOffline(false);
    assert.equal(await flush(page, alice), 0);
    assert.deepEqual(await until(bob, (texts) => texts.length === 2), ["a", "b"]);
  });

  await t.test("a page of another origin listens, is poked, and stops", async () => {
    const [alice, bob] = [someone(), someone()];
    const page = await tab(await context());
    await page.evaluate(
      async ([url, token]) => {
        const page = globalThis as unknown as Listening;
        const { Inbox, RouterClient } = await load();
        const inbox = await Inbox.open();
        page.stop = new AbortController();
        await new Promise<void>((connected) => {
          const client = new RouterClient({ url, token: () => token });
          page.ended = client.listen(inbox.save, { signal: page.stop.signal, connected });
        });
      },
      [ROUTER, bob.token] as const,
    );
    const ids = [];
    for (const text of ["a", "b", "c"]) ids.push(await clientOf(alice).send(envelope(bob, text)));
    while ((await kept(page)).length < ids.length || (await waiting(bob)).length > 0);
    await page.evaluate(async () => {
      const page = globalThis as unknown as Listening;
      page.stop.abort();
      await page.ended;
    });
    assert.deepEqual(await kept(page), ids);
    await clientOf(alice).send(envelope(bob, "later"));
    assert.deepEqual(await until(bob, (texts) => texts.length > 0), ["later"]);
  });
});
