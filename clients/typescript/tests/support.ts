// What the tests share: a real router, whose URL and tokens tests/clients/test_typescript.py hands in.
import { RouterClient, type Clock, type Options, type QueuedMessage, type SecureEnvelope } from "sealed-router-client";

export const ROUTER = process.env.ROUTER_URL!;
const tokens = Object.entries(JSON.parse(process.env.ROUTER_TOKENS!) as Record<string, string>);

export type User = { name: string; token: string };

/** Somebody whom no other test of this file knows. */
export function someone(): User {
  const [name, token] = tokens.pop()!;
  return { name, token };
}

export function clientOf(user: User, options: Partial<Options> = {}): RouterClient {
  return new RouterClient({ url: ROUTER, token: () => user.token, ...options });
}

export function envelope(to: User, text: string): SecureEnvelope {
  return { recipientId: to.name, encryptedData: btoa(text) };
}

export function text(message: QueuedMessage): string {
  return atob(message.envelope.encryptedData ?? "");
}

/** All that is waiting for `user`, from the first text to the last. Whatever was accepted was routed before. */
export async function waiting(user: User): Promise<string[]> {
  return (await clientOf(user).fetch({ limit: 500 })).map(text);
}

/** Resolves when this is so of what waits for `user`. The router routes a message soon after it has accepted it. */
export async function until(user: User, enough: (texts: string[]) => boolean): Promise<string[]> {
  for (;;) {
    const texts = await waiting(user);
    if (enough(texts)) return texts;
  }
}

/** Waits take no time, and are recorded. Those of five minutes or more never end. */
export class QuickClock implements Clock {
  readonly waits: number[] = [];
  #time = 0;

  now(): number {
    return this.#time;
  }

  async sleep(seconds: number, signal?: AbortSignal): Promise<void> {
    if (seconds >= 300) return await never(signal);
    this.waits.push(seconds);
    this.#time += seconds;
    await new Promise((resolve) => setImmediate(resolve));
    if (signal?.aborted) throw signal.reason;
  }
}

/** The time stands still: only what is wanted wakes a wait. */
export class StoppedClock implements Clock {
  readonly waits: number[] = [];

  now(): number {
    return 0;
  }

  async sleep(seconds: number, signal?: AbortSignal): Promise<void> {
    this.waits.push(seconds);
    await never(signal);
  }
}

/** Only an abort ends it. */
async function never(signal: AbortSignal | undefined): Promise<void> {
  await new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
}

type Exchange = { path: string; init: RequestInit; go: () => Promise<Response> };

/** A `fetch` in which `fault` may come between: it gets each request, and what sends it. */
export function between(fault: (exchange: Exchange) => Promise<Response>): typeof globalThis.fetch {
  return async (url, init = {}) => {
    const path = String(url).slice(ROUTER.length);
    return await fault({ path, init, go: () => fetch(url, init) });
  };
}

export function problem(status: number, kind: string, headers: Record<string, string> = {}): Response {
  const body = { type: `urn:sealed-router:problem:${kind}`, title: kind, status, detail: `this is ${kind}` };
  return new Response(JSON.stringify(body), { status, headers });
}

export function header(init: RequestInit, name: string): string | undefined {
  return (init.headers as Record<string, string>)[name];
}
