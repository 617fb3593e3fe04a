export type { CloseCode, ProblemKind, ProblemKinds, QueuedMessage, SecureEnvelope } from "./api.js";
export type { Clock } from "./clock.js";
export { RouterClient } from "./client.js";
export type { ListenOptions, Options, Outcome, Save, Socket, SocketConstructor } from "./client.js";
export { Refused, Unauthorized, Unreachable } from "./errors.js";
