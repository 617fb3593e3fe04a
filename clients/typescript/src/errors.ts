import type { Problem, ProblemKind, ProblemKinds } from "./api.js";

const PREFIX = "urn:sealed-router:problem:";

/** The router refuses the request for good: the same one fails again. */
export class Refused extends Error {
  override name = "Refused";
  readonly status: number;
  /** The stable end of the problem's type; undefined if something else than a router answered. */
  readonly kind: ProblemKind | undefined;

  constructor(problem: Problem) {
    super(`${problem.status}: ${problem.detail ?? problem.title}`);
    this.status = problem.status;
    const known = problem.type.startsWith(PREFIX);
    this.kind = known ? (problem.type.slice(PREFIX.length) as ProblemKind) : undefined;
  }

  /** Whether it has this status, and so one of its kinds. */
  is<S extends keyof ProblemKinds>(status: S): this is Refused & { status: S; kind: ProblemKinds[S] | undefined } {
    return this.status === status;
  }
}

/** The router refuses the token, and the one that was asked for after it. */
export class Unauthorized extends Refused {
  override name = "Unauthorized";
}

/** There was no successful answer within the time budget; `cause` is what went wrong last. */
export class Unreachable extends Error {
  override name = "Unreachable";
}

/** Another try may succeed, after `seconds` at the earliest. */
export class Passing extends Error {
  override name = "Passing";

  constructor(
    message: string,
    readonly seconds = 0,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
