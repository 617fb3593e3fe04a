import type { Accepted, Batch, BatchResults, CloseCode, Next, Problem } from "./api.js";
import type { QueuedMessage, QueuedMessageList, SecureEnvelope } from "./api.js";
import { backoff, between, reasonOf, Stopped, systemClock, throwIfAborted, type Clock } from "./clock.js";
import { Passing, Refused, Unauthorized, Unreachable } from "./errors.js";

const PAGE = 50;
const TIMEOUT_SECONDS = 30;
const CONNECT_SECONDS = 10;
const BUDGET_SECONDS = 60;
const POLL_SECONDS = 300;
const REQUEST_WAITS = [0.2, 5] as const;
const CONNECT_WAITS = [0.5, 30] as const;
/** A socket that lasted for less has failed. */
const STABLE_SECONDS = 5;
const BATCH_MESSAGES = 256;
/** Of the envelopes in one request, in UTF-16 units. The router takes four times as much; a proxy before it may not. */
const BATCH_LENGTH = 1_000_000;
/** Statuses after which the same request may succeed. */
const PASSING = new Set([408, 429, 500, 502, 503, 504]);
/** What a router answers that does not have the route; it has done nothing. */
const NOT_SERVED = new Set([404, 405]);
/** Close codes (docs/http.md#websockets). */
const TOKEN_EXPIRED = 4401 satisfies CloseCode;
const REPLACED = 4409 satisfies CloseCode;
/** Two slow clients that may not both be connected replace each other no more often than this. */
const REPLACED_WAITS = [15, 30] as const;

/** Resolves once the messages are saved for good. It may be given a message again, under the same id. */
export type Save = (messages: QueuedMessage[]) => Promise<void> | void;

/** What became of one message of a batch: the id under which it was accepted, or why it was not. */
export type Outcome = { id: string; error?: undefined } | { id?: undefined; error: Refused | Unreachable };

/** The part of a WebSocket that the client uses. */
export interface Socket {
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  close(): void;
}
export type SocketConstructor = new (url: string, protocols: string[]) => Socket;

export interface Options {
  /** Of the API, as `https://router.example.com`. */
  url: string;
  /** Of the WebSocket, if it is not `/connect` of `url`. */
  socketUrl?: string;
  /** Gives a fresh token. Called when the first is needed, and when the router has refused the last. */
  token: () => Promise<string> | string;
  /** By default that of the runtime; likewise `WebSocket`, which Node has from version 22 on. */
  fetch?: typeof globalThis.fetch;
  WebSocket?: SocketConstructor;
  /** For so long a request is repeated that may still succeed. */
  budgetSeconds?: number;
  /** Told of each failure that is about to be retried. */
  trouble?: (problem: unknown) => void;
  clock?: Clock;
}

export interface ListenOptions {
  /** Ends it: `listen` resolves when nothing of it runs any more, `save` included. */
  signal?: AbortSignal;
  /** The most messages in a page. */
  limit?: number;
  /** Called after each connect. */
  connected?: () => void;
  /** How often to fetch although nothing was poked: a runtime may not notice that a socket has died. */
  pollSeconds?: number;
}

type Aborts = { signal?: AbortSignal | undefined };
type Keyed = { envelope: SecureEnvelope; idempotencyKey: string };
type Request = { method: "GET" | "POST"; path: string; body?: unknown; key?: string } & Aborts;
type Answer = { status: number; text: string; retryAfter: number };

/** One user's connection to a router. It retries a send under one key, and acknowledges only what is saved. */
export class RouterClient {
  readonly #url: string;
  readonly #socketUrl: string;
  readonly #newToken: Options["token"];
  readonly #fetch: typeof globalThis.fetch;
  readonly #WebSocket: SocketConstructor | undefined;
  readonly #budgetSeconds: number;
  readonly #trouble: (problem: unknown) => void;
  readonly #clock: Clock;
  #token: Promise<string> | undefined;
  /** Routes that the router was found not to have, which is an older one; asked again after the next connect. */
  readonly #missing = new Set<string>();

  constructor(options: Options) {
    this.#url = options.url.replace(/\/+$/, "");
    this.#socketUrl = options.socketUrl ?? `${this.#url.replace(/^http/, "ws")}/connect`;
    this.#newToken = options.token;
    this.#fetch = options.fetch ?? ((...request) => globalThis.fetch(...request));
    this.#WebSocket = options.WebSocket ?? (globalThis as { WebSocket?: SocketConstructor }).WebSocket;
    this.#budgetSeconds = options.budgetSeconds ?? BUDGET_SECONDS;
    this.#trouble = options.trouble ?? (() => {});
    this.#clock = options.clock ?? systemClock;
  }

  /** Sends one message and gives its id. However often the request is retried, it is one message. */
  async send(envelope: SecureEnvelope, options: { idempotencyKey?: string } & Aborts = {}): Promise<string> {
    const { idempotencyKey: key = newKey(), signal } = options;
    const accepted = ({ text }: Answer) => {
      const { id } = JSON.parse(text) as Accepted;
      return typeof id === "string" ? id : notARouter();
    };
    return await this.#request({ method: "POST", path: "/api/send", body: envelope, key, signal }, accepted);
  }

  /**
   * Sends several messages in few requests, one after another, and tells what became of each. Those that may be
   * accepted later are sent again under their keys. Where the time budget ends, they and what is in later requests are
   * `Unreachable`.
   */
  async sendBatch(
    envelopes: readonly SecureEnvelope[],
    options: { idempotencyKeys?: readonly string[] } & Aborts = {},
  ): Promise<Outcome[]> {
    const { idempotencyKeys: keys, signal } = options;
    if (keys !== undefined && keys.length !== envelopes.length) throw new TypeError("each message needs one key");
    const messages = envelopes.map((envelope, index) => ({ envelope, idempotencyKey: keys?.[index] ?? newKey() }));
    const outcomes: Outcome[] = [];
    for (const part of parts(messages)) {
      const lost = outcomes.find((outcome) => outcome.error instanceof Unreachable);
      outcomes.push(...(lost ? part.map(() => lost) : await this.#sendPart(part, signal)));
    }
    return outcomes;
  }

  /** The oldest messages. They stay until they are acknowledged. */
  async fetch(options: { limit?: number } & Aborts = {}): Promise<QueuedMessage[]> {
    const { limit = PAGE, signal } = options;
    return await this.#request({ method: "GET", path: `/api/messages?limit=${limit}`, signal }, page);
  }

  /** Tells the router that these are saved, so that it deletes them. */
  async acknowledge(ids: readonly string[], { signal }: Aborts = {}): Promise<void> {
    const deleted = ({ status }: Answer) => (status === 204 ? undefined : notARouter());
    const body = { messageIds: ids };
    await this.#request({ method: "POST", path: "/api/messages/ack", body, signal }, deleted);
  }

  /** `acknowledge` and then `fetch`, in one request where the router can. */
  async next(ids: readonly string[], options: { limit?: number } & Aborts = {}): Promise<QueuedMessage[]> {
    const { limit = PAGE, signal } = options;
    const path = "/api/messages/next";
    if (ids.length > 0 && !this.#missing.has(path)) {
      try {
        const body: Next = { messageIds: [...ids], limit };
        return await this.#request({ method: "POST", path, body, signal }, page);
      } catch (error) {
        if (!(error instanceof Refused && NOT_SERVED.has(error.status))) throw error;
        this.#missing.add(path);
      }
    }
    if (ids.length > 0) await this.acknowledge(ids, { signal });
    return await this.fetch({ limit, signal });
  }

  /** Fetches, saves and acknowledges until nothing is left; gives the number of messages. */
  async drain(save: Save, options: { limit?: number } & Aborts = {}): Promise<number> {
    let count = 0;
    let messages = await this.fetch(options);
    while (messages.length > 0) {
      await save(messages);
      count += messages.length;
      messages = await this.next(messages.map((message) => message.id), options);
    }
    return count;
  }

  /**
   * Drains on connecting, on every poke, after every failed connection and from time to time, until `signal` is
   * aborted. Rejects if the router refuses the requests for good, and with what `save` throws.
   */
  async listen(save: Save, options: ListenOptions = {}): Promise<void> {
    const { signal } = options;
    const stop = new AbortController();
    const end = () => stop.abort(new Stopped("stopped"));
    const wanted = new Wanted();
    signal?.addEventListener("abort", end, { once: true });
    if (signal?.aborted) end();
    const ended = await Promise.allSettled(
      [
        this.#drainWhenWanted(wanted, save, options, stop.signal),
        this.#stayConnected(wanted, options, stop.signal),
      ].map((part) => part.finally(end)),
    );
    signal?.removeEventListener("abort", end);
    for (const part of ended) {
      if (part.status === "rejected" && !(part.reason instanceof Stopped)) throw part.reason;
    }
  }

  async #drainWhenWanted(wanted: Wanted, save: Save, options: ListenOptions, signal: AbortSignal): Promise<never> {
    for (let failures = 0; ; ) {
      const seconds = failures > 0 ? backoff(failures, ...CONNECT_WAITS) : (options.pollSeconds ?? POLL_SECONDS);
      await wanted.orAfter(seconds, this.#clock, signal);
      wanted.clear();
      let saving = false;
      const saved: Save = async (messages) => {
        throwIfAborted(signal);
        saving = true;
        await save(messages);
        saving = false;
      };
      try {
        await this.drain(saved, { limit: options.limit ?? PAGE, signal });
        failures = 0;
      } catch (error) {
        if (saving || !(error instanceof Unreachable)) throw error;
        failures += 1;
        this.#trouble(error);
      }
    }
  }

  async #stayConnected(wanted: Wanted, options: ListenOptions, signal: AbortSignal): Promise<never> {
    for (let failures = 1; ; failures += 1) {
      const began = this.#clock.now();
      let code = 0;
      try {
        code = await this.#connection(wanted, options, signal);
        this.#trouble(new Error(`${this.#socketUrl} was closed with ${code}`));
      } catch (error) {
        if (!(error instanceof Passing)) throw error;
        this.#trouble(error);
      }
      if (this.#clock.now() - began > STABLE_SECONDS) failures = 1;
      // Mail still comes, if slowly, while only sockets fail; and a request learns whether the token is refused.
      wanted.set();
      const seconds = code === REPLACED ? between(...REPLACED_WAITS) : backoff(failures, ...CONNECT_WAITS);
      await this.#clock.sleep(seconds, signal);
    }
  }

  /** One connection, from its handshake on; gives its close code. Rejects with `Passing` if there is no handshake. */
  async #connection(wanted: Wanted, options: ListenOptions, signal: AbortSignal): Promise<number> {
    const Socket = this.#WebSocket;
    if (Socket === undefined) throw new TypeError("this runtime has no WebSocket: hand one in as an option");
    const token = this.#currentToken();
    const bearer = await token;
    throwIfAborted(signal);
    return await new Promise<number>((resolve, reject) => {
      // A page cannot send headers with a handshake; the token goes as a subprotocol, everywhere alike.
      const socket = open(Socket, this.#socketUrl, ["bearer", bearer]);
      const settle = (how: () => void) => {
        clearTimeout(timer);
        signal.removeEventListener("abort", stopped);
        socket.onopen = socket.onmessage = socket.onclose = null;
        socket.onerror = () => {};
        how();
      };
      const leave = (reason: unknown) =>
        settle(() => {
          socket.close();
          reject(reason);
        });
      const stopped = () => leave(reasonOf(signal));
      const timer = setTimeout(() => leave(new Passing(`${this.#socketUrl} does not answer`)), CONNECT_SECONDS * 1000);
      signal.addEventListener("abort", stopped, { once: true });
      socket.onopen = () => {
        clearTimeout(timer);
        this.#missing.clear();
        wanted.set();
        try {
          options.connected?.();
        } catch (error) {
          leave(error);
        }
      };
      socket.onmessage = () => wanted.set();
      // Node 20 does not close a socket whose handshake was refused.
      socket.onerror = () => leave(new Passing(`${this.#socketUrl} cannot be reached`));
      socket.onclose = ({ code }: { code: number }) => {
        if (code === TOKEN_EXPIRED) this.#forget(token);
        settle(() => resolve(code));
      };
    });
  }

  async #sendPart(part: Keyed[], signal: AbortSignal | undefined): Promise<Outcome[]> {
    const outcomes = new Map<Keyed, Outcome>();
    let left = part;
    while (left.length > 0) {
      try {
        const seconds = await this.#persist(signal, () => this.#sendTogether(left, outcomes, signal));
        left = left.filter((message) => !outcomes.has(message));
        if (left.length > 0) await this.#clock.sleep(Math.max(seconds, backoff(1, ...REQUEST_WAITS)), signal);
      } catch (error) {
        if (!(error instanceof Unreachable)) throw error;
        for (const message of left.filter((message) => !outcomes.has(message))) outcomes.set(message, { error });
        left = [];
      }
    }
    return part.map((message) => outcomes.get(message)!);
  }

  /**
   * Sends these in one request and adds the outcomes that are final; gives the seconds after which the others may be
   * accepted. Throws `Passing` if none is final.
   */
  async #sendTogether(part: Keyed[], outcomes: Map<Keyed, Outcome>, signal: AbortSignal | undefined): Promise<number> {
    const path = "/api/send/batch";
    if (part.length === 1 || this.#missing.has(path)) return await this.#sendSingly(part, outcomes, signal);
    try {
      const body: Batch = { messages: part };
      const answer = await this.#attempt({ method: "POST", path, body, signal }, (answer) => {
        const { results } = JSON.parse(answer.text) as BatchResults;
        return results.length === part.length ? { ...answer, results } : notARouter();
      });
      let waiting: Problem | undefined;
      part.forEach((message, index) => {
        const result = answer.results[index]!;
        if ("id" in result) outcomes.set(message, { id: result.id });
        else if (PASSING.has(result.error.status)) waiting ??= result.error;
        else outcomes.set(message, { error: new Refused(result.error) });
      });
      if (waiting && !part.some((message) => outcomes.has(message))) {
        throw new Passing(`${waiting.status}: ${waiting.detail ?? waiting.title}`, answer.retryAfter);
      }
      return answer.retryAfter;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      // 400 and 413 of a batch say nothing of each message: a proxy may let no such body pass.
      if (NOT_SERVED.has(error.status)) this.#missing.add(path);
      else if (error.status !== 400 && error.status !== 413) {
        for (const message of part) outcomes.set(message, { error });
        return 0;
      }
      return await this.#sendSingly(part, outcomes, signal);
    }
  }

  async #sendSingly(part: Keyed[], outcomes: Map<Keyed, Outcome>, signal: AbortSignal | undefined): Promise<number> {
    for (const message of part) {
      try {
        const { envelope, idempotencyKey } = message;
        outcomes.set(message, { id: await this.send(envelope, { idempotencyKey, signal }) });
      } catch (error) {
        if (!(error instanceof Refused)) throw error; // If it is Unreachable, none may overtake it.
        outcomes.set(message, { error });
      }
    }
    return 0;
  }

  async #request<T>(request: Request, read: (answer: Answer) => T): Promise<T> {
    return await this.#persist(request.signal, () => this.#attempt(request, read));
  }

  /** Tries again what throws `Passing`, until the time budget ends. */
  async #persist<T>(signal: AbortSignal | undefined, attempt: () => Promise<T>): Promise<T> {
    const deadline = this.#clock.now() + this.#budgetSeconds;
    for (let failures = 1; ; failures += 1) {
      try {
        return await attempt();
      } catch (cause) {
        if (!(cause instanceof Passing)) throw cause;
        const seconds = Math.max(cause.seconds, backoff(failures, ...REQUEST_WAITS));
        if (this.#clock.now() + seconds > deadline) {
          throw new Unreachable(`${this.#url} does not answer: ${cause.message}`, { cause });
        }
        this.#trouble(cause);
        await this.#clock.sleep(seconds, signal);
      }
    }
  }

  /** One try, or two if the first token is refused. Throws `Passing` if another may succeed. */
  async #attempt<T>(request: Request, read: (answer: Answer) => T): Promise<T> {
    for (let renewed = false; ; renewed = true) {
      const token = this.#currentToken();
      const answer = await this.#exchange(request, await token);
      if (answer.status >= 200 && answer.status < 300) {
        try {
          return read(answer);
        } catch (cause) {
          throw new Passing("the server that answers is not a router", 0, { cause });
        }
      }
      const problem = problemOf(answer);
      if (PASSING.has(answer.status)) throw new Passing(`${problem.status}: ${problem.detail}`, answer.retryAfter);
      if (answer.status !== 401) throw new Refused(problem);
      this.#forget(token);
      if (renewed) throw new Unauthorized(problem);
    }
  }

  async #exchange({ method, path, body, key, signal }: Request, token: string): Promise<Answer> {
    throwIfAborted(signal);
    const headers: Record<string, string> = { Authorization: `Bearer ${token}` };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (key !== undefined) headers["Idempotency-Key"] = key;
    const stop = new AbortController();
    const end = () => stop.abort();
    const timer = setTimeout(end, TIMEOUT_SECONDS * 1000);
    signal?.addEventListener("abort", end, { once: true });
    try {
      const init: RequestInit = { method, headers, signal: stop.signal };
      if (body !== undefined) init.body = JSON.stringify(body);
      const response = await this.#fetch(this.#url + path, init);
      const seconds = Number(response.headers.get("Retry-After") ?? 0);
      return { status: response.status, text: await response.text(), retryAfter: seconds > 0 ? seconds : 0 };
    } catch (cause) {
      throwIfAborted(signal);
      throw new Passing(stop.signal.aborted ? "no answer in time" : String(cause), 0, { cause });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
    }
  }

  /** One for all requests until it is refused. Whatever the caller's function throws may pass: it asks a server. */
  #currentToken(): Promise<string> {
    if (this.#token === undefined) {
      const token: Promise<string> = this.#freshToken().catch((error: unknown) => {
        this.#forget(token);
        throw error;
      });
      this.#token = token;
    }
    return this.#token;
  }

  async #freshToken(): Promise<string> {
    let token: string;
    try {
      token = await this.#newToken();
    } catch (cause) {
      throw new Passing(`there is no token: ${String(cause)}`, 0, { cause });
    }
    // Elsewhere an error would quote it.
    if (!/^[\w.-]+$/.test(token)) throw new TypeError("the token is not a JWT");
    return token;
  }

  #forget(token: Promise<string>): void {
    if (this.#token === token) this.#token = undefined;
  }
}

/** Throws `Passing` where a page may open no socket, as by its Content-Security-Policy. */
function open(Socket: SocketConstructor, url: string, protocols: string[]): Socket {
  try {
    return new Socket(url, protocols);
  } catch (cause) {
    throw new Passing(`${url}: ${String(cause)}`, 0, { cause });
  }
}

/** Whether to fetch, and a wait for that. */
class Wanted {
  #is = false;
  #wake = () => {};

  set(): void {
    this.#is = true;
    this.#wake();
  }

  clear(): void {
    this.#is = false;
  }

  /** Resolves when it is set, and at the latest after so many seconds. */
  async orAfter(seconds: number, clock: Clock, signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    if (this.#is) return;
    const stop = new AbortController();
    const end = () => stop.abort();
    signal.addEventListener("abort", end, { once: true });
    this.#wake = end;
    try {
      await clock.sleep(seconds, stop.signal);
    } catch {
      throwIfAborted(signal);
    } finally {
      signal.removeEventListener("abort", end);
      this.#wake = () => {};
    }
  }
}

/** In their order, as many as a request takes. */
function* parts(messages: Keyed[]): Generator<Keyed[]> {
  let part: Keyed[] = [];
  let length = 0;
  for (const message of messages) {
    const more = JSON.stringify(message.envelope).length;
    if (part.length > 0 && (part.length === BATCH_MESSAGES || length + more > BATCH_LENGTH)) {
      yield part;
      part = [];
      length = 0;
    }
    part.push(message);
    length += more;
  }
  if (part.length > 0) yield part;
}

function page({ text }: Answer): QueuedMessage[] {
  const { messages } = JSON.parse(text) as QueuedMessageList;
  return Array.isArray(messages) ? messages : notARouter();
}

function problemOf({ status, text }: Answer): Problem {
  let problem: Partial<Problem> | undefined;
  try {
    problem = JSON.parse(text) as Partial<Problem>;
  } catch {
    // A proxy's own page.
  }
  const { type = "about:blank", title = "", detail = title } = problem ?? {};
  return { type: String(type), title, status, detail };
}

function notARouter(): never {
  throw new TypeError("this is not what a router answers");
}

/** Unique, no secret: a key counts only together with its sender. React Native has no `crypto`. */
export function newKey(): string {
  const part = () => Math.random().toString(36).slice(2);
  return globalThis.crypto?.randomUUID?.() ?? part() + part() + part();
}
