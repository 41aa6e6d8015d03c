/**
 * The load generator: a process of its own that reads one JSON command per line on stdin and answers
 * one JSON line each. Raw sockets and just enough parsing to know that an answer is right.
 */
import { createInterface } from "node:readline";

import type { LoadCommand, LoadResult } from "./load/command.ts";
import { httpLoad } from "./load/http-load.ts";
import { bridgeLoad } from "./load/bridge-load.ts";
import { holdLoad, releaseLoad } from "./load/hold-load.ts";
import { bulkLoad, tunnelLoad } from "./load/tunnel-load.ts";
import { announce } from "./ready.ts";

async function perform(command: LoadCommand): Promise<LoadResult> {
  switch (command.mode) {
    case "http":
      return await httpLoad(command);
    case "bridge":
      return await bridgeLoad(command);
    case "tunnels":
      return await tunnelLoad(command);
    case "bulk":
      return await bulkLoad(command);
    case "hold":
      return await holdLoad(command);
    case "release":
      return releaseLoad();
  }
}

announce({});
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line) as LoadCommand;
  const answer = await perform(command).catch((error: unknown) => ({ error: String(error) }));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
