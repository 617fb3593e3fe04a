// One person's messenger: seals and opens, keeps, sends and listens. It knows nothing of how that looks.
import { RouterClient, Unreachable } from "/client/index.js";
import { Inbox, Outbox } from "/client/indexeddb.js";
import { History } from "./history.js";
import { base64, bytes, makeKeys, NotGenuine, openSealed, seal } from "./sealing.js";

/** @import { Refused, SecureEnvelope } from "/client/index.js" */
/** @import { Message, Person } from "./history.js" */
/** @import { Inside, Keys } from "./sealing.js" */
/** @import { Wire } from "./wire.js" */

/** `elsewhere`: another tab of this person is connected, and this one shows what that one does. */
/** @typedef {"connecting" | "online" | "reconnecting" | "offline" | "elsewhere"} Connection */

/** Who has the link is this person: to our own server, which gives tokens and hands round cards. */
/** @typedef {{ name: string, secret: string }} Link */

/** How long a sign that somebody is typing counts, and how often one is sent. */
export const TYPING_MS = 5000;
const TYPING_EVERY_MS = 2500;

/** @param {string} person */
const urn = (person) => `urn:sm:user:${person}`;

/** Tells `change` when people, messages or the connection have changed, and `typing` of a person, as `detail`. */
export class Messenger extends EventTarget {
  /** @type {Connection} */
  connection = "connecting";
  /** @type {Message[]} In their order. */
  messages = [];
  /** @type {Map<string, Person>} By name. */
  people = new Map();
  /** Envelopes that nobody sealed for us. */
  unreadable = 0;

  #stop = new AbortController();
  #wanted = true;
  #wake = () => {};
  #mail = new Flag();
  #typed = 0;
  /** @type {Promise<unknown>} Messages are sealed one after another, so that they keep their order. */
  #written = Promise.resolve();

  /**
   * @param {Link} link
   * @param {string} router Its URL.
   * @param {{ account: string, history: History, inbox: Inbox, outbox: Outbox, keys: Keys }} kept
   * @param {Wire} wire
   */
  constructor(link, router, kept, wire) {
    super();
    this.me = link.name;
    this.kept = kept;
    this.client = new RouterClient({
      url: router,
      token: async () => (await session(link)).token,
      fetch: async (...request) => {
        const response = await wire.fetch(...request);
        if (response.ok) this.#connected("online");
        return response;
      },
      trouble: () => this.#connected("reconnecting"),
    });
    this.channel = new BroadcastChannel(kept.account);
    this.channel.onmessage = () => {
      this.#mail.set();
      void this.#load();
    };
    addEventListener("online", () => this.#reconsider());
    addEventListener("offline", () => this.#reconsider());
  }

  /** @param {Link} link @param {Wire} wire */
  static async open(link, wire) {
    const { router } = await session(link);
    const account = `web-messenger-${link.name}-${link.secret.slice(0, 8)}`;
    const [history, inbox, outbox] = await Promise.all([
      History.open(account),
      Inbox.open(`${account}-inbox`),
      Outbox.open(`${account}-outbox`),
    ]);
    const keys = await history.keys(makeKeys);
    const answer = await ours("/card", link, { method: "PUT", body: base64(keys.card) });
    if (answer.status === 409) {
      throw new Error(`${link.name} has been opened in another browser, which has the keys. Open this link there.`);
    }
    const messenger = new Messenger(link, router, { account, history, inbox, outbox, keys }, wire);
    await messenger.#recover();
    await messenger.lookUp();
    return messenger;
  }

  /** Sends and receives until the page goes. Rejects with what cannot be mended by trying again. */
  async run() {
    const lock = { ifAvailable: true };
    const free = await navigator.locks.request(this.kept.account, lock, async (got) => got !== null);
    if (!free) this.#connected("elsewhere");
    await navigator.locks.request(this.kept.account, async () => {
      for (;;) await (this.online ? this.#live() : this.#rest());
    });
  }

  /** Whether it is to be connected. */
  get online() {
    return this.#wanted && navigator.onLine;
  }

  /** @param {boolean} wanted */
  setOnline(wanted) {
    this.#wanted = wanted;
    this.#reconsider();
  }

  /** Seals and keeps it; it is sent as soon as there is a router. @param {string} person @param {string} text */
  async write(person, text) {
    const inside = { from: this.me, text, id: crypto.randomUUID(), at: Date.now() };
    const writing = this.#written.then(async () => {
      const envelope = await this.#seal(inside, person);
      await this.kept.history.add({ id: inside.id, person, text, at: inside.at, state: "written", envelope });
      await this.#load();
      await this.#post(inside.id, envelope);
    });
    this.#written = writing.catch(() => {}); // Whoever called this one is told; the next is another matter.
    await writing;
  }

  /** Tells them, if they are there just now and their messenger understands it. @param {string} person */
  async typing(person) {
    const now = Date.now();
    if (this.connection !== "online" || !this.people.get(person)?.receipts || now - this.#typed < TYPING_EVERY_MS) return;
    this.#typed = now;
    const envelope = await this.#seal({ from: this.me, text: "", typing: true }, person, { isEphemeral: true });
    const signal = AbortSignal.timeout(TYPING_MS);
    await this.client.send(envelope, { signal }).catch(() => {}); // Later it would be worth nothing.
  }

  /** @param {string} person */
  async markRead(person) {
    if (!this.messages.some((message) => message.unread && message.person === person)) return;
    const read = (/** @type {Message} */ { unread, ...message }) => message;
    await this.kept.history.update((message) => (message.unread && message.person === person ? read(message) : undefined));
    await this.#tell();
  }

  /** Takes the cards of people that we don't know yet; whom we know, we know by the card that we have. */
  async lookUp() {
    const cards = /** @type {Record<string, string>} */ (await (await fetch("/cards")).json());
    const known = new Set((await this.kept.history.people()).map(({ name }) => name));
    for (const [name, card] of Object.entries(cards)) {
      if (!known.has(name) && name !== this.me) {
        await this.kept.history.keepPerson({ name, card: bytes(card), receipts: false });
      }
    }
    await this.#load();
  }

  async #live() {
    const stop = (this.#stop = new AbortController());
    this.#connected("connecting");
    this.#mail.set();
    const save = async (/** @type {Parameters<Inbox["save"]>[0]} */ page) => {
      await this.kept.inbox.save(page);
      await this.#open();
    };
    const connected = () => this.#connected("online");
    const { signal } = stop;
    const parts = [this.client.listen(save, { signal, connected }), this.#send(signal)];
    const ended = await Promise.allSettled(parts.map((part) => part.finally(() => stop.abort())));
    for (const part of ended) {
      if (part.status === "rejected" && part.reason !== signal.reason) throw part.reason;
    }
  }

  async #rest() {
    this.#connected("offline");
    await new Promise((resolve) => (this.#wake = () => resolve(undefined)));
  }

  #reconsider() {
    this.#stop.abort();
    this.#wake();
  }

  /** @param {AbortSignal} signal */
  async #send(signal) {
    for (;;) {
      await this.#mail.wait(signal);
      try {
        await this.#settle(await this.kept.outbox.flush(this.client, { signal }));
      } catch (error) {
        if (!(error instanceof Unreachable)) throw error;
        this.#mail.set();
      }
    }
  }

  /** What has left the outbox was accepted, or refused for good. */
  async #settle(/** @type {Array<{ envelope: SecureEnvelope, error: Refused }>} */ refused) {
    const left = new Set((await this.kept.outbox.waiting()).map(({ signature }) => signature));
    const bad = new Set(refused.map(({ envelope }) => envelope.signature));
    await this.kept.history.update(({ envelope, ...message }) => {
      if (message.state !== "waiting" || left.has(envelope?.signature)) return undefined;
      return { ...message, state: bad.has(envelope?.signature) ? "refused" : "accepted" };
    });
    await this.#tell();
  }

  /** Puts into the outbox what was written when the page went. What was in it is received once, by the sender's id. */
  async #recover() {
    const left = new Set((await this.kept.outbox.waiting()).map(({ signature }) => signature));
    for (const { id, state, envelope } of await this.kept.history.messages()) {
      if (state === "written" && envelope) await this.#post(id, envelope, left.has(envelope.signature));
    }
    await this.#open();
  }

  /** @param {string} id @param {SecureEnvelope} envelope @param {boolean} [posted] Whether it is in the outbox. */
  async #post(id, envelope, posted = false) {
    if (!posted) await this.kept.outbox.add(envelope);
    await this.kept.history.update((message) =>
      message.id === id && message.state === "written" ? { ...message, state: "waiting" } : undefined,
    );
    this.#mail.set();
    await this.#tell();
  }

  /** Opens what is in the inbox. A message leaves it when it is kept, opened. */
  async #open() {
    for (const { id, envelope } of await this.kept.inbox.messages()) {
      try {
        await this.#read(id, await openSealed(envelope, this.kept.keys));
      } catch (error) {
        if (!(error instanceof NotGenuine)) throw error;
        this.unreadable += 1;
      }
      await this.kept.inbox.delete(id);
      await this.#tell();
    }
  }

  /** @param {string} id @param {{ inside: Inside, card: Uint8Array }} opened */
  async #read(id, { inside, card }) {
    const name = inside.from;
    if (!this.people.has(name)) await this.lookUp();
    const person = this.people.get(name);
    const known = person !== undefined && base64(person.card) === base64(card);
    if (inside.typing || inside.received) {
      if (known && inside.typing) this.dispatchEvent(new CustomEvent("typing", { detail: name }));
      else if (known) await this.#received(name, inside.received);
      return;
    }
    const at = Number.isFinite(inside.at) ? Number(inside.at) : Date.now();
    const theirs = typeof inside.id === "string" ? inside.id : undefined;
    await this.kept.history.add({ id: theirs ?? id, person: name, text: inside.text, at, known, unread: true });
    // The command line gives no ids, and wants no receipts.
    if (known && theirs) {
      if (!person.receipts) await this.kept.history.keepPerson({ ...person, receipts: true });
      await this.kept.outbox.add(await this.#seal({ from: this.me, text: "", received: [theirs] }, name));
      this.#mail.set();
    }
  }

  /** @param {string} person @param {unknown} ids */
  async #received(person, ids) {
    const arrived = new Set(Array.isArray(ids) ? ids : []);
    await this.kept.history.update(({ envelope, ...message }) =>
      message.state && message.person === person && arrived.has(message.id) ? { ...message, state: "received" } : undefined,
    );
    if (!this.people.get(person)?.receipts) {
      const known = /** @type {Person} */ (this.people.get(person));
      await this.kept.history.keepPerson({ ...known, receipts: true });
    }
  }

  /** @param {Inside} inside @param {string} person @param {Partial<SecureEnvelope>} [outside] */
  async #seal(inside, person, outside = {}) {
    const card = this.people.get(person)?.card;
    if (card === undefined) throw new Error(`${person} has not opened their link yet`);
    return await seal(inside, this.kept.keys, urn(person), card, outside);
  }

  /** @param {Connection} connection */
  #connected(connection) {
    // What was under way when the switch was turned says nothing any more.
    if (this.#stop.signal.aborted && (connection === "reconnecting" || connection === "online")) return;
    if (this.connection === connection) return;
    this.connection = connection;
    this.dispatchEvent(new Event("change"));
  }

  /** Shows a change here, and in other tabs of this person. */
  async #tell() {
    this.channel.postMessage("changed");
    await this.#load();
  }

  async #load() {
    const [people, messages] = await Promise.all([this.kept.history.people(), this.kept.history.messages()]);
    this.people = new Map(people.map((person) => [person.name, person]));
    this.messages = messages;
    this.dispatchEvent(new Event("change"));
  }
}

/** Whether there is something to do, and a wait for that. */
class Flag {
  #is = false;
  #wake = () => {};

  set() {
    this.#is = true;
    this.#wake();
  }

  /** @param {AbortSignal} signal */
  async wait(signal) {
    while (!this.#is) {
      signal.throwIfAborted();
      await new Promise((resolve) => {
        this.#wake = () => resolve(undefined);
        signal.onabort = this.#wake;
      });
    }
    this.#is = false;
  }
}

/** @param {Link} link @returns {Promise<{ router: string, token: string }>} */
async function session(link) {
  const answer = await ours("/session", link, { method: "POST" });
  if (!answer.ok) throw new Error("This link is of another demo: open one that `make demo` has printed last.");
  return await answer.json();
}

/** @param {string} path @param {Link} link @param {RequestInit} init */
async function ours(path, link, init) {
  return await fetch(path, { ...init, headers: { Authorization: `Bearer ${link.name}.${link.secret}` } });
}
