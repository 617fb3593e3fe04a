// What a person has written and read, on IndexedDB: their keys, the cards of others, and the messages, opened.
/** @import { SecureEnvelope } from "/client/index.js" */
/** @import { Keys } from "./sealing.js" */

/**
 * `written`: not yet in the outbox; `waiting`: in the outbox; `accepted`: durable at the router; `received`: on the disk of whom
 * it is for, who said so; `refused`: by the router, for good.
 * @typedef {"written" | "waiting" | "accepted" | "received" | "refused"} State
 */

/**
 * @typedef {object} Message
 * @property {number} [number] Its place, given by the database.
 * @property {string} id Unique for each person and direction.
 * @property {string} person With whom.
 * @property {string} text
 * @property {number} at When it was written, in ms since 1970.
 * @property {State} [state] Of one's own.
 * @property {SecureEnvelope} [envelope] Of one's own, while it is `written` or `waiting`.
 * @property {boolean} [known] Of another's: whether it has the card that we know this person by.
 * @property {boolean} [unread]
 */

/** @typedef {{ name: string, card: Uint8Array<ArrayBuffer>, receipts: boolean }} Person */

export class History {
  /** @param {IDBDatabase} database */
  constructor(database) {
    this.database = database;
  }

  /** @param {string} name */
  static async open(name) {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("keys");
      request.result.createObjectStore("people", { keyPath: "name" });
      const messages = request.result.createObjectStore("messages", { keyPath: "number", autoIncrement: true });
      messages.createIndex("id", ["person", "mine", "id"], { unique: true });
    };
    return new History(await result(request));
  }

  /** These keys, unless there are some already. @param {() => Promise<Keys>} make @returns {Promise<Keys>} */
  async keys(make) {
    const read = () => result(this.database.transaction("keys").objectStore("keys").get("own"));
    const made = (await read()) ?? (await make());
    await this.#change("keys", (store) => {
      // Another tab of this person may have been first.
      const first = store.get("own");
      first.onsuccess = () => first.result ?? store.put(made, "own");
    });
    return await read();
  }

  /** @returns {Promise<Person[]>} */
  async people() {
    return await result(this.database.transaction("people").objectStore("people").getAll());
  }

  /** @param {Person} person */
  async keepPerson(person) {
    await this.#change("people", (store) => void store.put(person));
  }

  /** In their order. @returns {Promise<Message[]>} */
  async messages() {
    return await result(this.database.transaction("messages").objectStore("messages").getAll());
  }

  /** Keeps a message once. @param {Message} message */
  async add(message) {
    const mine = message.state ? 1 : 0;
    await this.#change("messages", (store) => {
      const known = store.index("id").getKey([message.person, mine, message.id]);
      known.onsuccess = () => {
        if (known.result === undefined) store.add({ ...message, mine });
      };
    });
  }

  /** Changes those that the function returns, of all that there are. @param {(message: Message) => Message | undefined} how */
  async update(how) {
    await this.#change("messages", (store) => {
      const all = store.getAll();
      all.onsuccess = () => {
        for (const message of all.result) {
          const changed = how(message);
          if (changed) store.put(changed);
        }
      };
    });
  }

  /** @param {string} name @param {(store: IDBObjectStore) => void} make */
  async #change(name, make) {
    const transaction = this.database.transaction(name, "readwrite", { durability: "strict" });
    const done = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error);
    });
    make(transaction.objectStore(name));
    await done;
  }
}

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
