// What examples/sealed_sender does, by WebCrypto: the command line opens what a page seals, and the other way round.
//
// For each message an ephemeral X25519 key agrees with the recipient's; HKDF-SHA256 makes of that the key of AES-256-GCM.
// The sender's name, public keys and text are inside. The signature over everything outside is made by the sender's
// Ed25519 key, which only the recipient learns: to the router it is 64 bytes like any others.

/** @import { SecureEnvelope } from "/client/index.js" */

/**
 * A person's private keys, which cannot leave the browser, and the card that others need to write to them and know them by:
 * both public keys.
 * @typedef {{ agree: CryptoKey, sign: CryptoKey, card: Uint8Array<ArrayBuffer> }} Keys
 */

/**
 * What is sealed. `from`, `card` and `text` are all that the command line reads; a page adds the others.
 * @typedef {object} Inside
 * @property {string} from The sender's name.
 * @property {string} text
 * @property {string} [id] The sender's own id of the message, by which it is received once.
 * @property {number} [at] When it was written, in ms since 1970.
 * @property {string[]} [received] Ids that have arrived: this is a receipt.
 * @property {boolean} [typing]
 */

const CONTEXT = utf8("sealed-sender-example-1");
const NONCE_BYTES = 12;
const CARD_BYTES = 64;

/** The envelope was not sealed for this person by whom it says. */
export class NotGenuine extends Error {
  name = "NotGenuine";
}

/** @returns {Promise<Keys>} */
export async function makeKeys() {
  const agree = /** @type {CryptoKeyPair} */ (await crypto.subtle.generateKey({ name: "X25519" }, false, ["deriveBits"]));
  const sign = /** @type {CryptoKeyPair} */ (await crypto.subtle.generateKey({ name: "Ed25519" }, false, ["sign", "verify"]));
  const card = join(await raw(agree.publicKey), await raw(sign.publicKey));
  return { agree: agree.privateKey, sign: sign.privateKey, card };
}

/**
 * @param {Inside} inside
 * @param {Keys} keys The sender's.
 * @param {string} recipientId Their URN.
 * @param {Uint8Array<ArrayBuffer>} card Theirs.
 * @param {Partial<SecureEnvelope>} outside What the router is to know besides.
 * @returns {Promise<SecureEnvelope>}
 */
export async function seal(inside, keys, recipientId, card, outside = {}) {
  const ephemeral = /** @type {CryptoKeyPair} */ (await crypto.subtle.generateKey({ name: "X25519" }, false, ["deriveBits"]));
  const open = await raw(ephemeral.publicKey);
  const key = await sharedKey(ephemeral.privateKey, card.slice(0, 32), open, card, "encrypt");
  const nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
  const bound = join(CONTEXT, utf8(recipientId));
  const text = utf8(JSON.stringify({ ...inside, card: base64(keys.card) }));
  const sealed = join(nonce, await crypto.subtle.encrypt({ name: "AES-GCM", iv: nonce, additionalData: bound }, key, text));
  const signature = await crypto.subtle.sign("Ed25519", keys.sign, join(bound, open, sealed));
  return {
    recipientId,
    encryptedData: base64(sealed),
    encryptedSymmetricKey: base64(open),
    signature: base64(signature),
    ...outside,
  };
}

/**
 * What is inside, and the card of whoever sealed it. Throws `NotGenuine`.
 * @param {SecureEnvelope} envelope
 * @param {Keys} keys The reader's.
 * @returns {Promise<{ inside: Inside, card: Uint8Array<ArrayBuffer> }>}
 */
export async function openSealed(envelope, keys) {
  try {
    const sealed = bytes(envelope.encryptedData ?? "");
    const open = bytes(envelope.encryptedSymmetricKey ?? "");
    const bound = join(CONTEXT, utf8(envelope.recipientId));
    const key = await sharedKey(keys.agree, open, open, keys.card, "decrypt");
    const iv = sealed.slice(0, NONCE_BYTES);
    const text = await crypto.subtle.decrypt({ name: "AES-GCM", iv, additionalData: bound }, key, sealed.slice(NONCE_BYTES));
    const { card: said, ...inside } = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text));
    const card = bytes(said);
    if (card.length !== CARD_BYTES || typeof inside.from !== "string" || typeof inside.text !== "string") throw new TypeError();
    const signer = await crypto.subtle.importKey("raw", card.slice(32), { name: "Ed25519" }, false, ["verify"]);
    const signature = bytes(envelope.signature ?? "");
    if (!(await crypto.subtle.verify("Ed25519", signer, signature, join(bound, open, sealed)))) throw new TypeError();
    return { inside, card };
  } catch (cause) {
    // Whoever sealed it chose what is inside.
    throw new NotGenuine("not sealed for this person, or changed on the way", { cause });
  }
}

/**
 * @param {CryptoKey} own
 * @param {Uint8Array<ArrayBuffer>} other
 * @param {Uint8Array<ArrayBuffer>} open The ephemeral public key, which travels with the message.
 * @param {Uint8Array<ArrayBuffer>} card The recipient's.
 * @param {"encrypt" | "decrypt"} use
 */
async function sharedKey(own, other, open, card, use) {
  const theirs = await crypto.subtle.importKey("raw", other, { name: "X25519" }, false, []);
  const agreed = await crypto.subtle.deriveBits({ name: "X25519", public: theirs }, own, 256);
  const material = await crypto.subtle.importKey("raw", agreed, "HKDF", false, ["deriveKey"]);
  const how = { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(), info: join(CONTEXT, open, card) };
  return await crypto.subtle.deriveKey(how, material, { name: "AES-GCM", length: 256 }, false, [use]);
}

/** @param {CryptoKey} key */
async function raw(key) {
  return new Uint8Array(await crypto.subtle.exportKey("raw", key));
}

/** @param {string} text */
function utf8(text) {
  return new Uint8Array(new TextEncoder().encode(text));
}

/** @param {Array<Uint8Array | ArrayBuffer>} parts */
function join(...parts) {
  const all = parts.map((part) => new Uint8Array(part));
  const joined = new Uint8Array(all.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of all) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** @param {Uint8Array | ArrayBuffer} data */
export function base64(data) {
  return btoa(Array.from(new Uint8Array(data), (byte) => String.fromCharCode(byte)).join(""));
}

/** @param {string} text Base64. Throws where it is none. */
export function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
