/** The secret sources of one plugin instance: made from their configuration, kept over reloads, closed when nothing names them. */
import { hash } from "node:crypto";
import type { SecretConfig, SecretValue } from "./secret-config.ts";
import { type ConfigProblem, PluginConfigError } from "../../pipeline/plugin.ts";
import { OnceForAll } from "../../pipeline/once-for-all.ts";
import { durationMs } from "../../duration.ts";
import { FileSecret, FixedSecret } from "../../secrets/local-secret.ts";
import type { ProviderMeans } from "../../secrets/provider-call.ts";
import { RefreshingSecret } from "../../secrets/refreshing-secret.ts";
import type { SecretSource, SecretWatch } from "../../secrets/secret-source.ts";
import { credentialText, WatchedFile } from "../../files/watched-file.ts";
import { Secret } from "../../secret.ts";
import { ClientIdentity } from "./client-identity.ts";
import { type FetchedConfig, fetcherOf, type SecretDeps } from "./secret-fetchers.ts";

/** A source of the configuration, and the path of its key there. */
export interface NamedSource {
  readonly key: string;
  readonly path: readonly (string | number)[];
  readonly config: SecretConfig;
}

/** The source at this path of the configuration, under its path as the key; none where there is a text, or nothing. */
export function sourceAt(
  path: readonly (string | number)[],
  value: SecretValue | undefined,
): NamedSource[] {
  return typeof value === "object" ? [{ key: path.join("."), path, config: value }] : [];
}

const codec = {
  write: (value: Secret): string => value.reveal(),
  read: (text: string): Secret => new Secret(text),
};

const nested = ["identity", "client_secret"];

/** The client secret that a source asks with, where that comes from a source as well. */
function nestedIn({ path, config }: NamedSource): NamedSource[] {
  const identity = "identity" in config ? config.identity : undefined;
  const [found] = sourceAt([...path, ...nested], identity?.client_secret);
  return found === undefined ? [] : [{ ...found, key: nestedKey(path) }];
}

/** No key of a configuration, and no host that a client may name. */
function nestedKey(path: NamedSource["path"]): string {
  return `\0${path.join(".")}`;
}

/** Sources by key. */
export class SecretSet {
  readonly #deps: SecretDeps;
  readonly #sources = new Map<string, SecretSource>();
  readonly #withdrawals: (() => void)[] = [];

  /** Throws {@link PluginConfigError} for sources that can never work, all of them at once. */
  constructor(named: readonly NamedSource[], deps: SecretDeps) {
    this.#deps = deps;
    const problems: ConfigProblem[] = [];
    for (const { key, path, config } of [...named.flatMap(nestedIn), ...named]) {
      try {
        this.#sources.set(key, this.#open(path, config));
      } catch (error) {
        if (!(error instanceof PluginConfigError)) throw error;
        problems.push(
          ...error.problems.map((problem) => ({ ...problem, path: [...path, ...problem.path] })),
        );
      }
    }
    if (problems.length === 0) return;
    this.close();
    throw new PluginConfigError(problems);
  }

  get(key: string): SecretSource | undefined {
    return this.#sources.get(key);
  }

  values(): Iterable<SecretSource> {
    return this.#sources.values();
  }

  /** Begins to fetch what is not there yet; nobody waits for it. */
  begin(): void {
    for (const source of this.#sources.values()) source.begin();
  }

  ready(): true | string {
    const reasons = [...this.#sources.values()].flatMap((source) => source.notReady() ?? []);
    return reasons[0] ?? true;
  }

  /** Takes back the means of this generation; a source that a newer one uses as well goes on with its own. */
  close(): void {
    for (const withdraw of this.#withdrawals.splice(0)) withdraw();
  }

  #open(path: NamedSource["path"], config: SecretConfig): SecretSource {
    const name = `${path.join(".")} (${config.type})`;
    if (config.type === "env") return environment(name, config.name);
    if (config.type === "file") return this.#file(name, config.path);
    return this.#fetched(name, config, this.#sources.get(nestedKey(path)));
  }

  #file(name: string, path: string): SecretSource {
    const { clock, log } = this.#deps;
    const file = new WatchedFile({
      path,
      clock,
      parse: (text) => new Secret(credentialText(text)),
      onProblem: (problem) => log.warn({ source: name, problem }, "secret file not usable"),
    });
    return new FileSecret(name, file);
  }

  #fetched(name: string, config: FetchedConfig, clientSecret?: SecretSource): SecretSource {
    const { carry, clock, isAlone, shared } = this.#deps;
    // The configuration may hold a secret.
    const place = hash("sha256", JSON.stringify(config), "base64url");
    const identity = "identity" in config ? config.identity : undefined;
    const client =
      identity === undefined
        ? undefined
        : new ClientIdentity(identity, { ...this.#deps, clientSecret });
    const make = fetcherOf(config, this.#deps);
    const source = carry(
      `secret:${place}`,
      () =>
        new RefreshingSecret<Secret, ProviderMeans>({
          name,
          fetcher: make(),
          clock,
          watch: this.#watch(),
          maxWaitMs: durationMs(config.max_wait),
          timeoutMs: durationMs(config.timeout),
          others: isAlone ? undefined : { shared: new OnceForAll(shared, "secret"), key: place },
          codec,
        }),
    );
    this.#withdrawals.push(source.lend(this.#means(config, client)));
    return source;
  }

  #means(config: FetchedConfig, client: ClientIdentity | undefined): ProviderMeans {
    const { fetch: call, jwtSvids: svids } = this.#deps;
    if (config.type === "oauth_refresh_token" && config.client_id !== undefined) {
      const { client_id: clientId } = config;
      return { call, svids, client: () => ({ method: "none", clientId }) };
    }
    if (client === undefined) return { call, svids };
    return { call, svids, client: () => client.authentication() ?? String(client.ready()) };
  }

  /** Says what failed when it begins to, and when the words change; metrics count each time. */
  #watch(): SecretWatch {
    const { log, noteSecret } = this.#deps;
    let failing: string | undefined;
    return {
      fetched: (source, { expiresAt }) => {
        noteSecret(source, { kind: "fetched", expiresAt });
        if (failing !== undefined) log.info({ source }, "secret fetched again");
        failing = undefined;
      },
      failed: (source, problem) => {
        noteSecret(source, { kind: "failed" });
        if (failing !== problem) log.warn({ source, problem }, "secret not fetched");
        failing = problem;
      },
      closed: (source) => noteSecret(source, { kind: "closed" }),
    };
  }
}

function environment(name: string, variable: string): SecretSource {
  const text = process.env[variable]?.trim() ?? "";
  if (text !== "") return new FixedSecret(name, new Secret(text));
  throw new PluginConfigError([
    { path: ["name"], message: `the variable ${variable} is not set, or is empty` },
  ]);
}
