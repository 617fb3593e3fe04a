// The shapes of requests and answers, from docs/openapi.json and docs/asyncapi.json. Written by `make docs`.

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
  /** At most this number of messages, 50 by default; more than 500 is read as 500. */
  limit?: number;
};

export type Problem = {
  type: string;
  title: string;
  status: number;
  detail?: string;
};

/** The ends of the types of problems, by status. */
export type ProblemKinds = {
  400: "invalid-envelope" | "invalid-idempotency-key" | "invalid-request" | "malformed-request";
  401: "unauthorized";
  403: "origin-not-allowed";
  404: "not-found";
  405: "method-not-allowed";
  408: "body-too-slow" | "headers-too-slow";
  413: "body-too-large" | "envelope-too-large";
  415: "unsupported-media-type";
  426: "upgrade-required";
  429: "rate-limited" | "too-many-connections" | "too-much-work";
  431: "headers-too-large";
  500: "internal";
  503: "draining" | "unavailable";
};

export type ProblemKind = ProblemKinds[keyof ProblemKinds];

/** With which a router closes a WebSocket. */
export type CloseCode = 1001 | 1002 | 1007 | 1008 | 1009 | 1011 | 1013 | 4401 | 4409 | 4410;
