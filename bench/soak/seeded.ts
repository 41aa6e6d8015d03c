/** One bug on purpose, to show that a soak would find it: a plugin that loses, alters, leaks or lets a promise fail. */
import { openSync } from "node:fs";
import { z } from "zod";
import { deny, definePlugin, modify, observe, type Plugin } from "../../src/pipeline/plugin.ts";

const every = 97;
const kept: Buffer[] = [];
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
    default:
      return {
        onRequest: () => {
          if (isDue()) {
            kept.push(Buffer.alloc(262_144, count % 256));
            openSync("/dev/null", "r");
          }
          return observe("seeded");
        },
      };
  }
}

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
];
