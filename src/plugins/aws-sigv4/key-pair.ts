/** Stand-in keys, and the real ones that take their place. */
import { credentialText, WatchedFile } from "../../files/watched-file.ts";
import type { PluginDeps } from "../../pipeline/plugin.ts";
import { Secret } from "../../secret.ts";
import type { AwsSigv4Config } from "./config.ts";
import { type KeySource, keySourceOf } from "./real-keys.ts";
import { SigningKeys } from "./signing-keys.ts";

/** A stand-in, and the keys that take its place. */
export interface KeyPair {
  readonly id: string;
  /** The stand-in's own keys, where its secret is known. */
  standIn(): SigningKeys | undefined;
  /** Whether the file says that its secret is known. */
  readonly isVerified: boolean;
  /** Why it is not known all the same. */
  problem(): string | undefined;
  readonly source: KeySource;
}

/** The pair that an entry of `keys` describes. */
export function keyPairOf(
  key: AwsSigv4Config["keys"][number],
  deps: PluginDeps,
  timeoutMs: number,
): KeyPair {
  const { access_key_id: id, secret_access_key: secret, secret_access_key_file: path } = key;
  const source = keySourceOf(key.credentials, deps, timeoutMs);
  const pair = { id, source, problem: () => undefined };
  const keysOf = (text: string): SigningKeys => new SigningKeys(id, new Secret(text));
  if (secret !== undefined) {
    const keys = keysOf(secret);
    return { ...pair, isVerified: true, standIn: () => keys };
  }
  if (path === undefined) return { ...pair, isVerified: false, standIn: () => undefined };
  const file = new WatchedFile({
    path,
    clock: deps.clock,
    parse: (text) => keysOf(credentialText(text)),
    onProblem: (problem) => deps.log.warn({ problem }, "file of a stand-in secret not usable"),
  });
  const problem = () => (file.current() === undefined ? file.problem : undefined);
  return { ...pair, isVerified: true, standIn: () => file.current(), problem };
}
