/** One field of a secret in Vault or OpenBao: of a key-value engine, or of one whose secrets have a lease. */
import type { Clock } from "../duration.ts";
import { isObject, numberOf, objectOf, textOf } from "../http/json-access.ts";
import type { ProviderMeans } from "./provider-call.ts";
import { secretOf } from "./provider-call.ts";
import type { Secret } from "../secret.ts";
import { type Fetched, type SecretFetcher, unavailable } from "./secret-source.ts";
import type { VaultCall, VaultLogin } from "./vault-login.ts";

/** What is read. */
export interface VaultSecretOptions {
  readonly login: VaultLogin;
  /** Below `/v1/`, as the engine wants it. */
  readonly path: string;
  readonly field: string;
  /** Key-value engine, version 2: the fields are one level deeper, beside those of the version. */
  readonly isVersioned: boolean;
  /** How often a secret without a lease is read again. */
  readonly refreshMs: number;
  /** How long one that cannot be read again is served. */
  readonly maxAgeMs: number;
  readonly clock: Clock;
}

interface Lease {
  readonly id: string;
  readonly seconds: number;
  readonly value: Secret;
}

const notFound = 404;

/** Reads one field. */
export class VaultSecret implements SecretFetcher<Secret, ProviderMeans> {
  readonly #options: VaultSecretOptions;
  /** One that can be renewed. */
  #lease: Lease | undefined;

  constructor(options: VaultSecretOptions) {
    this.#options = options;
  }

  async fetch({ call }: ProviderMeans, signal: AbortSignal): Promise<Fetched> {
    return (await this.#renewed({ call, signal })) ?? this.#read({ call, signal });
  }

  /** The same secret for longer, where the server grants most of what it had granted first. */
  async #renewed(by: VaultCall): Promise<Fetched | undefined> {
    const lease = this.#lease;
    if (lease === undefined) return undefined;
    this.#lease = undefined;
    const { login, clock } = this.#options;
    const sentAt = clock.now();
    const body = { lease_id: lease.id, increment: lease.seconds };
    try {
      const { fields } = await login.ask(by, { path: "sys/leases/renew", method: "POST", body });
      const seconds = numberOf(fields["lease_duration"]) ?? 0;
      if (seconds <= lease.seconds / 2) return undefined;
      this.#lease = lease;
      return { value: lease.value, expiresAt: sentAt + seconds * 1000 };
    } catch {
      // A lease that cannot be renewed is no reason to do without a secret: the reading says what is wrong.
      return undefined;
    }
  }

  async #read(by: VaultCall): Promise<Fetched> {
    const { login, path, field, isVersioned, clock, refreshMs, maxAgeMs } = this.#options;
    const sentAt = clock.now();
    const { status, fields } = await login.ask(by, { path });
    const data = objectOf(fields["data"]);
    if (status === notFound) {
      const { deletion_time: deleted, destroyed } = objectOf(data["metadata"]);
      const isGone = destroyed === true || textOf(deleted) !== undefined;
      throw unavailable(
        `there is no secret at ${path}${isGone ? ": its version was deleted" : ""}`,
      );
    }
    const value = fieldOf(isVersioned ? data["data"] : data, field, path);
    const seconds = numberOf(fields["lease_duration"]) ?? 0;
    const id = textOf(fields["lease_id"]);
    if (id !== undefined && seconds > 0) {
      if (fields["renewable"] === true) this.#lease = { id, seconds, value };
      return { value, expiresAt: sentAt + seconds * 1000 };
    }
    return { value, refreshAt: sentAt + refreshMs, expiresAt: sentAt + maxAgeMs };
  }
}

function fieldOf(data: unknown, field: string, path: string): Secret {
  if (!isObject(data)) throw unavailable(`${path} has no fields where they should be: see engine`);
  const value = data[field];
  if (value === undefined) throw unavailable(`the secret at ${path} has no field ${field}`);
  if (typeof value !== "string" && typeof value !== "number")
    throw unavailable(`the field ${field} of ${path} is no text`);
  return secretOf(String(value).trim(), `${field} at ${path}`);
}
