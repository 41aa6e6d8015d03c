/**
 * Signed decisions from outside: of a service that has a secret of ours, or of the buttons of a Slack app.
 *
 * They come to the stats listener, as logouts do: the session API shows traffic and is confined to loopback where TLS is
 * opened. Whoever forwards them forwards this path alone.
 */
import { decidedReply } from "../../admin/approvals.ts";
import { type AdminReply, type AdminRoute, failure } from "../../admin/server.ts";
import type { Decided, Order } from "../../approval/deciding.ts";
import type { Config } from "../../config/presets.ts";
import { parseDuration } from "../../duration.ts";
import { objectOf, objectsOf, parseJsonObject, textOf } from "../../http/json-access.ts";
import type { Logger } from "../../telemetry/log.ts";
import { secretIn } from "./secret-file.ts";
import { isSigned } from "./signature.ts";

const maxName = 64;

/** The route; there is none without `approval.callback`. */
export function callbackRoutes(
  { approval }: Config,
  log: Logger,
  decide: (order: Order) => Promise<Decided>,
): AdminRoute[] {
  const { callback } = approval;
  if (callback === undefined) return [];
  const secret = (path: string | undefined, key: string) =>
    path === undefined ? undefined : secretIn(path, `approval.callback.${key}`, log);
  const own = secret(callback.secret_file, "secret_file");
  const slack = secret(callback.slack_signing_secret_file, "slack_signing_secret_file");
  return [
    {
      path: "/approvals/callback",
      takesForm: true,
      takesRaw: true,
      // The message is signed.
      isOpen: true,
      handle: async ({ raw = "", field = () => undefined }) => {
        const isOurs = isSigned(
          {
            version: "v1",
            timestamp: field("authbridge-timestamp"),
            signature: field("authbridge-signature"),
            body: raw,
          },
          own?.reveal() ?? "",
          Date.now(),
        );
        const isSlack = isSigned(
          {
            version: "v0",
            timestamp: field("x-slack-request-timestamp"),
            signature: field("x-slack-signature"),
            body: raw,
          },
          slack?.reveal() ?? "",
          Date.now(),
        );
        if (!isOurs && !isSlack) return unsigned(log);
        const order = isOurs ? genericOrder(raw) : slackOrder(raw);
        return typeof order === "string"
          ? failure(400, "request.malformed", order)
          : decidedReply(await decide(order));
      },
    },
  ];
}

function unsigned(log: Logger): AdminReply {
  log.warn({}, "a decision came to /approvals/callback that nobody has signed, or not just now");
  return failure(401, "auth.unauthorized", "a signature is needed, over a timestamp of just now");
}

function genericOrder(raw: string): Order | string {
  const value = parseJsonObject(raw);
  if (value === undefined) return "the decision is no JSON object";
  const word = (key: string): string => textOf(value[key]) ?? "";
  const duration = word("duration");
  const durationMs = duration === "" ? undefined : parseDuration(duration);
  if (duration !== "" && durationMs === undefined) return 'duration must be one such as "15m"';
  return {
    id: word("id"),
    decision: word("decision"),
    scope: word("scope"),
    durationMs,
    reason: word("reason"),
    by: named("callback", word("by")),
  };
}

/** An interaction of Slack (`block_actions`): a form with one field. */
function slackOrder(raw: string): Order | string {
  const payload = parseJsonObject(new URLSearchParams(raw).get("payload") ?? "");
  const [action] = objectsOf(payload?.["actions"]);
  if (payload?.["type"] !== "block_actions" || action === undefined)
    return "the payload is no press of a button";
  const user = objectOf(payload["user"]);
  return {
    id: textOf(action["value"]) ?? "",
    decision: textOf(action["action_id"]) ?? "",
    scope: "",
    durationMs: undefined,
    reason: "",
    by: named("slack", textOf(user["username"]) ?? textOf(user["id"]) ?? ""),
  };
}

/** Never the name of an operator of the file. */
function named(source: string, name: string): string {
  const shown = name.replaceAll(/[^\w.@-]/g, "").slice(0, maxName);
  return shown === "" ? source : `${source}:${shown}`;
}
