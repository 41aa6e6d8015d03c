/** The kill switch for operators: what is stopped, stopping and releasing. */
import type { Kill } from "../pipeline/kill-switch.ts";
import { type AdminReply, type AdminRoute, failure, json } from "./server.ts";

/** What an order came to; undefined where it could not be followed. */
export interface KillReply {
  readonly kills: readonly Kill[];
  readonly cut: number;
  /** From the order until every thread forwarded nothing of it, and had cut its clients. */
  readonly tookMs: number;
  readonly isKept: boolean;
  readonly isTold: boolean | undefined;
}

/** Where the routes look, and whom they tell. */
export interface KillSources {
  /** Without a secret nobody is listened to. */
  readonly hasSecret: boolean;
  kills(): readonly Kill[];
  /** A text says what is wrong with the order. */
  read(scope: string, value: string): Pick<Kill, "scope" | "value"> | string;
  kill(kill: Omit<Kill, "at">): Promise<KillReply | undefined>;
  release(kill: Pick<Kill, "scope" | "value">): Promise<KillReply | undefined>;
}

const maxReasonLength = 200;

/** GET /v1/kills, POST /v1/kill and POST /v1/kill/release. */
export function killRoutes(sources: KillSources): AdminRoute[] {
  const route = (
    path: string,
    follow: (order: Omit<Kill, "at">) => Promise<AdminReply>,
  ): AdminRoute => ({
    path,
    takesForm: true,
    takesJson: true,
    handle: async ({ form = new URLSearchParams() }) => {
      if (!sources.hasSecret)
        return failure(
          403,
          "auth.unauthorized",
          "nothing is stopped without a secret: set session.api_secret_file",
        );
      const order = orderOf(form, sources);
      return typeof order === "string" ? failure(400, "request.malformed", order) : follow(order);
    },
  });
  return [
    { path: "/v1/kills", handle: () => json({ kills: sources.kills().map(shown) }) },
    route("/v1/kill", async (order) => {
      const reply = await sources.kill(order);
      return reply === undefined
        ? failure(
            409,
            "proxy.overloaded",
            "too many things are stopped already: release some, or stop all",
          )
        : json(outcome(reply));
    }),
    route("/v1/kill/release", async (order) => {
      const reply = await sources.release(order);
      return reply === undefined
        ? failure(404, "request.not-found", "that is not stopped")
        : json(outcome(reply));
    }),
  ];
}

/** `scope` with `value`, or the scope as the name of the field: `all=true`, `caller=NAME`. */
function orderOf(form: URLSearchParams, sources: KillSources): Omit<Kill, "at"> | string {
  const known = ["scope", "value", "all", "caller", "session", "destination", "reason"];
  const other = [...form.keys()].find(
    (name, at, all) => !known.includes(name) || all.indexOf(name) !== at,
  );
  if (other !== undefined)
    return `${JSON.stringify(other.slice(0, 32))} is unknown, or there twice`;
  const named = ["all", "caller", "session", "destination"].filter((name) => form.has(name));
  const [scope = form.get("scope") ?? ""] = named;
  if (named.length + Number(form.has("scope")) !== 1)
    return "say what is meant by one of: scope=all, caller=NAME, session=ID, destination=HOST";
  const isAll = scope === "all" && ["", "true", "1", "yes"].includes(form.get("all") ?? "");
  const value = form.has("scope")
    ? (form.get("value") ?? "")
    : isAll
      ? ""
      : (form.get(scope) ?? "");
  const read = sources.read(scope, value);
  if (typeof read === "string") return read;
  // One line: it stands in a file, and in a response.
  const reason = (form.get("reason") ?? "")
    .replaceAll(/[\p{Cc}\u2028\u2029]+/gu, " ")
    .trim()
    .slice(0, maxReasonLength);
  return { ...read, ...(reason === "" ? {} : { reason }) };
}

function shown({ scope, value, reason, at }: Kill): object {
  return {
    scope,
    ...(value === "" ? {} : { value }),
    ...(reason === undefined ? {} : { reason }),
    since: new Date(at).toISOString(),
  };
}

function outcome({ kills, cut, tookMs, isKept, isTold }: KillReply): object {
  return {
    kills: kills.map(shown),
    cut,
    tookMs: Math.round(tookMs * 10) / 10,
    survivesRestart: isKept,
    ...(isTold === undefined ? {} : { replicasTold: isTold }),
  };
}
