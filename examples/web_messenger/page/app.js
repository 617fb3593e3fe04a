// What of the messenger is to be seen: it fills the page from the messenger's state, and hands it what is done.
import { bytes } from "./sealing.js";
import { Messenger, TYPING_MS } from "./messenger.js";
import { Wire } from "./wire.js";

/** @import { Connection, Link } from "./messenger.js" */
/** @import { Message } from "./history.js" */
/** @import { Seen } from "./wire.js" */

const LOOK_UP_MS = 2000;
/** Messages that follow one another within this time stand together. */
const TOGETHER_MS = 120_000;
const SHOWN_BYTES = 64;

/** @type {Record<Connection, string>} */
const CONNECTIONS = {
  connecting: "Connecting",
  online: "Online",
  reconnecting: "Reconnecting",
  offline: "Offline",
  elsewhere: "In another tab",
};
/** @type {Partial<Record<Connection, string>>} */
const NOTICES = {
  reconnecting: "The router doesn’t answer. What you write waits here, and goes out when it is back.",
  offline: "You are offline. What you write waits here, and goes out when you are back.",
};
const STATES = {
  written: { icon: "waiting", text: "Waiting" },
  waiting: { icon: "waiting", text: "Waiting" },
  accepted: { icon: "accepted", text: "Sent" },
  received: { icon: "received", text: "Received" },
  refused: { icon: "refused", text: "The router refuses it" },
};

/** @param {string} id */
const $ = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
const online = /** @type {HTMLInputElement} */ ($("online"));
const text = /** @type {HTMLTextAreaElement} */ ($("text"));
const submit = /** @type {HTMLButtonElement} */ ($("submit"));

const wire = new Wire();
/** @type {Messenger} */
let messenger;
/** With whom one talks. */
let current = "";
/** @type {Map<string, string>} What is written and not sent, by person. */
const drafts = new Map();
/** @type {Map<string, { element: HTMLElement, message: Message }>} What is shown. */
const shown = new Map();
let typingUntil = 0;
/** Whether the last message is in sight. */
let atEnd = true;

async function main() {
  try {
    messenger = await Messenger.open(linkOf(location.hash), wire);
    current = conversations()[0]?.name ?? "";
    $("app").hidden = false;
    $("me").textContent = title(messenger.me);
    messenger.addEventListener("change", render);
    messenger.addEventListener("typing", (event) => showTyping(/** @type {CustomEvent<string>} */ (event).detail));
    wire.addEventListener("change", (event) => showSeen(/** @type {CustomEvent<Seen>} */ (event).detail));
    render();
    text.focus();
    setInterval(lookUp, LOOK_UP_MS);
    await messenger.run();
  } catch (error) {
    $("app").hidden = true;
    $("stopped").hidden = false;
    $("why").textContent = error instanceof Error ? error.message : String(error);
    throw error;
  }
}

/** @param {string} hash @returns {Link} */
function linkOf(hash) {
  const [name = "", secret = ""] = hash.slice(1).split(".");
  if (!name || !secret) throw new Error("Open one of the links that `make demo` has printed.");
  return { name, secret };
}

/** Until the person whom one looks at has opened their link. */
async function lookUp() {
  if (!document.hidden && (current === "" || !messenger.people.has(current))) await messenger.lookUp();
}

/** @returns {Array<{ name: string, last: Message | undefined, unread: number }>} Those talked to last come first. */
function conversations() {
  const names = new Set([...messenger.people.keys(), ...messenger.messages.map(({ person }) => person)]);
  const all = [...names].map((name) => {
    const messages = messenger.messages.filter(({ person }) => person === name);
    return { name, last: messages.at(-1), unread: messages.filter(({ unread }) => unread).length };
  });
  return all.sort((one, other) => (other.last?.number ?? 0) - (one.last?.number ?? 0));
}

function render() {
  const all = conversations();
  if (current === "") current = all[0]?.name ?? "";
  renderConnection();
  renderPeople(all);
  renderChat();
  const unread = all.reduce((sum, each) => sum + each.unread, 0);
  document.title = `${unread ? `(${unread}) ` : ""}${title(messenger.me)} · Messenger`;
  if (document.hasFocus()) void messenger.markRead(current);
}

function renderConnection() {
  const { connection } = messenger;
  $("app").dataset.connection = connection;
  put($("connection"), CONNECTIONS[connection]);
  const known = messenger.people.has(current);
  const unable = current && !known ? `${title(current)} has no card, so nothing can be sealed for them.` : "";
  const notice = NOTICES[connection] ?? unable;
  put($("notice"), notice);
  $("notice").hidden = notice === "";
  text.disabled = !known;
  text.placeholder = known ? `Message to ${title(current)}` : "Nobody to write to yet";
  text.setAttribute("aria-label", text.placeholder);
  submit.disabled = !known || text.value.trim() === "";
}

/** @param {ReturnType<typeof conversations>} all */
function renderPeople(all) {
  const focused = document.activeElement?.closest("[data-name]")?.getAttribute("data-name");
  $("people").parentElement?.classList.toggle("one", all.length < 2);
  const items = all.map(({ name, last, unread }) => {
    const said = last ? `${last.state ? "You: " : ""}${last.text}` : "No messages yet";
    const button = make("button", "", avatar(make("span", "avatar"), name), make("span", "name", title(name)), make("span", "last", said));
    button.setAttribute("type", "button");
    button.dataset.name = name;
    if (unread) {
      const count = make("span", "count", String(unread), make("span", "hidden", " unread"));
      button.append(count);
    }
    button.addEventListener("click", () => talkTo(name));
    const item = make("li", "", button);
    item.setAttribute("aria-current", String(name === current));
    return item;
  });
  $("people").replaceChildren(...items);
  $("nobody").hidden = items.length > 0;
  if (focused) /** @type {HTMLElement | null} */ ($("people").querySelector(`[data-name="${CSS.escape(focused)}"]`))?.focus();
}

/** @param {string} name */
function talkTo(name) {
  drafts.set(current, text.value);
  current = name;
  text.value = drafts.get(name) ?? "";
  typingUntil = 0;
  atEnd = true;
  $("typing").hidden = true;
  $("messages").replaceChildren();
  shown.clear();
  render();
  text.focus();
}

function renderChat() {
  const person = messenger.people.get(current);
  put($("name"), current ? title(current) : "Nobody yet");
  if (current) avatar($("avatar"), current);
  $("avatar").hidden = current === "";
  if (person) void fingerprint(person.card).then((print) => put($("about"), `Their key: ${print}`));
  else put($("about"), current ? "Their key is unknown" : "Waiting for somebody to open their link");
  const messages = messenger.messages.filter(({ person }) => person === current);
  $("empty").hidden = messages.length > 0;
  put($("empty-title"), current ? `Only you and ${title(current)} can read this` : "Nobody else is here yet");
  const hint = current ? "Messages are sealed before they leave this window." : "Open the other link in a second window.";
  put($("empty-text"), hint);
  const fresh = shown.size > 0;
  let before;
  let added = false;
  for (const message of messages) {
    added = showMessage(message, before, fresh) || added;
    before = message;
  }
  if (added && messages.at(-1)?.state) atEnd = true;
  stay();
}

/**
 * Shows it, or what has changed of it; tells whether it is new.
 * @param {Message} message
 * @param {Message | undefined} before
 * @param {boolean} fresh Whether it has come while one looks.
 */
function showMessage(message, before, fresh) {
  const key = String(message.number);
  const known = shown.get(key);
  if (known) {
    if (known.message.state !== message.state) fill(known.element, message);
    known.message = message;
    return false;
  }
  if (day(message.at) !== (before && day(before.at))) $("messages").append(make("li", "day", day(message.at)));
  const together = before && !before.state === !message.state && message.at - before.at < TOGETHER_MS;
  const element = make("li", [message.state ? "mine" : "theirs", together ? "follows" : "", fresh ? "new" : ""].join(" ").trim());
  fill(element, message);
  $("messages").append(element);
  shown.set(key, { element, message });
  if (!message.state) $("typing").hidden = true;
  return true;
}

/** @param {HTMLElement} element @param {Message} message */
function fill(element, message) {
  const meta = make("span", "meta", clock(message.at));
  if (message.state) {
    const { icon: name, text: said } = STATES[message.state];
    element.dataset.state = message.state;
    meta.append(` · ${said}`, icon(name));
  } else if (!message.known) meta.append(make("span", "doubt", "unknown key"));
  const who = make("span", "hidden", `${message.state ? "You" : title(message.person)}: `);
  element.replaceChildren(make("span", "bubble", who, message.text), meta);
}

/** @param {string} person */
function showTyping(person) {
  if (person !== current) return;
  typingUntil = Date.now() + TYPING_MS;
  $("typing").hidden = false;
  put($("typing-text"), `${title(person)} is typing`);
  stay();
  setTimeout(() => {
    if (Date.now() >= typingUntil) $("typing").hidden = true;
  }, TYPING_MS);
}

/** Keeps the last message in sight, unless one has scrolled away from it. */
function stay() {
  if (atEnd) $("scroll").scrollTop = $("scroll").scrollHeight;
}

/** @param {Seen} seen */
function showSeen(seen) {
  $("nothing").hidden = true;
  const id = `${seen.way}-${seen.key}`;
  const known = document.getElementById(id);
  const element = known ?? make("li", "");
  const { envelope } = seen;
  const way = make("b", "", seen.way === "out" ? "↑ In from you" : "↓ Out to you");
  const kind = envelope.isEphemeral ? " · ephemeral" : "";
  const addressee = make("p", "for", make("span", "", "for "), make("b", "known", envelope.recipientId), make("span", "", kind));
  const parts = [envelope.encryptedData, envelope.encryptedSymmetricKey, envelope.signature].map((part) => bytes(part ?? ""));
  const [data, key, signature] = parts.map((part) => part.length);
  const sizes = make("p", "sizes", "sealed ", make("span", "known", `${data} B`), `, ephemeral key ${key} B, signature ${signature} B`);
  const became = make("p", seen.done ? "became done" : "became", seen.became);
  if (seen.way === "out") {
    const tries = seen.tries > 1 ? make("span", "tries", ` · ${seen.tries} tries`) : "";
    became.append(make("span", "", ` · key ${seen.key.slice(0, 8)}`), tries);
  }
  const open = element.querySelector("details")?.open ?? false;
  const sealed = parts[0] ?? new Uint8Array();
  const more = sealed.slice(SHOWN_BYTES);
  const rest = make("details", "", make("summary", "", `the other ${more.length} bytes`), make("pre", "", hex(more)));
  rest.hidden = more.length === 0;
  /** @type {HTMLDetailsElement} */ (rest).open = open;
  const first = make("pre", "", hex(sealed.slice(0, SHOWN_BYTES)));
  element.id = id;
  element.replaceChildren(make("p", "top", way, clock(seen.at, true)), addressee, first, rest, sizes, became);
  if (!known) $("seen").prepend(element);
}

/** @param {Uint8Array} data */
function hex(data, between = " ") {
  return Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join(between);
}

/** What two people compare, who want to be sure. @param {Uint8Array<ArrayBuffer>} card */
async function fingerprint(card) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", card));
  return hex(digest.slice(0, 8), "").replace(/(.{4})(?!$)/g, "$1 ");
}

/** @param {string} name @param {string} classes @param {Array<Node | string>} children */
function make(name, classes, ...children) {
  const element = document.createElement(name);
  if (classes) element.className = classes;
  element.append(...children);
  return element;
}

/** @param {string} name */
function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** @param {HTMLElement} element @param {string} name */
function avatar(element, name) {
  const hue = [...name].reduce((sum, letter) => sum * 31 + letter.charCodeAt(0), 7) % 360;
  element.style.setProperty("--face", `hsl(${hue} 70% 50%)`);
  put(element, name.slice(0, 1));
  element.setAttribute("aria-hidden", "true");
  return element;
}

/** A reader of the screen tells of each change, so there is none without need. @param {HTMLElement} element @param {string} said */
function put(element, said) {
  if (element.textContent !== said) element.textContent = said;
}

/** @param {string} name */
function title(name) {
  return name.slice(0, 1).toUpperCase() + name.slice(1);
}

/** @param {number} at @param {boolean} [seconds] */
function clock(at, seconds = false) {
  return new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", ...(seconds && { second: "2-digit" }) });
}

/** @param {number} at */
function day(at) {
  const date = new Date(at);
  if (date.toDateString() === new Date().toDateString()) return "Today";
  return date.toLocaleDateString([], { weekday: "long", day: "numeric", month: "long" });
}

/** @param {boolean} open The sheet of a phone; elsewhere it is always there. */
function look(open) {
  $("server").classList.toggle("open", open);
  $("look").setAttribute("aria-expanded", String(open));
  (open ? $("unlook") : text).focus();
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const said = text.value.trim();
  if (!said || text.disabled) return;
  text.value = "";
  submit.disabled = true;
  messenger.write(current, said).catch((error) => {
    text.value = [said, text.value].join("\n").trim();
    put($("notice"), `That could not be kept: ${error instanceof Error ? error.message : error}`);
    $("notice").hidden = false;
  });
});
text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  /** @type {HTMLFormElement} */ ($("composer")).requestSubmit();
});
text.addEventListener("input", () => {
  submit.disabled = text.disabled || text.value.trim() === "";
  if (text.value.trim()) void messenger.typing(current);
});
$("scroll").addEventListener("scroll", () => {
  const { scrollHeight, scrollTop, clientHeight } = $("scroll");
  atEnd = scrollHeight - scrollTop - clientHeight < 80;
});
new ResizeObserver(stay).observe($("scroll"));
online.addEventListener("change", () => messenger.setOnline(online.checked));
$("look").addEventListener("click", () => look(true));
$("unlook").addEventListener("click", () => look(false));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && $("server").classList.contains("open")) look(false);
});
addEventListener("focus", () => messenger && void messenger.markRead(current));

void main();
