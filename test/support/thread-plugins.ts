/** Plugins that know in which thread they are. */
import { isMainThread, threadId } from "node:worker_threads";
import { z } from "zod";
import { allow, definePlugin, respond } from "../../src/pipeline/plugin.ts";

/**
 * Answers with its thread, ends it at /exit (or at /exit/N, where it is that one), and marks the responses of origins (/pass) with its
 * thread and word.
 */
const thread = definePlugin({
  name: "thread",
  description: "Shows and ends threads",
  config: z.strictObject({
    word: z.string().default(""),
    /** Only the instance of one thread fails to start. */
    failsInOne: z.boolean().default(false),
  }),
  create: ({ word, failsInOne }, { shared, isAlone }) => ({
    start: () => {
      // Numbers of threads grow: of two that begin together, one is even.
      const isMeant = failsInOne && threadId % 2 === 0;
      return isMeant ? Promise.reject(new Error("not in this one")) : Promise.resolve();
    },
    onRequest: async ({ path }) => {
      if (path === "/exit" || path === `/exit/${threadId}`) process.exit(7);
      if (path.startsWith("/pass")) return allow("passed");
      const { values } = await shared.add([{ key: "thread seen", by: 1 }]);
      const [count] = values;
      const body = { thread: threadId, isMainThread, isAlone, word, count };
      return respond("shown", {
        status: 200,
        headers: { "Content-Type": "application/json", Connection: "close" },
        body: Buffer.from(JSON.stringify(body)),
      });
    },
    onResponse: ({ response }) => {
      response?.headers.set("x-thread", String(threadId));
      response?.headers.set("x-word", word);
      return undefined;
    },
  }),
});

/** What only one thread can do. */
const alone = definePlugin({
  name: "alone",
  description: "Refuses to be one of several",
  needsOneThread: () => "it is by itself",
  create: () => ({}),
});

/** Keeps /pass/held until its client leaves. */
const holding = definePlugin({
  name: "holding",
  description: "Keeps requests back",
  create: () => ({
    onRequest: async ({ path, signal }) => {
      if (path === "/pass/held") {
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
      }
      return allow("passed");
    },
  }),
});

export const plugins = [thread, alone, holding];
