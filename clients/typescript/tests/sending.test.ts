import assert from "node:assert/strict";
import { test } from "node:test";
import { Refused, RouterClient, Unauthorized, Unreachable } from "sealed-router-client";
import { between, clientOf, envelope, header, problem, QuickClock, ROUTER } from "./support.js";
import { someone, text, until, waiting } from "./support.js";

test("the simplest send arrives, and is gone when it is acknowledged", async () => {
  const [alice, bob] = [someone(), someone()];
  const id = await clientOf(alice).send({ recipientId: bob.name, encryptedData: btoa("hello") });
  await until(bob, (texts) => texts.length === 1);
  const reader = clientOf(bob);
  const [message] = await reader.fetch();
  assert.deepEqual([message!.id, text(message!)], [id, "hello"]);
  await reader.acknowledge([id]);
  assert.deepEqual(await waiting(bob), []);
});

test("a send whose answers are lost is one message", async () => {
  const [alice, bob] = [someone(), someone()];
  const keys: unknown[] = [];
  const fetch = between(async ({ init, go }) => {
    keys.push(header(init, "Idempotency-Key"));
    const response = await go();
    if (keys.length < 4) throw new TypeError("the connection broke");
    return response;
  });
  const sender = clientOf(alice, { fetch, clock: new QuickClock() });
  await sender.send(envelope(bob, "once"));
  await sender.send(envelope(bob, "then"));
  assert.equal(keys.length, 5);
  assert.deepEqual([new Set(keys.slice(0, 4)).size, keys[3] === keys[4]], [1, false]);
  assert.deepEqual(await until(bob, (texts) => texts.includes("then")), ["once", "then"]);
});

test("what may pass is tried again, after Retry-After or longer", async () => {
  const [alice, bob] = [someone(), someone()];
  for (const status of [408, 429, 500, 502, 503, 504]) {
    const clock = new QuickClock();
    const answers = [problem(status, "x", { "Retry-After": "7" }), problem(status, "x")];
    const fetch = between(async ({ go }) => answers.shift() ?? (await go()));
    await clientOf(alice, { fetch, clock }).send(envelope(bob, "hello"));
    assert.equal(clock.waits.length, 2);
    assert.ok(clock.waits[0]! >= 7 && clock.waits[1]! <= 0.4, String(clock.waits));
  }
});

test("waits grow, differ by chance, and end with the budget", async () => {
  const clock = new QuickClock();
  const troubles: unknown[] = [];
  const cause = problem(503, "unavailable");
  const fetch = between(async () => cause.clone());
  const trouble = (error: unknown) => troubles.push(error);
  const sender = clientOf(someone(), { fetch, clock, trouble, budgetSeconds: 60 });
  await assert.rejects(sender.send(envelope(someone(), "x")), (error) => {
    assert.ok(error instanceof Unreachable);
    assert.match(String(error.cause), /503: this is unavailable/);
    return true;
  });
  clock.waits.forEach((wait, index) => assert.ok(wait > 0 && wait <= Math.min(5, 0.2 * 2 ** index)));
  assert.equal(new Set(clock.waits).size, clock.waits.length);
  assert.ok(clock.now() > 50 && clock.now() <= 60, String(clock.now()));
  assert.equal(troubles.length, clock.waits.length);
});

test("a router that is not there is unreachable", async () => {
  const client = new RouterClient({ url: "http://127.0.0.1:1", token: () => "x", clock: new QuickClock() });
  await assert.rejects(client.fetch(), Unreachable);
});

test("whatever else answers in its place accepts nothing", async () => {
  const [alice, bob] = [someone(), someone()];
  const clock = new QuickClock();
  let number = 0;
  const fetch = between(async ({ go }) => (number++ % 2 ? await go() : new Response("<html>Log in</html>")));
  const client = clientOf(alice, { fetch, clock });
  await client.send(envelope(bob, "hello"));
  await client.fetch();
  await client.acknowledge(["x"]);
  assert.equal(clock.waits.length, 3);
});

test("a refusal is final, and says what it is", async () => {
  let requests = 0;
  const fetch = between(async ({ go }) => {
    requests += 1;
    return await go();
  });
  const sender = clientOf(someone(), { fetch });
  await assert.rejects(sender.send({ recipientId: "no:urn" }), (error) => {
    assert.ok(error instanceof Refused && !(error instanceof Unauthorized));
    assert.deepEqual([error.status, error.kind], [400, "invalid-envelope"]);
    return true;
  });
  const large = { recipientId: "bob", encryptedData: "A".repeat(400_000) };
  await assert.rejects(sender.send(large), (error) => {
    assert.ok(error instanceof Refused && error.is(413) && !error.is(400));
    const kind: "body-too-large" | "envelope-too-large" | undefined = error.kind;
    return kind === "body-too-large";
  });
  assert.equal(requests, 2);
});

test("a refused token is replaced, once for all requests", async () => {
  const user = someone();
  const tokens = ["an.old.one", user.token];
  let asked = 0;
  const client = new RouterClient({ url: ROUTER, token: async () => tokens[asked++]! });
  await Promise.all([client.fetch(), client.fetch(), client.fetch()]);
  await client.fetch();
  assert.equal(asked, 2);
});

test("two refused tokens are an error", async () => {
  let asked = 0;
  const client = new RouterClient({ url: ROUTER, token: () => `a.bad.one${asked++}` });
  await assert.rejects(client.fetch(), Unauthorized);
  assert.equal(asked, 2);
});

test("no token for a while is a failure that passes; no JWT is none, and is not quoted", async () => {
  const user = someone();
  let asked = 0;
  const token = async () => {
    if (asked++ < 2) throw new Error("the identity service is down");
    return user.token;
  };
  await new RouterClient({ url: ROUTER, token, clock: new QuickClock() }).fetch();
  assert.equal(asked, 3);
  const broken = new RouterClient({ url: ROUTER, token: () => "a secret\n" });
  await assert.rejects(broken.fetch(), (error) => error instanceof TypeError && !/secret/.test(error.message));
});

test("a call ends when its signal is aborted", async () => {
  const stop = new AbortController();
  const fetch = between(({ init }) => {
    setImmediate(() => stop.abort(new Error("enough")));
    return new Promise((_, reject) => init.signal!.addEventListener("abort", () => reject(new Error("cut off"))));
  });
  const client = clientOf(someone(), { fetch });
  await assert.rejects(client.send({ recipientId: "bob" }, { signal: stop.signal }), /enough/);
  await assert.rejects(client.fetch({ signal: stop.signal }), /enough/);
});

test("a batch arrives in its order, in few requests, once", async () => {
  const [alice, bob] = [someone(), someone()];
  const paths: string[] = [];
  const fetch = between(async ({ path, go }) => {
    paths.push(path);
    const response = await go();
    if (paths.length === 1) throw new TypeError("the connection broke");
    return response;
  });
  const sender = clientOf(alice, { fetch, clock: new QuickClock() });
  const sent = Array.from({ length: 80 }, (_, index) => `message ${index}`);
  const outcomes = await sender.sendBatch(sent.map((each) => envelope(bob, each)));
  assert.equal(new Set(outcomes.map((outcome) => outcome.id)).size, sent.length);
  assert.deepEqual(paths, ["/api/send/batch", "/api/send/batch"]);
  assert.deepEqual(await until(bob, (texts) => texts.length >= sent.length), sent);
});

test("each message of a batch has its own outcome", async () => {
  const [alice, bob] = [someone(), someone()];
  const [good, bad, last] = await clientOf(alice).sendBatch([
    envelope(bob, "good"),
    { recipientId: "no:urn" },
    envelope(bob, "last"),
  ]);
  assert.ok(good!.id && last!.id && bad!.error instanceof Refused);
  assert.equal(bad!.error.kind, "invalid-envelope");
  assert.deepEqual(await until(bob, (texts) => texts.length === 2), ["good", "last"]);
});

test("what waits in a batch goes again, under its keys, after Retry-After", async () => {
  const clock = new QuickClock();
  const error = await problem(429, "rate-limited").json();
  const answers = [[{ id: "a" }, { error }, { error }], [{ error }, { error }], [{ id: "b" }, { id: "c" }]];
  const keys: string[][] = [];
  const fetch = between(async ({ init }) => {
    const { messages } = JSON.parse(String(init.body)) as { messages: Array<{ idempotencyKey: string }> };
    keys.push(messages.map((message) => message.idempotencyKey));
    return new Response(JSON.stringify({ results: answers.shift() }), { status: 202, headers: { "Retry-After": "7" } });
  });
  const [anyone, bob] = [someone(), someone()];
  const texts = ["x", "y", "z"];
  const outcomes = await clientOf(anyone, { fetch, clock }).sendBatch(texts.map((each) => envelope(bob, each)));
  assert.deepEqual(outcomes, [{ id: "a" }, { id: "b" }, { id: "c" }]);
  assert.deepEqual(keys.slice(1), [keys[0]!.slice(1), keys[0]!.slice(1)]);
  assert.ok(clock.waits.length === 2 && clock.waits.every((wait) => wait >= 7));
});

test("an older router gets a batch as single sends, in order", async () => {
  const [alice, bob] = [someone(), someone()];
  const paths: string[] = [];
  const fetch = between(async ({ path, go }) => {
    paths.push(path);
    return path === "/api/send/batch" ? problem(404, "not-found") : await go();
  });
  const sender = clientOf(alice, { fetch });
  for (const texts of [["a", "b"], ["c", "d"]]) await sender.sendBatch(texts.map((each) => envelope(bob, each)));
  assert.deepEqual(paths, ["/api/send/batch", ...Array<string>(4).fill("/api/send")]);
  assert.deepEqual(await until(bob, (texts) => texts.length === 4), ["a", "b", "c", "d"]);
});

test("what cannot be sent holds back all behind it", async () => {
  const [alice, bob] = [someone(), someone()];
  const fetch = between(async ({ path, init, go }) => {
    if (path === "/api/send/batch") return problem(405, "method-not-allowed");
    return String(init.body).includes(btoa("b")) ? problem(503, "unavailable") : await go();
  });
  const outcomes = await clientOf(alice, { fetch, clock: new QuickClock() }).sendBatch(
    ["a", "b", "c"].map((each) => envelope(bob, each)),
  );
  assert.deepEqual(outcomes.map((outcome) => outcome.error instanceof Unreachable), [false, true, true]);
  assert.deepEqual(await until(bob, (texts) => texts.length > 0), ["a"]);
});

test("no part of a batch overtakes the one before", async () => {
  const [alice, bob] = [someone(), someone()];
  const sizes = new Set<number>();
  const fetch = between(async ({ init }) => {
    sizes.add((JSON.parse(String(init.body)) as { messages: unknown[] }).messages.length);
    return problem(503, "unavailable");
  });
  const sent = Array.from({ length: 300 }, (_, index) => envelope(bob, String(index)));
  const outcomes = await clientOf(alice, { fetch, clock: new QuickClock() }).sendBatch(sent);
  assert.equal(outcomes.filter((outcome) => outcome.error instanceof Unreachable).length, sent.length);
  assert.deepEqual([...sizes], [256]);
});
