/** Of one refusal: the rule that would have let it through, for whoever reads the response. */
import { DenialAggregate, type Denial } from "./aggregate.ts";
import { suggest } from "./suggest.ts";

/** What the policy lacks; absent members are not asked for. */
export interface MissingRule {
  /** The entry that is there already, and the endpoint in it. */
  readonly entry?: string;
  readonly endpoint?: string;
  readonly host: string;
  readonly port: number;
  readonly method?: string;
  readonly path?: string;
  readonly binary?: string;
}

/** Undefined where no addition to a policy would change the verdict. */
export function missingRule(denial: Denial): MissingRule | undefined {
  const aggregate = new DenialAggregate({ maxSummaries: 1, maxSamples: 1 });
  aggregate.record(denial, 0);
  const { entries, rules, items } = suggest(aggregate.summaries());
  const { host, port } = denial;
  const [entry] = entries;
  if (entry !== undefined) {
    const binary = entry.binaries[0]?.path;
    return {
      ...(entry.isNew ? {} : { entry: entry.key }),
      host,
      port,
      ...askedBy(entry.endpoints[0]?.rules[0]),
      ...(binary === undefined ? {} : { binary }),
    };
  }
  const [known] = rules;
  if (known !== undefined) {
    const { entry: key, endpoint } = known;
    return { entry: key, endpoint, host, port, ...askedBy(known.rules[0]) };
  }
  const item = items[0]?.rules[0];
  return item === undefined ? undefined : { host, port, ...askedBy(item) };
}

function askedBy(rule?: {
  readonly method: string;
  readonly path: string;
}): Pick<MissingRule, "method" | "path"> {
  return rule === undefined ? {} : { method: rule.method, path: rule.path };
}

/** The commands of an operator that add it: to a policy, and for one run. */
export function commandsFor({ host, port }: Pick<MissingRule, "host" | "port">): {
  readonly rule: string;
  readonly once: string;
} {
  const place = `${host.includes(":") ? `[${host}]` : host}:${port}`;
  return {
    rule: "authbridge-proxy policy suggest --config FILE",
    once: `authbridge-proxy run --allow ${place} -- COMMAND`,
  };
}
