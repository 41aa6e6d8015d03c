/** Every reader of bytes that others send, by name: a process loads those of one file, so that looking at what ran is quick. */
import type { Target } from "./target.ts";

const files: Readonly<Record<string, readonly string[]>> = {
  wire: ["requests", "responses"],
  "first-bytes": ["client-hello", "first-line"],
  streams: ["event-stream", "aws-event-stream", "json-lines", "web-socket"],
  documents: ["json", "policy-file", "config-file", "graphql", "content-coding"],
  tokens: ["jwt", "key-set", "token-response"],
  names: ["absolute-target", "authority", "path", "query", "identifiers"],
  binary: ["tar-bundle", "der", "workload-messages", "socket-addresses"],
  proxies: ["socks-client", "parent-connect", "parent-socks5"],
  leaks: ["leaks"],
};

export const targetNames: readonly string[] = Object.values(files).flat();

/** The target of this name. */
export async function loadTarget(name: string): Promise<Target> {
  const [file] = Object.entries(files).find(([, names]) => names.includes(name)) ?? [];
  const module = (await import(`./${file}.ts`)) as { readonly targets: readonly Target[] };
  const target = module.targets.find((one) => one.name === name);
  if (target === undefined) throw new RangeError(`there is no target ${name}`);
  return target;
}
