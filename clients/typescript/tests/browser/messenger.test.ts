// examples/web_messenger as two people use it, in two windows of Chromium: by keyboard, online, offline, through a kill of the
// router while they write, and with somebody who has the command line.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test, type TestContext } from "node:test";
import type { Browser, Page } from "playwright-core";
import { launch, PATIENCE_MS } from "./chromium.js";

const EXAMPLES = process.env.EXAMPLES!;
const PYTHON = process.env.PYTHON!;

class Demo {
  readonly #process = spawn(PYTHON, [join(EXAMPLES, "web_messenger", "serve.py"), "--port", "0"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  readonly #lines = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
  #said = "";

  static async start(t: TestContext): Promise<Demo> {
    const demo = new Demo();
    t.after(async () => {
      const ended = new Promise((resolve) => demo.#process.once("exit", resolve));
      demo.#process.kill();
      await ended;
    });
    await demo.says(/Press Enter/);
    return demo;
  }

  async says(what: RegExp): Promise<void> {
    for (let line = ""; !what.test(line); this.#said += `${line}\n`) {
      const { value, done } = await this.#lines.next();
      assert.ok(!done, `the demo has ended, and said: ${this.#said}`);
      line = value;
    }
  }

  get folder(): string {
    return /cd (\S+);/.exec(this.#said)![1]!;
  }

  link(person: string): string {
    return new RegExp(`${person} +(http\\S+)`).exec(this.#said)![1]!;
  }

  async kill(): Promise<void> {
    this.#process.stdin.write("\n");
    await this.says(/is dead/);
  }

  async startAgain(): Promise<void> {
    this.#process.stdin.write("\n");
    await this.says(/The router runs/);
  }

  /** What a line of a shell prints, where the introduction says to type it. */
  shell(line: string): string {
    const env = { ...process.env, ROUTER_CONFIG: join(this.folder, "router.toml"), P: PYTHON, S: join(EXAMPLES, "sealed_sender") };
    return execFileSync("/bin/sh", ["-ec", line], { cwd: this.folder, env, encoding: "utf8" });
  }

  /** All that the router has on its disk. */
  get stored(): Buffer {
    const data = join(this.folder, "data");
    const files = readdirSync(data).filter((name) => name.startsWith("router.db"));
    return Buffer.concat(files.map((name) => readFileSync(join(data, name))));
  }
}

class Window {
  readonly errors: Error[] = [];

  private constructor(readonly page: Page) {
    page.setDefaultTimeout(PATIENCE_MS);
    page.on("pageerror", (error) => this.errors.push(error));
  }

  static async open(browser: Browser, link: string): Promise<Window> {
    const window = new Window(await (await browser.newContext({ reducedMotion: "reduce" })).newPage());
    await window.page.goto(link);
    await window.page.locator("#app").waitFor();
    return window;
  }

  /** By keyboard alone: the text has the focus. */
  async write(text: string): Promise<void> {
    await this.page.keyboard.type(text);
    await this.page.keyboard.press("Enter");
  }

  message(text: string) {
    return this.page.locator(".messages li", { has: this.page.locator(".bubble", { hasText: text }) });
  }

  async is(text: string, state: string): Promise<void> {
    await this.message(text).and(this.page.locator(`[data-state="${state}"]`)).waitFor();
  }

  async sees(text: string): Promise<void> {
    await this.message(text).waitFor();
  }

  async connection(said: string): Promise<void> {
    await this.page.locator("#connection", { hasText: said }).waitFor();
  }

  /** Texts in their order, without whose they are. */
  async texts(): Promise<string[]> {
    const all = await this.page.locator(".bubble").allInnerTexts();
    return all.map((text) => text.replace(/^\w+:\s*/, ""));
  }
}

test("two people talk: online, offline, and while the router is killed", async (t) => {
  const browser = await launch(t); // It goes first, or the router would wait for its windows.
  const demo = await Demo.start(t);
  const alice = await Window.open(browser, demo.link("alice"));
  await alice.page.getByText("Nobody else is here yet").waitFor();
  const bob = await Window.open(browser, demo.link("bob"));
  await bob.connection("Online");
  await alice.page.getByPlaceholder("Message to Bob").waitFor();
  await alice.page.locator("#text").focus();

  await t.test("online, and one sees that the other types", async () => {
    await alice.write("are you there");
    await bob.sees("are you there");
    await alice.is("are you there", "received");
    // A sign that somebody types is worth nothing later: one that is late on a slow machine is dropped.
    const [key, back] = ["y", "Backspace"];
    while (!(await alice.page.locator("#typing").isVisible())) for (const each of [key, back]) await bob.page.keyboard.press(each);
    await bob.write("yes");
    await alice.sees("yes");
    await alice.page.locator("#typing").waitFor({ state: "hidden" });
    await bob.is("yes", "received");
  });

  await t.test("the server sees bytes", async () => {
    const seen = await alice.page.locator("#server").innerText();
    assert.match(seen, /In from you.*\nfor urn:sm:user:bob/s);
    assert.match(seen, /Out to you.*\nfor urn:sm:user:alice/s);
    assert.match(seen, /202: accepted, on disk/);
    assert.doesNotMatch(seen, /there|yes/);
    const shown = (await alice.page.locator("#seen pre").allTextContents()).map((hex) => hex.replaceAll(" ", ""));
    assert.ok(shown.every((hex) => /^[0-9a-f]*$/.test(hex)) && shown.some((hex) => hex.length === 128));
    const said = Buffer.from("are you there");
    assert.ok(!shown.join("").includes(said.toString("hex")));
    assert.ok(demo.stored.length > 0 && !demo.stored.includes(said));
  });

  await t.test("offline, by the switch and by the network", async () => {
    await bob.page.locator("#online").focus();
    await bob.page.keyboard.press("Space");
    await bob.connection("Offline");
    await alice.write("first");
    await alice.is("first", "accepted");
    await alice.page.context().setOffline(true);
    await alice.connection("Offline");
    await alice.write("second");
    await alice.is("second", "waiting");
    assert.equal(await bob.message("first").count(), 0);
    await bob.page.keyboard.press("Space");
    await bob.sees("first");
    await alice.page.context().setOffline(false);
    await alice.is("first", "received");
    await alice.is("second", "received");
    await bob.page.locator("#text").focus();
    await alice.page.route("**/api/send*", (route) => route.abort(), { times: 1 });
    await alice.write("third");
    await alice.is("third", "received");
    await alice.connection("Online"); // Its socket had nothing to do with it.
  });

  await t.test("the router is killed while one writes, and the tab goes too", async () => {
    await alice.page.keyboard.type("even ");
    await demo.kill();
    await alice.connection("Reconnecting");
    await alice.write("so");
    await alice.is("even so", "waiting");
    const unanswered = alice.page.locator("#seen li", { hasText: "no answer", hasNotText: "· ephemeral" });
    const entry = unanswered.filter({ hasText: "tries" }).first();
    await entry.waitFor();
    const key = /· key (\w+)/.exec(await entry.innerText())![1]!;
    await bob.connection("Reconnecting");
    await bob.write("and I");
    await bob.is("and I", "waiting");
    await alice.page.reload();
    await alice.is("even so", "waiting");
    await demo.startAgain();
    await bob.sees("even so");
    await alice.is("even so", "received");
    await bob.is("and I", "received");
    await alice.page.locator("#seen li", { hasText: `202: accepted, on disk · key ${key}` }).waitFor();
    const said = ["are you there", "yes", "first", "second", "third"];
    for (const { texts } of [{ texts: await alice.texts() }, { texts: await bob.texts() }]) {
      assert.deepEqual(texts.slice(0, 5), said, "each once, in order");
      assert.deepEqual(texts.slice(5).sort(), ["and I", "even so"]);
    }
  });

  await t.test("the command line reads what the page seals, and the other way round", async () => {
    demo.shell('"$P" "$S/open.py" carol && "$P" "$S/seal.py" carol alice "from a terminal" | "$P" -m router send --as carol -');
    await alice.page.locator("#people .name", { hasText: "Carol" }).click();
    await alice.sees("from a terminal");
    assert.equal(await alice.page.getByText("unknown key").count(), 0);
    await alice.write("grüße ✓");
    await alice.is("grüße ✓", "accepted");
    const read = '"$P" -m router listen --as carol --dir inbox --once >&2 && "$P" "$S/open.py" carol inbox/*.json';
    assert.equal(demo.shell(read), "alice: grüße ✓\n");
    demo.shell('mkdir away && cd away && mkdir keys && cp ../keys/alice.card keys/ && "$P" "$S/seal.py" bob alice "not bob" >forged');
    demo.shell('"$P" -m router send --as carol - <away/forged');
    await alice.page.locator("#people .name", { hasText: "Bob" }).click();
    await alice.message("not bob").getByText("unknown key").waitFor();
  });

  await t.test("it fits a phone, a tablet and a desk, in light and dark", async () => {
    for (const colorScheme of ["light", "dark"] as const) {
      await alice.page.emulateMedia({ colorScheme });
      for (const width of [320, 820, 1360]) {
        await alice.page.setViewportSize({ width, height: 760 });
        const [wide, background] = await alice.page.evaluate(
          () => [document.documentElement.scrollWidth, getComputedStyle(document.body).backgroundColor] as const,
        );
        assert.ok(wide <= width, `${wide} pixels in ${width}`);
        assert.equal(/\b1?\d{1,2}, 1?\d{1,2}, 1?\d{1,2}\b/.test(background), colorScheme === "dark", background);
        assert.equal(await alice.page.locator("#server").isVisible(), width > 320);
      }
    }
    await alice.page.setViewportSize({ width: 320, height: 640 });
    await alice.page.getByRole("button", { name: "What the server sees" }).press("Enter");
    await alice.page.locator("#server").waitFor();
    await alice.page.keyboard.press("Escape");
    await alice.page.locator("#server").waitFor({ state: "hidden" });
    await alice.write("from a phone");
    await bob.sees("from a phone");
  });

  assert.deepEqual([...alice.errors, ...bob.errors], []);
});
