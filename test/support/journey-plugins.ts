/** Plugins of the journey tests, loaded by path through `plugin_modules`, as an operator's own plugins are. */
import { appendFileSync, existsSync } from "node:fs";
import { z } from "zod";
import {
  allow,
  definePlugin,
  deny,
  modify,
  observe,
  respond,
  skip,
  type Decision,
  type Plugin,
  type RequestContext,
} from "../../src/pipeline/plugin.ts";

const recording = z.strictObject({ file: z.string() });

function note(file: string, line: Readonly<Record<string, unknown>>): void {
  appendFileSync(file, `${JSON.stringify(line)}\n`);
}

/** Writes down every hook of every message and instance. */
function record(instance: string, file: string): Plugin {
  return {
    start: async () => note(file, { instance, hook: "start" }),
    close: () => note(file, { instance, hook: "close" }),
    onRequest: (context) => {
      note(file, {
        instance,
        hook: "request",
        stage: context.stage,
        method: context.method,
        host: context.host,
        path: context.path,
        destination: context.destination.authority,
        scheme: context.destination.scheme,
        authorization: context.headers.get("authorization"),
        body: context.body?.toString("utf8"),
        subject: context.identity?.subject,
        delegation: context.delegation,
      });
      return observe("recorded");
    },
    onResponse: (context) => {
      note(file, {
        instance,
        hook: "response",
        status: context.response?.status,
        body: context.response?.body?.toString("utf8"),
      });
      return observe("recorded");
    },
    onFinish: (context, outcome) =>
      note(file, {
        instance,
        hook: "finish",
        method: context.method,
        path: context.path,
        status: outcome.status,
        deniedBy: outcome.deniedBy,
        code: outcome.error?.code,
      }),
  };
}

const recorder = definePlugin({
  name: "recorder",
  description: "Writes down what it is asked, without bodies",
  config: recording,
  stages: ["connect", "request"],
  create: ({ file }, { instance }) => record(instance, file),
});

const bodyRecorder = definePlugin({
  name: "body-recorder",
  description: "Writes down what it is asked, with both bodies",
  config: recording,
  body: { request: "read", response: "read" },
  create: ({ file }, { instance }) => record(instance, file),
});

const requestBodyReader = definePlugin({
  name: "request-body-reader",
  description: "Reads request bodies only",
  config: recording,
  body: { request: "read" },
  create: ({ file }, { instance }) => record(instance, file),
});

const requestBodyWriter = definePlugin({
  name: "request-body-writer",
  description: "Replaces request bodies",
  config: z.strictObject({ body: z.string() }),
  body: { request: "write" },
  create: ({ body }) => ({
    onRequest: (context) => {
      context.setBody(Buffer.from(body));
      return modify("rewritten");
    },
  }),
});

const responseBodyWriter = definePlugin({
  name: "response-body-writer",
  description: "Replaces response bodies",
  config: z.strictObject({ body: z.string() }),
  body: { response: "write" },
  create: ({ body }) => ({
    onResponse: (context) => {
      context.response?.setBody(Buffer.from(body));
      return modify("rewritten");
    },
  }),
});

const fields = z.strictObject({
  set: z.record(z.string(), z.string()).default({}),
  delete: z.array(z.string()).default([]),
  response_set: z.record(z.string(), z.string()).default({}),
  response_delete: z.array(z.string()).default([]),
});

const headerMutator = definePlugin({
  name: "header-mutator",
  description: "Sets and deletes fields of both halves",
  config: fields,
  create: (config) => ({
    onRequest: ({ headers }) => {
      for (const [name, value] of Object.entries(config.set)) headers.set(name, value);
      for (const name of config.delete) headers.delete(name);
      return modify("fields");
    },
    onResponse: ({ response }) => {
      for (const [name, value] of Object.entries(config.response_set)) {
        response?.headers.set(name, value);
      }
      for (const name of config.response_delete) response?.headers.delete(name);
      return modify("fields");
    },
  }),
});

const denial = z.strictObject({
  phase: z.enum(["request", "response"]).default("request"),
  path: z.string().optional(),
  code: z.string().default("policy.forbidden"),
  message: z.string().default("refused by the test"),
  status: z.number().optional(),
  description: z.string().optional(),
  details: z.record(z.string(), z.unknown()).optional(),
  headers: z.record(z.string(), z.string()).optional(),
});

function refuse(config: z.infer<typeof denial>, context: RequestContext): Decision {
  if (config.path !== undefined && context.pathname !== config.path) return allow("other_path");
  const { code, message, status, description, details, headers } = config;
  return deny("told_to", {
    code,
    message,
    ...(status === undefined ? {} : { status }),
    ...(description === undefined ? {} : { description }),
    ...(details === undefined ? {} : { details }),
    ...(headers === undefined ? {} : { headers }),
  });
}

const denier = definePlugin({
  name: "denier",
  description: "Refuses in the phase it is told, every path or one",
  config: denial,
  create: (config) =>
    config.phase === "request"
      ? { onRequest: (context) => refuse(config, context) }
      : { onResponse: (context) => refuse(config, context) },
});

const connectDenier = definePlugin({
  name: "connect-denier",
  description: "Refuses tunnels to ports or hosts",
  config: z.strictObject({ code: z.string().default("policy.forbidden"), host: z.string() }),
  stages: ["connect"],
  create: ({ code, host }) => ({
    onRequest: (context) =>
      context.destination.host === host
        ? deny("told_to", { code, message: "no tunnel" })
        : allow("other_host"),
  }),
});

const responder = definePlugin({
  name: "responder",
  description: "Answers a path by itself",
  config: z.strictObject({ path: z.string(), status: z.number(), body: z.string() }),
  create: ({ path, status, body }) => ({
    onRequest: (context) =>
      context.pathname === path
        ? respond("told_to", {
            status,
            headers: { "content-type": "text/plain", "x-made-by": "responder" },
            body: Buffer.from(body),
          })
        : allow("other_path"),
  }),
});

const faulty = definePlugin({
  name: "faulty",
  description: "Throws or never answers in the hook it is told",
  config: z.strictObject({
    hook: z.enum(["request", "response", "finish", "start", "close"]),
    /** wait ends when the message is given up; hang never does. */
    how: z.enum(["throw", "hang", "wait"]).default("throw"),
    path: z.string().optional(),
  }),
  create: ({ hook, how, path }) => {
    const fail = (): Promise<never> => {
      if (how === "throw") throw new Error("secret-detail-of-a-fault");
      return new Promise<never>(() => {});
    };
    const inPath = (context: RequestContext): boolean =>
      path === undefined || context.pathname === path;
    return {
      start: async () => (hook === "start" ? fail() : undefined),
      onRequest: (context) => {
        if (hook !== "request" || !inPath(context)) return allow("fine");
        if (how !== "wait") return fail();
        return new Promise((resolve) => {
          context.signal.addEventListener("abort", () => resolve(allow("given_up")), {
            once: true,
          });
        });
      },
      onResponse: (context) => (hook === "response" && inPath(context) ? fail() : allow("fine")),
      onFinish: (context) => (hook === "finish" && inPath(context) ? fail() : undefined),
      close: () => (hook === "close" ? fail() : undefined),
    };
  },
});

const notReady = definePlugin({
  name: "not-ready",
  description: "Is ready once its file exists",
  config: z.strictObject({ until: z.string() }),
  create: ({ until }) => ({
    ready: () => existsSync(until) || "its file is missing",
    onRequest: () => allow("fine"),
  }),
});

const frameReader = definePlugin({
  name: "frame-reader",
  description: "Writes down frames and refuses the one with a word",
  config: z.strictObject({ file: z.string(), refuse: z.string().optional() }),
  body: { response: "read" },
  create: ({ file, refuse: word }, { instance }) => ({
    onFrame: (_context, frame) => {
      const data = frame.data.toString("utf8");
      note(file, { instance, hook: "frame", event: frame.event, data, last: frame.last });
      if (word !== undefined && data.includes(word)) {
        return deny("word", { code: "policy.content-blocked", message: "a word" });
      }
      return observe("frame");
    },
  }),
});

const gate = definePlugin({
  name: "gate",
  description: "Guards the door: passes requests with the right X-Key",
  config: z.strictObject({ key: z.string() }),
  authenticates: true,
  create: ({ key }) => ({
    onRequest: ({ headers }) =>
      headers.get("x-key") === key
        ? allow("key")
        : deny("no_key", { code: "auth.unauthorized", message: "no key" }),
  }),
});

const answerReplacer = definePlugin({
  name: "answer-replacer",
  description: "Answers in place of the origin once its head is there",
  create: () => ({
    onResponse: () =>
      respond("told_to", { status: 299, headers: {}, body: Buffer.from("replaced") }),
  }),
});

const door = definePlugin({
  name: "door",
  description: "Keeps tunnels waiting until its file exists, and says that one waits",
  config: z.strictObject({ until: z.string() }),
  stages: ["connect"],
  create: ({ until }) => ({
    onRequest: async () => {
      note(`${until}.waiting`, {});
      while (!existsSync(until)) await new Promise((resolve) => setTimeout(resolve, 5));
      return allow("open");
    },
  }),
});

const anything = definePlugin({
  name: "anything",
  description: "Takes any configuration",
  config: z.looseObject({}),
  create: () => ({ onRequest: () => allow("fine") }),
});

const pathMutator = definePlugin({
  name: "path-mutator",
  description: "Sends every request to one path",
  config: z.strictObject({ path: z.string() }),
  create: ({ path }) => ({
    onRequest: (context) => {
      context.rewritePath(path);
      return modify("path");
    },
  }),
});

const answerHeader = definePlugin({
  name: "answer-header",
  description: "Sets fields of every answer",
  config: z.strictObject({ set: z.record(z.string(), z.string()) }),
  create: ({ set }) => ({
    onResponse: ({ response }) => {
      for (const [name, value] of Object.entries(set)) response?.headers.set(name, value);
      return modify("answer");
    },
  }),
});

const skipper = definePlugin({
  name: "skipper",
  description: "Has nothing to say",
  create: () => ({ onRequest: () => skip("nothing_to_say") }),
});

/** Whose configuration says that it needs a JWT-SVID, as a client of an identity provider does. */
const identified = definePlugin({
  name: "identified",
  description: "Sends the JWT-SVID of this workload",
  config: z.strictObject({
    identity: z.strictObject({ type: z.literal("spiffe"), jwt_audience: z.string() }),
  }),
  create: ({ identity: { jwt_audience: audience } }, { jwtSvids }) => ({
    ready: () => jwtSvids?.notReady(audience) ?? true,
    onCredential: async (context) => {
      if (jwtSvids === undefined)
        return deny("no_source", { code: "auth.unauthorized", message: "no Workload API" });
      const { token } = await jwtSvids.token(audience);
      context.headers.set("authorization", `Bearer ${token.reveal()}`);
      return modify("identified");
    },
  }),
});

const plain = (name: string, wants: { requires?: string[]; requiresAny?: string[] } = {}) =>
  definePlugin({
    name,
    description: "Passes everything and takes no configuration",
    ...wants,
    create: () => ({ onRequest: () => allow("fine") }),
  });

/** What the program loads. */
export const plugins = [
  recorder,
  bodyRecorder,
  requestBodyReader,
  requestBodyWriter,
  responseBodyWriter,
  headerMutator,
  denier,
  connectDenier,
  responder,
  faulty,
  notReady,
  frameReader,
  gate,
  door,
  answerReplacer,
  anything,
  pathMutator,
  answerHeader,
  skipper,
  identified,
  plain("plain"),
  plain("needs-plain", { requires: ["plain"] }),
  plain("needs-some", { requiresAny: ["plain", "recorder"] }),
];
