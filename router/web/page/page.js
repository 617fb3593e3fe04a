// Asks for status.json and shows it. The rates are what was counted between two answers.
"use strict";

const PAUSE_MS = 2000;
const ANSWER_MS = 10000;
const RATES = ["accepted", "routed", "fetched", "acknowledged", "pushed", "refused", "errors"];
const NAMES = { errors: "5xx answers", pushed: "push commands" };
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const SPANS = [[86400, "d"], [3600, "h"], [60, "min"]];

let before = null;
let paused = false;

const part = (id) => document.getElementById(id);
const whole = (number) => Math.round(number).toLocaleString("en");

function rate(number) {
  return number < 10 && number % 1 ? number.toFixed(1) : whole(number);
}

function size(bytes) {
  let unit = 0;
  for (; bytes >= 1024 && unit < UNITS.length - 1; unit += 1) bytes /= 1024;
  return `${unit ? bytes.toFixed(1) : bytes} ${UNITS[unit]}`;
}

function span(seconds) {
  const [length, name] = SPANS.find(([least]) => seconds >= 2 * least) ?? [1, "s"];
  return `${Math.round(seconds / length)} ${name}`;
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function row([head, ...cells]) {
  const made = document.createElement("tr");
  const first = element("th", head);
  first.scope = "row";
  made.append(first, ...cells.map((cell) => element("td", cell)));
  return made;
}

function say(text, kind) {
  // Only what changes, since a screen reader reads each change.
  if (part("state").textContent !== text) part("state").textContent = text;
  part("state").className = kind;
}

function perSecond(now, at, what) {
  if (before === null) return "";
  const more = now.counts[what] - before.status.counts[what];
  return rate((more < 0 ? now.counts[what] : more) / ((at - before.at) / 1000));
}

function show(status, at) {
  const state = status.draining ? "draining" : status.ready ? "ready" : "not ready";
  say(`${status.services.join(", ")}: ${state}`, status.ready && !status.failed.length ? "fine" : "bad");
  const failed = status.failed.map((each) => `Outage: ${each.dependency} (${each.kind}) does not work.`);
  const limited = status.limited.map((each) => `Not served: ${each}.`);
  part("problems").replaceChildren(...[...failed, ...limited].map((text) => element("li", text)));
  part("rates").replaceChildren(
    ...RATES.map((what) => row([NAMES[what] ?? what, perSecond(status, at, what), whole(status.counts[what])])),
  );
  const queues = Object.entries(status.queues);
  part("queues").replaceChildren(
    ...queues.map(([name, queue]) =>
      row([name, whole(queue.messages), size(queue.bytes), queue.messages ? span(queue.oldest_seconds) : ""]),
    ),
  );
  part("uncounted").hidden = queues.length > 0;
  const facts = [
    ["connections here", whole(status.connections)],
    ["running for", span(Math.max(0, Date.now() / 1000 - status.started_at))],
  ];
  if (status.online_users !== null) {
    facts.push(["users online", whole(status.online_users)], ["connections of all nodes", whole(status.online_connections)]);
  }
  if (status.dead_letters !== null) facts.push(["dead letters", whole(status.dead_letters)]);
  part("facts").replaceChildren(...facts.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
  part("numbers").hidden = false;
  part("numbers").className = "";
  before = { status, at };
}

async function look() {
  try {
    const answer = await fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.json(), performance.now());
  } catch {
    say("This service does not answer.", "bad");
    part("numbers").className = "stale";
    before = null;
  }
}

async function watch() {
  if (!paused && !document.hidden) await look();
  setTimeout(watch, PAUSE_MS);
}

part("pause").addEventListener("click", (event) => {
  paused = !paused;
  event.currentTarget.setAttribute("aria-pressed", String(paused));
  before = null;
});
watch();
