/** static-inject: replaces the client's stand-in credential with the one that belongs to the destination (contract 2.4). */
import { timingSafeEqual } from "node:crypto";
import { HostMatcher } from "../../pattern/host-pattern.ts";
import {
  type Decision,
  definePlugin,
  deny,
  modify,
  type Plugin,
  type PluginDeps,
  type RequestContext,
  skip,
} from "../../pipeline/plugin.ts";
import { Secret } from "../../secret.ts";
import { readBearer } from "../credentials/bearer.ts";
import { FieldNames, foldedName } from "../../http/field-names.ts";
import { readSecretFile } from "./secret-directory.ts";
import { injectWarningsOf, staticInjectConfig, type StaticInjectConfig } from "./config.ts";

/** The definition that a chain names. */
export const staticInject = definePlugin<StaticInjectConfig>({
  name: "static-inject",
  description: "Attaches a stored credential for the destination in place of a stand-in",
  config: staticInjectConfig,
  create: (config, deps) => new StaticInject(config, deps),
});

/** Why nothing was attached; clients of the Go program match on the codes. */
const refusals = {
  "static-inject.missing-auth": "missing Authorization header",
  "static-inject.placeholder-mismatch": "the Authorization header is not the expected placeholder",
  "static-inject.unresolved-key": "no credential for this destination",
  "static-inject.unsafe-value": "the stored credential cannot be sent",
  "static-inject.plaintext": "credentials are not attached to plain HTTP requests",
} as const;

/** A field value that no recipient can split: visible ASCII and inner spaces. */
const safeValue = /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/;

/** A credential and the key under which it was found. */
interface Stored {
  readonly key: string;
  readonly value: Secret;
}

class StaticInject implements Plugin {
  readonly #config: StaticInjectConfig;
  readonly #values: ReadonlyMap<string, Secret>;
  readonly #hosts: HostMatcher | undefined;
  readonly #replaced: FieldNames;
  readonly #isAuthorization: boolean;

  constructor(config: StaticInjectConfig, deps: PluginDeps) {
    this.#config = config;
    for (const warning of injectWarningsOf(config)) deps.log.warn({}, warning);
    const mappings = Object.entries(config.mappings ?? {});
    const isByHost = config.key_by === "host";
    this.#values = new Map(
      mappings.map(([key, value]) => [
        isByHost ? key.toLowerCase() : key,
        new Secret(value.trim()),
      ]),
    );
    this.#hosts = config.hosts.length === 0 ? undefined : new HostMatcher(config.hosts);
    this.#isAuthorization = foldedName(config.inject_header) === "authorization";
    this.#replaced = new FieldNames(["authorization", config.inject_header]);
  }

  /** Assumes what the file does not have: the stand-in, where the client sent nothing, and the secrets of `secret_dir`. */
  async describeCredential(context: RequestContext): Promise<string | Decision> {
    const isSent = context.headers.has("authorization");
    const { inject_header: header, key_by: keyBy, key = "", source, placeholder } = this.#config;
    const unattached =
      this.#unattached(context.destination) ?? (isSent ? this.#unasked(context) : undefined);
    if (unattached !== undefined) return unattached;
    if (source === "mappings") {
      const found = await this.#usable(context);
      if ("action" in found) return found;
    }
    const { authority, host } = context.destination;
    const place = keyBy === "static" ? key : `${authority} or ${host}`;
    const instead = placeholder === undefined ? "a bearer token" : "the placeholder";
    return `${header}: the credential of ${place} from ${source}, in place of ${instead} that the client has to send`;
  }

  async onCredential(context: RequestContext): Promise<Decision> {
    const unattached = this.#unattached(context.destination) ?? this.#unasked(context);
    if (unattached !== undefined) return unattached;
    const found = await this.#usable(context);
    if ("action" in found) return found;
    const value = found.value.reveal();
    // The client's own field goes in every spelling: a recipient that folds names would see two credentials.
    this.#replaced.removeFrom(context.headers);
    if (this.#isAuthorization) context.headers.set("Authorization", `Bearer ${value}`);
    else context.headers.set(this.#config.inject_header, value);
    return modify("credential_injected", { key: found.key, header: this.#config.inject_header });
  }

  /** Why no credential is for the destination. */
  #unattached({ host, scheme }: RequestContext["destination"]): Decision | undefined {
    if (this.#hosts?.matches(host) === false) return skip("host_not_listed");
    return scheme === "http" && this.#config.allow_plaintext === false
      ? refuse("static-inject.plaintext", 403)
      : undefined;
  }

  /** Why what the client sent is not exchanged for a credential. */
  #unasked({ headers }: RequestContext): Decision | undefined {
    const bearer = readBearer(headers);
    if (bearer.kind !== "bearer") return refuse("static-inject.missing-auth");
    const { placeholder } = this.#config;
    return placeholder === undefined || isSame(bearer.token, placeholder)
      ? undefined
      : refuse("static-inject.placeholder-mismatch");
  }

  async #usable(context: RequestContext): Promise<Stored | Decision> {
    const found = await this.#find(context);
    if (found === undefined) return refuse("static-inject.unresolved-key");
    return safeValue.test(found.value.reveal()) ? found : refuse("static-inject.unsafe-value");
  }

  async #find(context: RequestContext): Promise<Stored | undefined> {
    const { host, authority } = context.destination;
    const { key_by: keyBy, key = "", source, secret_dir: directory = "" } = this.#config;
    for (const candidate of keyBy === "static" ? [key] : [authority, host]) {
      if (source === "mappings") {
        const value = this.#values.get(candidate);
        if (value !== undefined) return { key: candidate, value };
      } else {
        const text = await readSecretFile(directory, candidate);
        if (text !== undefined) return { key: candidate, value: new Secret(text) };
      }
    }
    return undefined;
  }
}

function refuse(code: keyof typeof refusals, status = 401): Decision {
  const reason = code.slice("static-inject.".length).replace(/-/g, "_");
  return deny(reason, { code, message: refusals[code], status });
}

/** Compares without telling by its time how much was right. */
function isSame(given: string, wanted: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(wanted)];
  return a.length === b.length && timingSafeEqual(a, b);
}
