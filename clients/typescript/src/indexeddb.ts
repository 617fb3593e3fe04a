// What outlives a page: mail that was received and not yet read, and mail that was written and not yet accepted.
import type { QueuedMessage, SecureEnvelope } from "./api.js";
import { newKey, type RouterClient } from "./client.js";
import { Refused } from "./errors.js";

const MESSAGES = "messages";
const BY_ID = "id";
/** A message that is fetched again comes within the 30 days for which the router keeps it. */
const REMEMBERED_MS = 31 * 24 * 3600 * 1000;
const MOST_AT_ONCE = 256;

type Received = { number: number; id: string; envelope?: SecureEnvelope; deleted: number };
type Written = { number: number; envelope: SecureEnvelope; idempotencyKey: string };

/** Messages that were received, in their order, each once however often it is fetched. */
export class Inbox {
  private constructor(private readonly database: IDBDatabase) {}

  static async open(name = "sealed-router-inbox", factory = indexedDB): Promise<Inbox> {
    const inbox = new Inbox(await open(name, factory, (store) => store.createIndex(BY_ID, BY_ID, { unique: true })));
    await inbox.#forget(Date.now() - REMEMBERED_MS);
    return inbox;
  }

  /** For `listen` and `drain`: resolves once the messages are on disk. */
  readonly save = async (messages: readonly QueuedMessage[]): Promise<void> => {
    await change(this.database, (store) => {
      for (const { id, envelope } of messages) {
        const known = store.index(BY_ID).getKey(id);
        known.onsuccess = () => {
          if (known.result === undefined) store.add({ id, envelope, deleted: 0 });
        };
      }
    });
  };

  /** What was saved and not deleted, oldest first. */
  async messages(): Promise<QueuedMessage[]> {
    const all = (await read(this.database, (store) => store.getAll())) as Received[];
    return all.flatMap(({ id, envelope }) => (envelope === undefined ? [] : [{ id, envelope }]));
  }

  /** The envelope goes; the id is remembered, since the router may send the message again. */
  async delete(id: string): Promise<void> {
    await change(this.database, (store) => {
      const found: IDBRequest<Received | undefined> = store.index(BY_ID).get(id);
      found.onsuccess = () => {
        if (found.result) store.put({ number: found.result.number, id, deleted: Date.now() });
      };
    });
  }

  close(): void {
    this.database.close();
  }

  async #forget(before: number): Promise<void> {
    const all = (await read(this.database, (store) => store.getAll())) as Received[];
    const old = all.filter(({ deleted }) => deleted > 0 && deleted < before);
    await change(this.database, (store) => old.forEach(({ number }) => store.delete(number)));
  }
}

/** Messages that were written and not yet accepted, in their order, each with its Idempotency-Key. */
export class Outbox {
  private constructor(private readonly database: IDBDatabase) {}

  static async open(name = "sealed-router-outbox", factory = indexedDB): Promise<Outbox> {
    return new Outbox(await open(name, factory));
  }

  /** Resolves once it is on disk; `flush` sends it. */
  async add(envelope: SecureEnvelope): Promise<void> {
    await change(this.database, (store) => store.add({ envelope, idempotencyKey: newKey() }));
  }

  async waiting(): Promise<SecureEnvelope[]> {
    const all = (await read(this.database, (store) => store.getAll())) as Written[];
    return all.map(({ envelope }) => envelope);
  }

  /**
   * Sends what is waiting, in its order, and gives what was refused for its own sake (400, 413); neither is waiting any
   * more. Throws what else keeps a message from being accepted, as `Unreachable` or `Unauthorized`: then it waits, and
   * may be sent again within a day under its key.
   */
  async flush(
    client: RouterClient,
    options: { signal?: AbortSignal } = {},
  ): Promise<Array<{ envelope: SecureEnvelope; error: Refused }>> {
    const refused: Array<{ envelope: SecureEnvelope; error: Refused }> = [];
    for (;;) {
      const written = (await read(this.database, (store) => store.getAll(null, MOST_AT_ONCE))) as Written[];
      if (written.length === 0) return refused;
      const idempotencyKeys = written.map(({ idempotencyKey }) => idempotencyKey);
      const envelopes = written.map(({ envelope }) => envelope);
      const outcomes = await client.sendBatch(envelopes, { ...options, idempotencyKeys });
      let trouble: Error | undefined;
      await change(this.database, (store) =>
        outcomes.forEach(({ error }, index) => {
          const { number, envelope } = written[index]!;
          const own = error instanceof Refused && (error.is(400) || error.is(413));
          if (own) refused.push({ envelope, error });
          if (own || !error) store.delete(number);
          else trouble = error;
        }),
      );
      if (trouble) throw trouble;
    }
  }

  close(): void {
    this.database.close();
  }
}

async function open(
  name: string,
  factory: IDBFactory,
  more: (store: IDBObjectStore) => void = () => {},
): Promise<IDBDatabase> {
  const request = factory.open(name, 1);
  const key = { keyPath: "number", autoIncrement: true };
  request.onupgradeneeded = () => more(request.result.createObjectStore(MESSAGES, key));
  return await result(request);
}

/** Resolves once the change is on disk: the operating system alone may lose it with its power. */
async function change(database: IDBDatabase, make: (store: IDBObjectStore) => void): Promise<void> {
  const transaction = database.transaction(MESSAGES, "readwrite", { durability: "strict" });
  const done = new Promise<void>((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new Error("the change was aborted"));
  });
  make(transaction.objectStore(MESSAGES));
  await done;
}

async function read<T>(database: IDBDatabase, ask: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  return await result(ask(database.transaction(MESSAGES, "readonly").objectStore(MESSAGES)));
}

function result<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
