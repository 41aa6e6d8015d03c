/** Where events come from: files in the forms that this program writes, or the session API of a proxy. */
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { createInterface } from "node:readline";
import { messageOf, ProxyError } from "../../errors.ts";
import { isObject, parseJsonObject } from "../../http/json-access.ts";
import { askSessionApi, type SessionApi } from "../session-api.ts";
import type { ObservedTraffic } from "./observed-traffic.ts";

/** A whole answer of the session API is read at once. */
const maxWholeBytes = 64 * 1024 * 1024;

/**
 * Hears a file: lines of `session.persist` or of `tail --json`, or a saved answer of `/v1/sessions/ID`. Rejects where
 * there is no event in it.
 */
export async function hearFile(path: string, traffic: ObservedTraffic): Promise<void> {
  try {
    const isWhole = (await stat(path)).size <= maxWholeBytes;
    const whole = isWhole ? eventsOf(await readFile(path, "utf8")) : undefined;
    if (whole !== undefined) {
      for (const event of whole) traffic.hear(event);
      return;
    }
    let heard = 0;
    const stream = createReadStream(path, { encoding: "utf8" });
    for await (const line of createInterface({ input: stream, crlfDelay: Infinity })) {
      const event = parseJsonObject(line);
      if (event === undefined || !(isObject(event["event"]) || "requestId" in event)) continue;
      traffic.hear(event);
      heard += 1;
    }
    if (heard === 0)
      throw new Error(
        "there is no session event in it (session.persist or tail --json writes them)",
      );
  } catch (error) {
    throw new ProxyError("config.invalid", `${path}: ${messageOf(error)}`);
  }
}

/** Hears every session that a proxy keeps. */
export async function hearApi(api: SessionApi, traffic: ObservedTraffic): Promise<void> {
  const { sessions } = parseJsonObject(await askSessionApi(api, "/v1/sessions")) ?? {};
  if (!Array.isArray(sessions))
    throw new ProxyError("upstream.refused", `${api.url} is no session API`);
  for (const session of sessions as readonly unknown[]) {
    const id = isObject(session) ? session["id"] : undefined;
    if (typeof id !== "string") continue;
    const answer = await askSessionApi(api, `/v1/sessions/${encodeURIComponent(id)}`);
    for (const event of eventsOf(answer) ?? []) traffic.hear(event);
  }
}

/** The events of one answer, or of a list; undefined for other text. */
function eventsOf(text: string): readonly Readonly<Record<string, unknown>>[] | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const events: unknown = isObject(value) ? value["events"] : value;
  return Array.isArray(events) ? events.filter(isObject) : undefined;
}
