/** Keys that the sources of secrets share. */
import { z } from "zod";
import { duration, words } from "../config-values.ts";

/** How long a source is waited for. */
export const waiting = {
  max_wait: duration(1, 60_000)
    .default("5s")
    .describe("How long a request waits at most while there is no value yet; 503 then."),
  timeout: duration(100, 300_000)
    .default("10s")
    .describe("How long one fetch takes at most, with all its calls."),
};

/** Scopes of a token. */
export const scopes = z.array(words()).max(100);
