import { z } from "zod";
// Outside this repository: from "authbridge-proxy/plugin".
import { definePlugin, modify } from "../../src/pipeline/plugin.ts";

const hello = definePlugin({
  name: "hello",
  description: "Greets the service behind the proxy in the caller's name",
  config: z.strictObject({ greeting: z.string().default("hello") }),
  create: ({ greeting }) => ({
    onRequest(context) {
      const who = context.identity?.subject ?? "somebody";
      context.headers.set("X-Greeting", `${greeting}, ${who}`);
      return modify("greeted", { who });
    },
  }),
});

export const plugins = [hello];
