// What the tests in Chromium share. tests/clients hands in which it is, as CHROMIUM.
import { once } from "node:events";
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";
import type { TestContext } from "node:test";
import { chromium, type Browser } from "playwright-core";

/** A router may be away for a while, and these machines are slow. */
export const PATIENCE_MS = 120_000;

export async function launch(t: TestContext): Promise<Browser> {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM! });
  t.after(() => browser.close());
  return browser;
}

type Reply = { id?: number; method?: string; params?: { targetId?: string }; result?: object; error?: { message: string } };

/**
 * A Chromium whose tabs are opened and killed, and no more: playwright would look into each, which takes longer than all that a
 * tab does. The commands are those of the DevTools protocol, over a pipe.
 */
export class Tabs {
  #number = 0;
  #rest = "";
  readonly #waiting = new Map<number, (reply: Reply) => void>();
  readonly #gone = new Map<string, () => void>();

  private constructor(readonly process: ChildProcess) {
    (process.stdio[4] as Readable).setEncoding("utf8").on("data", (data: string) => this.#read(data));
  }

  static async launch(t: TestContext): Promise<Tabs> {
    const profile = await mkdtemp(join(tmpdir(), "tabs-"));
    const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"];
    const command = [...flags, "--remote-debugging-pipe", `--user-data-dir=${profile}`, "about:blank"];
    const chromium = spawn(process.env.CHROMIUM!, command, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    const tabs = new Tabs(chromium);
    t.after(async () => {
      const exit = once(chromium, "exit");
      void tabs.send("Browser.close");
      await exit;
      await rm(profile, { recursive: true, force: true, maxRetries: 5 });
    });
    await tabs.send("Target.setDiscoverTargets", { discover: true });
    return tabs;
  }

  async send<T = object>(method: string, params: object = {}, sessionId?: string): Promise<T> {
    const id = (this.#number += 1);
    const reply = new Promise<Reply>((resolve) => this.#waiting.set(id, resolve));
    (this.process.stdio[3] as Writable).write(`${JSON.stringify({ id, method, params, ...(sessionId && { sessionId }) })}\0`);
    const { result, error } = await reply;
    if (error) throw new Error(`${method}: ${error.message}`);
    return result as T;
  }

  async open(url: string): Promise<Tab> {
    const { targetId } = await this.send<{ targetId: string }>("Target.createTarget", { url });
    return new Tab(this, targetId, new Promise((resolve) => this.#gone.set(targetId, resolve)));
  }

  #read(data: string): void {
    const replies = (this.#rest + data).split("\0");
    this.#rest = replies.pop()!;
    for (const each of replies) {
      const { id, method, params, ...reply } = JSON.parse(each) as Reply;
      if (id !== undefined) this.#waiting.get(id)?.(reply);
      if (id !== undefined) this.#waiting.delete(id);
      if (method === "Target.targetDestroyed" || method === "Target.targetCrashed") this.#gone.get(params!.targetId!)?.();
    }
  }
}

export class Tab {
  constructor(
    readonly tabs: Tabs,
    readonly targetId: string,
    /** Resolves when it has closed or crashed. */
    readonly gone: Promise<void>,
  ) {}

  async close(): Promise<void> {
    await this.tabs.send("Target.closeTarget", { targetId: this.targetId });
    await this.gone;
  }

  /** Its process dies; what the browser has of it is still to be closed. */
  async crash(): Promise<void> {
    const attached = { targetId: this.targetId, flatten: true };
    const { sessionId } = await this.tabs.send<{ sessionId: string }>("Target.attachToTarget", attached);
    void this.tabs.send("Page.crash", {}, sessionId).catch(() => {}); // What crashes need not answer.
    await this.gone;
  }
}

/** The same numbers from 0 to 1 for the same seed. */
export function chance(seed: number): () => number {
  return () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
}
