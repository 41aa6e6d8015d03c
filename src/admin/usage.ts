/** `/v1/usage` of the session API: what {@link Usage} counted, in the Go program's shape. */
import { parseDuration } from "../duration.ts";
import {
  maxUsageWindowMs,
  type Usage,
  usageBucketMs,
  type UsageGroup,
  usageGroups,
  type UsageQuery,
} from "../session/usage.ts";
import { failure, json, type AdminReply } from "./server.ts";

const defaultWindowMs = 10 * usageBucketMs;

/** Answers one question; what makes no sense is 400, without repeating it. */
export function usageReply(
  usage: Pick<Usage, "snapshot">,
  parameters: URLSearchParams,
): AdminReply {
  const windowMs = minutes(parameters.get("window"), defaultWindowMs);
  if (windowMs === undefined || windowMs > maxUsageWindowMs) {
    return malformed("window must be a whole number of minutes up to 6h, such as 10m or 1h");
  }
  const resolutionMs = minutes(parameters.get("resolution"), usageBucketMs);
  if (resolutionMs === undefined || resolutionMs > windowMs) {
    return malformed("resolution must be a whole number of minutes up to the window");
  }
  const group = parameters.get("group") ?? "none";
  if (!isGroup(group)) return malformed(`group must be one of ${usageGroups.join(", ")}`);
  const session = parameters.get("session") ?? "";
  const query: UsageQuery = { windowMs, resolutionMs, session, group };
  return json({
    window: goDuration(windowMs),
    bucketSeconds: resolutionMs / 1_000,
    ...(session === "" ? {} : { session }),
    group,
    ...usage.snapshot(query),
  });
}

function minutes(text: string | null, otherwise: number): number | undefined {
  if (text === null || text === "") return otherwise;
  const ms = parseDuration(text);
  return ms === undefined || ms < usageBucketMs || ms % usageBucketMs !== 0 ? undefined : ms;
}

function isGroup(text: string): text is UsageGroup {
  return (usageGroups as readonly string[]).includes(text);
}

/** As Go prints durations: `10m0s`, `1h30m0s`. */
function goDuration(ms: number): string {
  const total = ms / usageBucketMs;
  const hours = Math.floor(total / 60);
  return `${hours === 0 ? "" : `${hours}h`}${total % 60}m0s`;
}

function malformed(message: string): AdminReply {
  return failure(400, "request.malformed", message);
}
