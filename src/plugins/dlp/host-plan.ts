/** What is looked for in messages of one destination, and what follows. */
import { BoundedMap } from "../../bounded-map.ts";
import type { Finding } from "../../dlp/detectors.ts";
import type { Wanted } from "../../dlp/scanner-options.ts";
import { HostMatcher } from "../../pattern/host-pattern.ts";
import { type DlpConfig, expanded } from "./config.ts";

type Action = DlpConfig["default"]["action"];

/** The rule that decides about one detector. */
export interface Ruling {
  readonly rule: string;
  readonly action: Exclude<Action, "pass">;
  readonly mask: "label" | "same_length";
}

/** The rulings of one direction by detector. */
export class Side {
  readonly #rulings: ReadonlyMap<string, Ruling>;
  readonly wanted: Wanted;
  /** Something is refused or redacted: what cannot be read must not pass. */
  readonly isEnforced: boolean;

  constructor(rulings: ReadonlyMap<string, Ruling>) {
    this.#rulings = rulings;
    this.wanted = new Set(rulings.keys());
    this.isEnforced = [...rulings.values()].some(({ action }) => action !== "observe");
  }

  get isEmpty(): boolean {
    return this.wanted.size === 0;
  }

  /** Something is replaced by what may have another length. */
  get mayChangeLength(): boolean {
    return [...this.#rulings.values()].some(
      ({ action, mask }) => action === "redact" && mask === "label",
    );
  }

  rulingOf({ detector }: Pick<Finding, "detector">): Ruling | undefined {
    return this.#rulings.get(detector);
  }

  /** Only what is wanted in fields where a client's own credential belongs. */
  get ownOnly(): Wanted {
    return new Set([...this.wanted].filter((name) => name === "own_secrets"));
  }
}

/** Both directions. */
export interface HostPlan {
  readonly request: Side;
  readonly response: Side;
}

const maxHosts = 1_024;

/** Rules by host; what they come to is worked out once for each. */
export class HostPlans {
  readonly #rules: readonly {
    readonly matcher: HostMatcher | undefined;
    readonly name: string;
    readonly rule: DlpConfig["default"];
  }[];
  readonly #known = new BoundedMap<string, HostPlan>(maxHosts);

  constructor(config: DlpConfig) {
    this.#rules = [
      ...config.rules.map(({ hosts, name, ...rule }, index) => ({
        matcher: new HostMatcher(hosts),
        name: name ?? `rules[${index}]`,
        rule,
      })),
      { matcher: undefined, name: "default", rule: config.default },
    ];
  }

  planOf(host: string): HostPlan {
    const known = this.#known.get(host);
    if (known !== undefined) return known;
    const rules = this.#rules.filter(({ matcher }) => matcher?.matches(host) ?? true);
    const plan = {
      request: sideOf(rules.map(({ name, rule }) => ({ name, rule, names: rule.detectors }))),
      response: sideOf(
        rules.map(({ name, rule }) => ({ name, rule, names: rule.response_detectors })),
      ),
    };
    this.#known.set(host, plan);
    return plan;
  }
}

function sideOf(
  rules: readonly {
    readonly name: string;
    readonly rule: DlpConfig["default"];
    readonly names: readonly string[];
  }[],
): Side {
  const rulings = new Map<string, Ruling>();
  const passed = new Set<string>();
  for (const { name, rule, names } of rules) {
    for (const detector of expanded(names)) {
      if (rulings.has(detector) || passed.has(detector)) continue;
      if (rule.action === "pass") passed.add(detector);
      else rulings.set(detector, { rule: name, action: rule.action, mask: rule.mask });
    }
  }
  return new Side(rulings);
}
