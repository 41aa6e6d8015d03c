/** Whether the sources of secrets that a file names give one, asked as serving asks them. */
import { asError, messageOf } from "../../errors.ts";
import type { PluginDeps } from "../../pipeline/plugin.ts";
import { type NamedSource, SecretSet } from "../../plugins/credentials/secret-set.ts";
import type { SecretSource } from "../../secrets/secret-source.ts";
import { type Finding, fail, pass, skip } from "./report.ts";

interface SecretCheck {
  readonly name: string;
  run(this: void, signal: AbortSignal): Promise<Finding | readonly Finding[]>;
}

/** One check for each source. */
export function secretChecks({
  instance,
  sources: named,
  deps,
}: {
  readonly instance: string;
  readonly sources: readonly NamedSource[];
  readonly deps: PluginDeps;
}): SecretCheck[] {
  const sources = new SecretSet(named, deps);
  return named.map(({ key, config: { type } }) => ({
    name: "secret",
    run: async (signal) => {
      const source = sources.get(key);
      if (source === undefined) return [];
      if (type === "oauth_refresh_token")
        return skip(`${instance}: ${source.name}: not asked, as that may use the token up`);
      return tried(instance, source, signal);
    },
  }));
}

async function tried(
  instance: string,
  source: SecretSource,
  signal: AbortSignal,
): Promise<Finding> {
  const what = `${instance}: ${source.name}`;
  try {
    const { expiresAt } = await source.current(signal);
    const end = expiresAt === undefined ? "" : `, expires ${new Date(expiresAt).toISOString()}`;
    return pass(`${what} has a value${end}`);
  } catch (error) {
    const why = messageOf(asError(error).cause ?? error);
    return fail(`${what}: ${why}`, "see to the source, or to its keys");
  }
}
