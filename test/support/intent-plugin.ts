/** A plugin that writes down what it is told of the user's intent, loaded through `plugin_modules`. */
import { definePlugin, observe } from "../../src/pipeline/plugin.ts";

export const plugins = [
  definePlugin({
    name: "intent-reader",
    description: "Tells the user's intent in its record",
    create: (_config, deps) => ({
      onRequest: (context) => {
        const intent = deps.sessions?.intentOf(context);
        return observe("intent", { text: intent?.text ?? "", session: intent?.sessionId ?? "" });
      },
    }),
  }),
];
