// A page that has the client package, and nothing else. Its server stands before the router as well, where a test may look at
// each exchange and hold it.
import { readFile } from "node:fs/promises";
import { createServer, request, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join, resolve } from "node:path";
import { buffer } from "node:stream/consumers";
import type { TestContext } from "node:test";

const DIST = resolve(import.meta.dirname, "../..");

/** The package, as a page has it. */
export type Package = typeof import("sealed-router-client") & typeof import("sealed-router-client/indexeddb");
/** What a page's own code finds the package by: `await load()`. */
declare global {
  var load: () => Promise<Package>;
}
const PAGE = `<!doctype html><title>page</title><script>
globalThis.load = async () => ({ ...(await import("/client/index.js")), ...(await import("/client/indexeddb.js")) });
</script>`;
/** That page, and what it does at once: it tells what that gives. */
const doing = (number: number, does: string, given: object) => `${PAGE}<script type="module">
const given = ${JSON.stringify(given)};
const told = await (async () => { ${does} })().then((value) => ({ value }), (error) => ({ error: String(error) }));
await fetch("/told/${number}", { method: "POST", body: JSON.stringify(told) });
</script>`;

export type Answer = { status: number; body: Buffer };
/** A request to the router, of the page with this number: `go` passes it on. What this gives is the answer, if there is any. */
export type Between = (number: number, body: Buffer, go: () => Promise<Answer>) => Promise<Answer | undefined>;

export class Pages {
  #page = "";
  /** Of the newest page that does something. What one before it has asked may come late, when that page has gone. */
  number = 0;
  #told: (told: { value?: unknown; error?: string }) => void = () => {};
  between: Between = (_number, _body, go) => go();

  private constructor(
    readonly server: Server,
    readonly router: string,
  ) {}

  static async serve(t: TestContext, router: string, port = 0): Promise<Pages> {
    const pages: Pages = new Pages(createServer((asked, answer) => void pages.#answer(asked, answer)), router);
    await new Promise<void>((resolve) => pages.server.listen(port, "127.0.0.1", resolve));
    t.after(() => {
      pages.server.closeAllConnections();
      pages.server.close();
    });
    return pages;
  }

  /** The address of a page that does this, with what it is given and the router's `url`. */
  does(does: string, given: object): string {
    const number = (this.number += 1);
    this.#page = doing(number, does, { ...given, url: `${this.url}/${number}` });
    return `${this.url}/doing`;
  }

  /** What the page tells that is made next, when it is done; rejects with its error. */
  async told(): Promise<unknown> {
    const told = await new Promise<{ value?: unknown; error?: string }>((resolve) => (this.#told = resolve));
    if (told.error !== undefined) throw new Error(told.error);
    return told.value;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async #answer(asked: IncomingMessage, answer: ServerResponse): Promise<void> {
    const path = asked.url!;
    if (path.startsWith("/client/")) {
      answer.setHeader("Content-Type", "text/javascript");
      answer.setHeader("Cache-Control", "max-age=3600"); // Tabs come and go by the hundred.
      answer.end(await readFile(join(DIST, path.slice("/client/".length))));
    } else if (path.includes("/api/")) {
      const [, number, route] = /^\/(\d+)(\/api\/.*)$/.exec(path)!;
      const body = await buffer(asked).catch(() => undefined); // The tab has gone.
      const passed = body && (await this.between(Number(number), body, () => this.#pass(asked, route!, body)));
      if (passed) answer.writeHead(passed.status, { "Content-Type": "application/json" }).end(passed.body);
      else answer.destroy();
    } else if (path.startsWith("/told/")) {
      const told = await buffer(asked).catch(() => undefined);
      answer.end();
      if (told && path === `/told/${this.number}`) this.#told(JSON.parse(told.toString()));
    } else {
      answer.setHeader("Content-Type", "text/html");
      answer.end(path === "/doing" ? this.#page : PAGE);
    }
  }

  async #pass({ method, headers }: IncomingMessage, route: string, body: Buffer): Promise<Answer> {
    const { authorization = "", "idempotency-key": key } = headers;
    const passed = { authorization, "content-type": "application/json", ...(key && { "idempotency-key": key }) };
    return await new Promise((resolve, reject) => {
      const asked = request(this.router + route, { method: method!, headers: passed }, async (answer) => {
        resolve({ status: answer.statusCode!, body: await buffer(answer) });
      });
      asked.on("error", reject).end(body.length > 0 ? body : undefined);
    });
  }
}
