/** What tests replace. Times are in seconds. */
export interface Clock {
  now(): number;
  /** Rejects as soon as `signal` is aborted. */
  sleep(seconds: number, signal?: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  now: () => Date.now() / 1000,
  sleep: (seconds, signal) =>
    new Promise((resolve, reject) => {
      const end = () => {
        clearTimeout(timer);
        reject(reasonOf(signal));
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener("abort", end);
        resolve();
      }, seconds * 1000);
      if (signal?.aborted) end();
      else signal?.addEventListener("abort", end, { once: true });
    }),
};

/** What a listener that ends is ended with. */
export class Stopped extends Error {
  override name = "AbortError";
}

/** Why it was aborted; React Native does not tell. */
export function reasonOf(signal: AbortSignal | undefined): unknown {
  return signal?.reason ?? new Stopped("stopped");
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw reasonOf(signal);
}

/** Seconds to wait after the failure of this number (from 1): exponential, with full jitter, never zero. */
export function backoff(failures: number, first: number, longest: number): number {
  return between(first / 10, Math.min(longest, first * 2 ** Math.min(failures - 1, 20)));
}

export function between(least: number, most: number): number {
  return least + Math.random() * (most - least);
}
