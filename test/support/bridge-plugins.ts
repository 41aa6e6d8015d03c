/** Plugins of the bridge's tests, loaded by path through `plugin_modules`. */
import { appendFileSync } from "node:fs";
import { z } from "zod";
import {
  allow,
  type Decision,
  definePlugin,
  deny,
  observe,
  type RequestContext,
} from "../../src/pipeline/plugin.ts";

const recording = z.strictObject({ file: z.string() });

function note(file: string, line: Readonly<Record<string, unknown>>): void {
  appendFileSync(file, `${JSON.stringify(line)}\n`);
}

/** Writes down what the chain is asked, at both stages. */
const witness = definePlugin({
  name: "bridge-witness",
  description: "Writes down every message",
  config: recording,
  stages: ["connect", "request"],
  create: ({ file }) => ({
    onRequest: (context) => {
      note(file, {
        stage: context.stage,
        method: context.method,
        path: context.path,
        host: context.host,
        scheme: context.destination.scheme,
        destination: context.destination.authority,
        transport: context.flow.transport,
        authorization: context.headers.get("authorization"),
      });
      return observe("seen");
    },
  }),
});

/** Default deny: destinations that are not in the list are refused at both stages. */
const onlyHosts = definePlugin({
  name: "only-hosts",
  description: "Passes the hosts in its list and refuses all others",
  config: z.strictObject({ hosts: z.array(z.string()) }),
  stages: ["connect", "request"],
  create: ({ hosts }) => ({
    onRequest: ({ destination }) =>
      hosts.includes(destination.host)
        ? allow("listed")
        : deny("not_listed", {
            code: "policy.forbidden",
            message: `${destination.host} is not in the list`,
          }),
  }),
});

const denial = z.strictObject({
  phase: z.enum(["request", "response"]).default("request"),
  prefix: z.string(),
});

function refuse(prefix: string, context: RequestContext): Decision {
  return context.pathname.startsWith(prefix)
    ? deny("told_to", { code: "policy.forbidden", message: "refused by the test" })
    : allow("other_path");
}

/** Refuses paths that begin with a prefix, before they are sent or when they are answered. */
const denyPaths = definePlugin({
  name: "deny-paths",
  description: "Refuses paths with a prefix",
  config: denial,
  create: ({ phase, prefix }) =>
    phase === "request"
      ? { onRequest: (context) => refuse(prefix, context) }
      : { onResponse: (context) => refuse(prefix, context) },
});

/** Reads every frame of an event stream, and refuses the one with a word. */
const frames = definePlugin({
  name: "bridge-frames",
  description: "Writes down frames and refuses those with a word",
  config: z.strictObject({ file: z.string(), refuse: z.string().optional() }),
  body: { response: "read" },
  create: ({ file, refuse: word }) => ({
    onFrame: (_context, frame) => {
      const data = frame.data.toString("utf8");
      note(file, { frame: data, last: frame.last });
      if (word === undefined || !data.includes(word)) return observe("frame");
      return deny("word", { code: "policy.content-blocked", message: "a word" });
    },
  }),
});

/** Needs the request body in memory, as a parser does. */
const bodies = definePlugin({
  name: "bridge-bodies",
  description: "Writes down request bodies",
  config: recording,
  body: { request: "read" },
  create: ({ file }) => ({
    onRequest: (context) => {
      note(file, { path: context.path, body: context.body?.toString("utf8") });
      return observe("read");
    },
  }),
});

/** What the program loads. */
export const plugins = [witness, onlyHosts, denyPaths, frames, bodies];
