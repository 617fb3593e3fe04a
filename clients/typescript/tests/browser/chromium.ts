// What the tests in Chromium share. tests/clients hands in which it is, as CHROMIUM.
import type { TestContext } from "node:test";
import { chromium, type Browser } from "playwright-core";

/** A router may be away for a while, and these machines are slow. */
export const PATIENCE_MS = 120_000;

export async function launch(t: TestContext): Promise<Browser> {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM! });
  t.after(() => browser.close());
  return browser;
}

/** The same numbers from 0 to 1 for the same seed. */
export function chance(seed: number): () => number {
  return () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
}
