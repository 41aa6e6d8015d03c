/** The keys that AWS takes, wherever they come from: files, STS, or the endpoint of a container. */
import { hash } from "node:crypto";
import { type Clock, passingClock } from "../../duration.ts";
import { messageOf } from "../../errors.ts";
import { credentialText, readSmallFile, WatchedFile } from "../../files/watched-file.ts";
import { parseJsonObject } from "../../http/json-access.ts";
import { OnceForAll } from "../../pipeline/once-for-all.ts";
import type { PluginDeps } from "../../pipeline/plugin.ts";
import { Secret } from "../../secret.ts";
import { fetchedForAll } from "../../secrets/fetched-for-all.ts";
import { type CredentialsConfig, stsUrlOf } from "./config.ts";
import { profileOf } from "./shared-file.ts";
import { SigningKeys } from "./signing-keys.ts";
import { KeysUnavailable, type RealKeys, renewalOf, sharedKeys } from "./temporary-keys.ts";
import { assumedRole, type StsCall } from "./sts.ts";

/** Gives keys; throws, or rejects with, {@link KeysUnavailable}. */
export interface KeySource {
  current(): RealKeys | Promise<RealKeys>;
  /** Undefined while it is not known. */
  problem(): string | undefined;
}

type SourceDeps = Pick<
  PluginDeps,
  "clock" | "log" | "fetch" | "carry" | "count" | "shared" | "isAlone"
>;

/** The source that a configuration describes. */
export function keySourceOf(
  config: CredentialsConfig,
  deps: SourceDeps,
  timeoutMs: number,
): KeySource {
  const base = firstSource(config, deps, timeoutMs);
  const { assume_role: role } = config;
  if (role === undefined) return base;
  return renewed(config, "assume_role", deps, async () => {
    const signedBy = await base.current();
    const call = { url: stsUrlOf(role), fetch: deps.fetch, clock: deps.clock, timeoutMs };
    return assumedRole(call, role, { kind: "keys", ...signedBy });
  });
}

function firstSource(config: CredentialsConfig, deps: SourceDeps, timeoutMs: number): KeySource {
  switch (config.source) {
    case "static":
      return new FileKeys(staticKeys(config, deps));
    case "shared_file":
      return new FileKeys(sharedFile(config, deps));
    case "web_identity": {
      const call: StsCall = {
        url: stsUrlOf(config),
        fetch: deps.fetch,
        clock: deps.clock,
        timeoutMs,
      };
      const path = config.web_identity_token_file ?? "";
      return renewed(config, "web_identity", deps, async () =>
        assumedRole(call, config, { kind: "token", token: credentialOf(path) }),
      );
    }
    case "container":
      return renewed(config, "container", deps, () => containerKeys(config, deps, timeoutMs));
  }
}

/** A value that a file has now, or that never changes. */
interface Part {
  readonly problem: string | undefined;
  current(): RealKeys | undefined;
}

function staticKeys(config: CredentialsConfig, deps: SourceDeps): Part {
  const watched = (path: string): WatchedFile<Secret> =>
    new WatchedFile({
      path,
      clock: deps.clock,
      parse: (text) => new Secret(credentialText(text)),
      onProblem: (problem) => deps.log.warn({ problem }, "file of AWS keys not usable"),
    });
  const fixed = (value: string): { current(): Secret; readonly problem: undefined } => {
    const secret = new Secret(value);
    return { current: () => secret, problem: undefined };
  };
  const { access_key_id: id, secret_access_key: secret, session_token_file: tokenFile } = config;
  const idPart = id === undefined ? watched(config.access_key_id_file ?? "") : fixed(id);
  const secretPart =
    secret === undefined ? watched(config.secret_access_key_file ?? "") : fixed(secret);
  const tokenPart = tokenFile === undefined ? undefined : watched(tokenFile);
  let made: { readonly of: readonly unknown[]; readonly keys: RealKeys } | undefined;
  return {
    get problem() {
      return idPart.problem ?? secretPart.problem ?? tokenPart?.problem;
    },
    current: () => {
      const [ownId, own, token] = [idPart.current(), secretPart.current(), tokenPart?.current()];
      if (ownId === undefined || own === undefined) return undefined;
      if (tokenPart !== undefined && token === undefined) return undefined;
      const of = [ownId, own, token];
      if (made === undefined || made.of.some((part, at) => part !== of[at])) {
        const keys = new SigningKeys(ownId.reveal(), own);
        made = { of, keys: { keys, sessionToken: token, endsAt: undefined } };
      }
      return made.keys;
    },
  };
}

function sharedFile({ file = "", profile = "default" }: CredentialsConfig, deps: SourceDeps): Part {
  return new WatchedFile<RealKeys>({
    path: file,
    clock: deps.clock,
    parse: (text) => {
      const found = profileOf(text, profile);
      return {
        keys: new SigningKeys(found.accessKeyId, found.secret),
        sessionToken: found.sessionToken,
        endsAt: undefined,
      };
    },
    onProblem: (problem) => deps.log.warn({ problem }, "file of AWS keys not usable"),
  });
}

/** Keys of files, as of now. */
class FileKeys implements KeySource {
  readonly #part: Part;

  constructor(part: Part) {
    this.#part = part;
  }

  current(): RealKeys {
    const keys = this.#part.current();
    if (keys === undefined) throw new KeysUnavailable(this.#part.problem ?? "there are no keys");
    return keys;
  }

  problem(): string | undefined {
    return this.#part.current() === undefined ? this.#part.problem : undefined;
  }
}

/** Not used any more: the request has a way to go. */
const tooLateMs = 10_000;
const firstBackOffMs = 1_000;
const maxBackOffMs = 60_000;

/** Temporary keys of one source, over reloads. */
interface HeldKeys {
  value: RealKeys | undefined;
  renewAt: number;
  pending: Promise<RealKeys> | undefined;
  problem: string | undefined;
  failures: number;
  readonly passing: Clock;
  /** No call is made before, by that clock. */
  retryAt: number;
}

function renewed(
  config: CredentialsConfig,
  what: string,
  deps: SourceDeps,
  load: () => Promise<RealKeys>,
): KeySource {
  const key = `${what} ${hash("sha256", JSON.stringify(config), "base64url")}`;
  const held = deps.carry<HeldKeys>(`aws-keys ${key}`, () => ({
    value: undefined,
    renewAt: 0,
    pending: undefined,
    problem: undefined,
    failures: 0,
    passing: passingClock(deps.clock),
    retryAt: 0,
  }));
  if (deps.isAlone) return new RenewedKeys(held, deps, load);
  const terms = sharedKeys(new OnceForAll(deps.shared, "aws-keys"), key, deps.clock);
  return new RenewedKeys(held, deps, () => fetchedForAll(terms, load));
}

/** Temporary keys: renewed ahead of their end while the present ones serve, by one call for all who wait. */
class RenewedKeys implements KeySource {
  readonly #held: HeldKeys;
  readonly #deps: SourceDeps;
  readonly #load: () => Promise<RealKeys>;

  constructor(held: HeldKeys, deps: SourceDeps, load: () => Promise<RealKeys>) {
    this.#held = held;
    this.#deps = deps;
    this.#load = load;
  }

  current(): RealKeys | Promise<RealKeys> {
    const now = this.#deps.clock.now();
    const { value, renewAt } = this.#held;
    const isUsable = value !== undefined && (value.endsAt ?? Infinity) > now + tooLateMs;
    if (!isUsable) return this.#renewed();
    // A failure is in the log, and the present keys are good until they end.
    if (now >= renewAt) this.#renewed().catch(() => undefined);
    return value;
  }

  problem(): string | undefined {
    const { value, problem } = this.#held;
    const isUsable = value !== undefined && (value.endsAt ?? Infinity) > this.#deps.clock.now();
    return isUsable ? undefined : problem;
  }

  #renewed(): Promise<RealKeys> {
    const held = this.#held;
    if (held.pending !== undefined) return held.pending;
    if (held.passing.now() < held.retryAt)
      return Promise.reject(new KeysUnavailable(held.problem ?? "no keys could be fetched"));
    const pending = this.#fetched().finally(() => {
      held.pending = undefined;
    });
    held.pending = pending;
    return pending;
  }

  async #fetched(): Promise<RealKeys> {
    const held = this.#held;
    const { clock, log, count } = this.#deps;
    try {
      const value = await this.#load();
      held.value = value;
      held.renewAt = renewalOf(value, clock.now());
      held.failures = 0;
      held.problem = undefined;
      count("keys_fetched");
      return value;
    } catch (error) {
      held.problem = messageOf(error);
      held.failures += 1;
      const backOff = Math.min(maxBackOffMs, firstBackOffMs * 2 ** (held.failures - 1));
      held.retryAt = held.passing.now() + backOff;
      count("keys_failed");
      log.warn({ problem: held.problem }, "AWS keys could not be fetched");
      throw new KeysUnavailable(held.problem, { cause: error });
    }
  }
}

function credentialOf(path: string): Secret {
  try {
    return new Secret(credentialText(readSmallFile(path)));
  } catch (error) {
    throw new KeysUnavailable(`${path}: ${messageOf(error)}`, { cause: error });
  }
}

/** ECS and EKS Pod Identity: a GET that a token may have to go with. */
async function containerKeys(
  { url = "", authorization_token_file: tokenFile }: CredentialsConfig,
  { fetch }: SourceDeps,
  timeoutMs: number,
): Promise<RealKeys> {
  const headers =
    tokenFile === undefined ? undefined : { Authorization: credentialOf(tokenFile).reveal() };
  const response = await fetch(url, {
    timeoutMs,
    headers: { Accept: "application/json", ...headers },
  });
  if (response.status !== 200)
    throw new KeysUnavailable(`the endpoint of container credentials said ${response.status}`);
  const body = parseJsonObject(response.body.toString()) ?? {};
  const text = (name: string): string => {
    const value = body[name];
    return typeof value === "string" ? value : "";
  };
  const endsAt = Date.parse(text("Expiration"));
  const [id, secret, token] = [text("AccessKeyId"), text("SecretAccessKey"), text("Token")];
  if (id === "" || secret === "" || Number.isNaN(endsAt))
    throw new KeysUnavailable("the endpoint of container credentials gave no keys with an end");
  return {
    keys: new SigningKeys(id, new Secret(secret)),
    sessionToken: token === "" ? undefined : new Secret(token),
    endsAt,
  };
}
