/** One bug on purpose, to show that a soak would find it: a plugin that loses, alters, leaks or lets a promise fail. */
import { openSync } from "node:fs";
import { threadId } from "node:worker_threads";
import { z } from "zod";
import { deny, definePlugin, modify, observe, type Plugin } from "../../src/pipeline/plugin.ts";

const every = 97;
const kept: Buffer[] = [];
const entries = new Map<number, number>();
let count = 0;
const isDue = (): boolean => {
  count += 1;
  return count % every === 0;
};

function bug(kind: string): Plugin {
  switch (kind) {
    case "lost":
      return {
        onRequest: () =>
          isDue()
            ? deny("seeded", { code: "policy.forbidden", message: "lost on purpose" })
            : observe("seeded"),
      };
    case "byte":
      return {
        onResponse: ({ response }) => {
          const body = response?.body;
          if (body === undefined || body.length === 0 || !isDue()) return observe("seeded");
          const altered = Buffer.from(body);
          altered[0] = (altered[0] ?? 0) ^ 1;
          response?.setBody(altered);
          return modify("seeded");
        },
      };
    case "rejection":
      return {
        onRequest: () => {
          if (isDue()) void Promise.reject(new Error("seeded"));
          return observe("seeded");
        },
      };
    case "uncounted":
      return {
        onResponse: ({ response }) => {
          if (response === undefined || !isDue()) return observe("seeded");
          response.status = 503;
          return modify("seeded");
        },
      };
    default:
      return {
        onRequest: () => {
          if (isDue()) leaks[kind]?.();
          return observe("seeded");
        },
      };
  }
}

const leaks: Readonly<Record<string, () => void>> = {
  memory: () => void kept.push(Buffer.alloc(8_388_608, count % 256)),
  descriptor: () => void openSync("/dev/null", "r"),
  timer: () => {
    for (let at = 0; at < 4; at += 1) setTimeout(() => undefined, 86_400_000).unref();
  },
  map: () => {
    for (let at = 0; at < every; at += 1) entries.set(count + at, at);
  },
};

const shape = { description: "A bug of a soak", config: z.strictObject({ bug: z.string() }) };

export const plugins = [
  definePlugin({
    ...shape,
    name: "seeded-bug",
    create: ({ bug: kind }) => bug(kind),
  }),
  definePlugin({
    ...shape,
    name: "seeded-byte",
    body: { response: "write" },
    create: () => bug("byte"),
  }),
  definePlugin({
    name: "soak-thread",
    description: "Says which thread has served, and ends it when it is asked to",
    config: z.strictObject({}),
    create: () => ({
      onRequest: ({ path }) => {
        if (path === "/thread-ends") process.exit(1);
        return observe("soak");
      },
      onResponse: ({ response }) => {
        response?.headers.set("X-Thread", String(threadId));
        return modify("soak");
      },
    }),
  }),
];
