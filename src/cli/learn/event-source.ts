/** Where events come from: files in the forms that this program writes, or the session API of a proxy. */
import { ProxyError } from "../../errors.ts";
import { bytesOf, unreadable } from "../../files/given-file.ts";
import { isObject, parseJsonObject } from "../../http/json-access.ts";
import { linesIn } from "../../receipts/lines.ts";
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
    const source = bytesOf(path);
    const { chunks, isWhole } = await beginningOf(source);
    const whole = isWhole ? eventsOf(Buffer.concat(chunks).toString()) : undefined;
    if (whole !== undefined) {
      for (const event of whole) traffic.hear(event);
      return;
    }
    let heard = 0;
    for await (const line of linesIn(chained(chunks, source), path)) {
      const event = parseJsonObject(line.toString());
      if (event === undefined || !(isObject(event["event"]) || "requestId" in event)) continue;
      traffic.hear(event);
      heard += 1;
    }
    if (heard > 0) return;
  } catch (error) {
    throw unreadable(path, error);
  }
  throw new ProxyError(
    "config.invalid",
    `${path}: there is no session event in it (session.persist or tail --json writes them)`,
  );
}

/** As much as could be a whole answer: a pipe cannot be read twice. */
async function beginningOf(
  source: AsyncGenerator<Buffer>,
): Promise<{ readonly chunks: readonly Buffer[]; readonly isWhole: boolean }> {
  const chunks: Buffer[] = [];
  for (let length = 0; length <= maxWholeBytes; length += chunks.at(-1)?.length ?? 0) {
    const next = await source.next();
    if (next.done === true) return { chunks, isWhole: true };
    chunks.push(next.value);
  }
  return { chunks, isWhole: false };
}

async function* chained(
  first: readonly Buffer[],
  rest: AsyncGenerator<Buffer>,
): AsyncGenerator<Buffer> {
  yield* first;
  yield* rest;
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
