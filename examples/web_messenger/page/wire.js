// What the server sees of this window, taken from the requests and answers themselves.
/** @import { QueuedMessage, SecureEnvelope } from "/client/index.js" */

/**
 * An envelope that went to the router or came from it.
 * @typedef {object} Seen
 * @property {"out" | "in"} way
 * @property {string} key The Idempotency-Key of what goes out, the router's id of what comes in.
 * @property {SecureEnvelope} envelope
 * @property {number} at In ms since 1970.
 * @property {number} tries
 * @property {string} became What became of it, for people.
 * @property {boolean} done Whether nothing more becomes of it.
 */

const MOST = 100;

/** Its `fetch` is handed to the client. Tells `change` of each that is new or has changed, as `detail`. */
export class Wire extends EventTarget {
  /** @type {Map<string, Seen>} */
  #seen = new Map();

  /** @type {typeof globalThis.fetch} */
  fetch = async (url, init = {}) => {
    const sent = outgoing(init).map(({ key, envelope }) => this.#note("out", key, envelope, "no answer yet"));
    let response;
    try {
      response = await globalThis.fetch(url, init);
    } catch (error) {
      for (const each of sent) this.#became(each, "no answer: the same bytes go again, under the same key");
      throw error;
    }
    const answer = await json(response);
    sent.forEach((each, index) => {
      const status = answer?.results?.[index]?.error?.status ?? response.status;
      const accepted = status === 202;
      this.#became(each, accepted ? "202: accepted, on disk" : `${status}: not accepted`, accepted);
    });
    if (!response.ok) return response;
    for (const id of acknowledged(init)) {
      const each = this.#seen.get(`in ${id}`);
      if (each) this.#became(each, "acknowledged: the server has deleted it", true);
    }
    for (const { id, envelope } of /** @type {QueuedMessage[]} */ (answer?.messages ?? [])) {
      this.#note("in", id, envelope, "fetched: the server keeps it until it is acknowledged");
    }
    return response;
  };

  /** @param {"out" | "in"} way @param {string} key @param {SecureEnvelope} envelope @param {string} became */
  #note(way, key, envelope, became) {
    const name = `${way} ${key}`;
    const seen = this.#seen.get(name) ?? { way, key, envelope, at: Date.now(), tries: 0, became, done: false };
    seen.tries += 1;
    this.#seen.set(name, seen);
    for (const old of [...this.#seen.keys()].slice(0, -MOST)) this.#seen.delete(old);
    this.#became(seen, became);
    return seen;
  }

  /** @param {Seen} seen @param {string} became @param {boolean} [done] */
  #became(seen, became, done = false) {
    Object.assign(seen, { became, done });
    this.dispatchEvent(new CustomEvent("change", { detail: seen }));
  }
}

/** @param {RequestInit} init @returns {Array<{ key: string, envelope: SecureEnvelope }>} */
function outgoing(init) {
  const body = bodyOf(init);
  if (body?.messages) {
    return body.messages.map((/** @type {{ idempotencyKey: string, envelope: SecureEnvelope }} */ each) => ({
      key: each.idempotencyKey,
      envelope: each.envelope,
    }));
  }
  const key = new Headers(init.headers).get("Idempotency-Key");
  return key && body ? [{ key, envelope: body }] : [];
}

/** @param {RequestInit} init @returns {string[]} */
function acknowledged(init) {
  return bodyOf(init)?.messageIds ?? [];
}

/** @param {RequestInit} init */
function bodyOf(init) {
  return typeof init.body === "string" ? JSON.parse(init.body) : undefined;
}

/** Its body, if that is JSON. @param {Response} response */
async function json(response) {
  const type = response.headers.get("Content-Type") ?? "";
  return type.startsWith("application/json") ? await response.clone().json() : undefined;
}
