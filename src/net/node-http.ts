/**
 * node:http without what `import` makes of it: that reads every export, among them the getters that load fetch and
 * WebSocket, which cost 30 ms and 13 MB of every start.
 */
import type * as Http from "node:http";

/** The module itself; types come from "node:http". */
export const http: typeof Http = process.getBuiltinModule("node:http");
