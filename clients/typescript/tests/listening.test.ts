import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { Refused, RouterClient, Unauthorized, Unreachable } from "sealed-router-client";
import type { ListenOptions, Options, QueuedMessage, Socket, SocketConstructor } from "sealed-router-client";
import { between, clientOf, envelope, problem, QuickClock, ROUTER, someone, StoppedClock } from "./support.js";
import { text, until, waiting, type User } from "./support.js";

const RealSocket: SocketConstructor = WebSocket;

/** The runtime's sockets, for a test to close. */
function recorded(): { opened: Socket[]; Recorded: SocketConstructor } {
  const opened: Socket[] = [];
  const Recorded = class {
    constructor(url: string, protocols: string[]) {
      const socket = new RealSocket(url, protocols);
      opened.push(socket);
      return socket as any;
    }
  };
  return { opened, Recorded: Recorded as SocketConstructor };
}

/** Sockets to which `happen` happens. */
function sockets(happen: (socket: Socket) => void, closed = () => {}): SocketConstructor {
  return class implements Socket {
    onopen: Socket["onopen"] = null;
    onmessage = null;
    onclose: Socket["onclose"] = null;
    onerror: Socket["onerror"] = null;
    readonly close = closed;

    constructor() {
      setImmediate(() => happen(this));
    }
  };
}

class Connects {
  #count = 0;
  #changed = () => {};
  readonly add = () => {
    this.#count += 1;
    this.#changed();
  };

  async until(count: number): Promise<void> {
    while (this.#count < count) await new Promise<void>((resolve) => (this.#changed = resolve));
  }
}

class Listener {
  readonly saved: string[] = [];
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;
  #changed = () => {};

  constructor(t: TestContext, client: RouterClient, options: ListenOptions = {}) {
    const save = async (messages: QueuedMessage[]) => {
      this.saved.push(...messages.map(text));
      this.#changed();
    };
    this.#ended = client.listen(save, { ...options, signal: this.#stop.signal });
    this.#ended.catch(() => this.#changed());
    t.after(() => this.stop());
  }

  async until(enough: (saved: string[]) => boolean): Promise<void> {
    while (!enough(this.saved)) {
      const changed = new Promise<void>((resolve) => (this.#changed = resolve));
      await Promise.race([changed, this.#ended]);
    }
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#ended;
  }
}

function listening(t: TestContext, user: User, options: Partial<Options> = {}, more: ListenOptions = {}): Listener {
  return new Listener(t, clientOf(user, options), more);
}

test("a listener gets what waits, and what comes, and leaves nothing", async (t) => {
  const [alice, bob] = [someone(), someone()];
  const sender = clientOf(alice);
  for (const each of ["a", "b", "c"]) await sender.send(envelope(bob, each));
  const listener = listening(t, bob, { clock: new StoppedClock() }, { limit: 2 });
  await listener.until((saved) => saved.length >= 3);
  await sender.send(envelope(bob, "poked"));
  await listener.until((saved) => saved.length >= 4);
  await until(bob, (texts) => texts.length === 0);
  assert.deepEqual(listener.saved, ["a", "b", "c", "poked"]);
});

test("nothing is acknowledged before it is saved", async () => {
  const [alice, bob] = [someone(), someone()];
  await clientOf(alice).send(envelope(bob, "hello"));
  await until(bob, (texts) => texts.length === 1);
  const stop = new AbortController();
  const kept: string[][] = [];
  const save = async () => {
    kept.push(await waiting(bob));
    stop.abort();
  };
  await clientOf(bob).listen(save, { signal: stop.signal });
  assert.deepEqual([...kept, await waiting(bob)], [["hello"], ["hello"]]);
});

test("what save throws ends it, unchanged, and acknowledges nothing", async () => {
  const [alice, bob] = [someone(), someone()];
  await clientOf(alice).send(envelope(bob, "hello"));
  for (const full of [new Error("the disk is full"), new Unreachable("what save asks is away")]) {
    const save = () => Promise.reject(full);
    await assert.rejects(clientOf(bob).listen(save), (error) => error === full);
  }
  assert.deepEqual(await waiting(bob), ["hello"]);
});

test("a poke while it drains makes it drain once more", async (t) => {
  const [alice, bob] = [someone(), someone()];
  const { opened, Recorded } = recorded();
  let sent = false;
  let pokes = 0;
  const fetch = between(async ({ go }) => {
    const response = await go();
    if (!sent) {
      sent = true; // The page that is on its way does not hold it.
      await new Promise<void>((resolve) => {
        (opened[0] as WebSocket).addEventListener("message", () => (pokes++, resolve()));
        void clientOf(alice).send(envelope(bob, "late"));
      });
    }
    return response;
  });
  const listener = listening(t, bob, { fetch, WebSocket: Recorded, clock: new StoppedClock() });
  await listener.until((saved) => saved.includes("late"));
  assert.equal(pokes, 1, "the router pokes again after a while");
});

test("it connects again, and fetches what came meanwhile", async (t) => {
  const [alice, bob] = [someone(), someone()];
  const { opened, Recorded } = recorded();
  const connects = new Connects();
  const options = { WebSocket: Recorded, clock: new QuickClock() };
  const listener = listening(t, bob, options, { connected: connects.add });
  await connects.until(1);
  opened[0]!.close();
  await connects.until(2);
  await clientOf(alice).send(envelope(bob, "a"));
  await listener.until((saved) => saved.includes("a"));
});

test("while sockets are blocked, mail comes by the timer", async (t) => {
  const [alice, bob] = [someone(), someone()];
  const clock = new QuickClock();
  const Blocked = sockets((socket) => socket.onerror?.({})); // Node 20 does not close them.
  const trouble = (problem: unknown) => assert.match(String(problem), /cannot be reached/);
  const listener = listening(t, bob, { WebSocket: Blocked, clock, trouble });
  for (const each of ["a", "b"]) {
    await clientOf(alice).send(envelope(bob, each));
    await listener.until((saved) => saved.includes(each));
  }
  assert.ok(clock.waits.every((wait) => wait > 0 && wait <= 30));
});

test("while a socket is dead and does not say so, mail comes by the timer", async (t) => {
  const [alice, bob] = [someone(), someone()];
  const { opened, Recorded } = recorded();
  const connected = () => (opened[0]!.onmessage = null);
  const listener = listening(t, bob, { WebSocket: Recorded }, { connected, pollSeconds: 0.05 });
  await clientOf(alice).send(envelope(bob, "a"));
  await listener.until((saved) => saved.includes("a"));
});

test("a page that may open no socket fetches", async (t) => {
  const [alice, bob] = [someone(), someone()];
  const Forbidden = function () {
    throw new Error("Content-Security-Policy");
  } as unknown as SocketConstructor;
  const listener = listening(t, bob, { WebSocket: Forbidden, clock: new QuickClock() });
  await clientOf(alice).send(envelope(bob, "a"));
  await listener.until((saved) => saved.includes("a"));
});

test("a handshake without an answer is given up, and tried again", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let closed = 0;
  const clock = new QuickClock();
  const fetch = between(async () => new Response('{"messages": []}'));
  await new Promise<void>((resolve) => {
    let opened = 0;
    const silent = () => (++opened === 3 ? resolve() : t.mock.timers.tick(10_000));
    listening(t, someone(), { WebSocket: sockets(silent, () => (closed += 1)), clock, fetch });
  });
  assert.equal(closed, 2);
});

test("a socket whose place another one took waits longer", async (t) => {
  const clock = new StoppedClock();
  const waits = new Promise<number[]>((resolve) => {
    const trouble = () => setImmediate(() => resolve(clock.waits));
    const Replaced = sockets((socket) => {
      socket.onopen!({});
      socket.onclose!({ code: 4409 });
    });
    listening(t, someone(), { WebSocket: Replaced, clock, trouble });
  });
  assert.ok((await waits).some((wait) => wait >= 15 && wait <= 30));
});

test("a socket whose token has expired connects with a new one", async (t) => {
  const user = someone();
  const { opened, Recorded } = recorded();
  let asked = 0;
  const token = () => (asked++, user.token);
  const connects = new Connects();
  const client = new RouterClient({ url: ROUTER, token, WebSocket: Recorded, clock: new QuickClock() });
  new Listener(t, client, { connected: connects.add });
  await connects.until(1);
  opened[0]!.onclose!({ code: 4401 });
  await connects.until(2);
  opened[0]!.close();
  assert.equal(asked, 2);
});

test("a token that is refused is replaced, though a page sees no status of a handshake", async (t) => {
  const [alice, bob] = [someone(), someone()];
  const tokens = ["an.old.one", bob.token];
  const client = new RouterClient({ url: ROUTER, token: () => tokens.shift()!, clock: new QuickClock() });
  const listener = new Listener(t, client);
  await clientOf(alice).send(envelope(bob, "a"));
  await listener.until((saved) => saved.includes("a"));
});

test("a user whom the router refuses is told", async () => {
  const client = new RouterClient({ url: ROUTER, token: () => "a.bad.one", clock: new QuickClock() });
  await assert.rejects(client.listen(() => {}), Unauthorized);
  const fetch = between(async () => problem(403, "origin-not-allowed"));
  await assert.rejects(clientOf(someone(), { fetch }).listen(() => {}), Refused);
});

test("an outage that lasts longer than the budget does not end it", async (t) => {
  const [alice, bob] = [someone(), someone()];
  let failures = 0;
  const fetch = between(async ({ go }) => (failures++ < 60 ? problem(503, "unavailable") : await go()));
  const listener = listening(t, bob, { fetch, clock: new QuickClock(), budgetSeconds: 10 });
  await clientOf(alice).send(envelope(bob, "a"));
  await listener.until((saved) => saved.includes("a"));
});

test("an older router is asked to acknowledge, and to fetch, and for both again after the next connect", async (t) => {
  const [alice, bob] = [someone(), someone()];
  const { opened, Recorded } = recorded();
  const paths: string[] = [];
  const fetch = between(async ({ path, go }) => {
    paths.push(path);
    return path === "/api/messages/next" ? problem(405, "method-not-allowed") : await go();
  });
  for (const each of ["a", "b", "c"]) await clientOf(alice).send(envelope(bob, each));
  await until(bob, (texts) => texts.length === 3);
  const connects = new Connects();
  const options = { fetch, WebSocket: Recorded, clock: new QuickClock() };
  const listener = listening(t, bob, options, { limit: 1, connected: connects.add });
  await listener.until((saved) => saved.length === 3);
  await until(bob, (texts) => texts.length === 0);
  const asked = () => paths.filter((path) => path === "/api/messages/next").length;
  assert.equal(asked(), 1);
  opened[0]!.close();
  await connects.until(2);
  await clientOf(alice).send(envelope(bob, "d"));
  await listener.until((saved) => saved.length === 4);
  await until(bob, (texts) => texts.length === 0);
  assert.deepEqual([asked(), listener.saved], [2, ["a", "b", "c", "d"]]);
});

test("it ends when save has ended, and then has no socket", async () => {
  const [alice, bob] = [someone(), someone()];
  await clientOf(alice).send(envelope(bob, "hello"));
  const { opened, Recorded } = recorded();
  const stop = new AbortController();
  let saved = false;
  const save = async () => {
    stop.abort();
    await new Promise((resolve) => setImmediate(resolve));
    saved = true;
  };
  await clientOf(bob, { WebSocket: Recorded }).listen(save, { signal: stop.signal });
  assert.ok(saved);
  assert.ok(opened.every((socket) => (socket as WebSocket).readyState >= WebSocket.CLOSING));
  await clientOf(bob).listen(() => assert.fail("it has not begun"), { signal: stop.signal });

  const late = new AbortController();
  const fetch = between(async ({ go }) => {
    const page = await (await go()).text();
    late.abort();
    return new Response(page);
  });
  await clientOf(bob, { fetch }).listen(() => assert.fail("it has ended"), { signal: late.signal });
});

test("a runtime without WebSocket is told to hand one in", async () => {
  const real = globalThis.WebSocket;
  Reflect.deleteProperty(globalThis, "WebSocket");
  try {
    await assert.rejects(clientOf(someone()).listen(() => {}), /hand one in/);
  } finally {
    globalThis.WebSocket = real;
  }
});
