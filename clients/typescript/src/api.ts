// The shapes of requests and answers, from docs/openapi.json. Written by `make docs`.

export type SecureEnvelope = {
  /** urn:<namespace>:<type>:<id>, or a bare id, which is read as urn:sm:user:<id>. */
  recipientId: string;
  /** Base64. */
  encryptedData?: string;
  /** Base64. */
  encryptedSymmetricKey?: string;
  /** Base64. */
  signature?: string;
  /** Deliver only if the recipient is online now. */
  isEphemeral?: boolean;
  /** 5 and above take the express lane. */
  priority?: number;
};

export type Accepted = {
  id: string;
};

export type Batch = {
  messages: Array<{
    envelope: SecureEnvelope;
    idempotencyKey?: string;
  }>;
};

export type BatchResults = {
  results: Array<Accepted | {
    error: Problem;
  }>;
};

export type QueuedMessage = {
  id: string;
  envelope: SecureEnvelope;
};

export type QueuedMessageList = {
  messages: Array<QueuedMessage>;
};

export type Acknowledgement = {
  messageIds: Array<string>;
};

export type Next = {
  messageIds?: Array<string>;
  /** At most this many messages; more than 500 is read as 500. */
  limit?: number;
};

export type Problem = {
  type: string;
  title: string;
  status: number;
  detail?: string;
};

export type ProblemKind =
  | "body-too-large"
  | "body-too-slow"
  | "draining"
  | "envelope-too-large"
  | "headers-too-large"
  | "headers-too-slow"
  | "invalid-envelope"
  | "invalid-idempotency-key"
  | "invalid-request"
  | "malformed-request"
  | "origin-not-allowed"
  | "rate-limited"
  | "too-many-connections"
  | "too-much-work"
  | "unauthorized"
  | "unavailable"
  | "unsupported-media-type"
  | "upgrade-required";
