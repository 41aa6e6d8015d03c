/** static-inject: replaces the client's stand-in credential with the one that belongs to the destination. */
import { HostMatcher } from "../../pattern/host-pattern.ts";
import {
  type Answer,
  type Decision,
  definePlugin,
  deny,
  type Frame,
  modify,
  type Plugin,
  type PluginDeps,
  replaceFrame,
  type RequestContext,
  skip,
} from "../../pipeline/plugin.ts";
import { Secret } from "../../secret.ts";
import { BoundedMap } from "../../bounded-map.ts";
import { FieldNames } from "../../http/field-names.ts";
import { isSameName } from "../../http/headers.ts";
import { readSecretFile, secretNames } from "./secret-directory.ts";
import { Echo } from "./echo.ts";
import { namedPlace, type Place, Places } from "./places.ts";
import { injectWarningsOf, staticInjectConfig, type StaticInjectConfig } from "./config.ts";

/** The definition that a pipeline names. */
export const staticInject = definePlugin<StaticInjectConfig>({
  name: "static-inject",
  description: "Attaches a stored credential for the destination in place of a stand-in",
  config: staticInjectConfig,
  create: (config, deps) => new StaticInject(config, deps),
});

/** Why nothing was attached; clients of the Go program match on the codes. */
const refusals = {
  "static-inject.missing-auth":
    "missing Authorization header, or another field that the placeholder may stand in",
  "static-inject.placeholder-mismatch": "the credential is not the expected placeholder",
  "static-inject.unresolved-key": "no credential for this destination",
  "static-inject.unsafe-value": "the stored credential cannot be sent",
  "static-inject.plaintext": "credentials are not attached to plain HTTP requests",
} as const;

/** A field value that no recipient can split: visible ASCII and inner spaces. */
const safeValue = /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/;

const maxSecretFiles = 1_000;

/** A credential and the key under which it was found. */
interface Stored {
  readonly key: string;
  readonly value: Secret;
}

class StaticInject implements Plugin {
  readonly #config: StaticInjectConfig;
  readonly #values: ReadonlyMap<string, Secret>;
  /** The secrets of the directory as they were last read: held, they are known to whoever looks for them in traffic. */
  readonly #read = new BoundedMap<string, Secret>(maxSecretFiles);
  readonly #hosts: HostMatcher | undefined;
  readonly #places: Places;
  /** Where credentials of the client go, besides the places of the stand-in. */
  readonly #replaced: FieldNames | undefined;
  readonly #challenge: string;
  readonly #echoes = new WeakMap<RequestContext, Echo>();

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
    const { inject_header: header, placeholder } = config;
    const bearer = 'Bearer realm="authbridge"';
    const isBasicRead =
      placeholder !== undefined && config.placeholder_in.includes("authorization");
    this.#challenge = isBasicRead ? `Basic realm="authbridge", ${bearer}` : bearer;
    this.#places = new Places(placeholder, config.placeholder_in, header);
    this.#replaced = header === undefined ? undefined : new FieldNames(["authorization", header]);
  }

  async start(): Promise<void> {
    const { source, secret_dir: directory = "" } = this.#config;
    if (source !== "secret_dir") return;
    for (const name of await secretNames(directory, maxSecretFiles)) await this.#fromFile(name);
  }

  /** Assumes what the file does not have: the stand-in, where the client sent nothing, and the secrets of `secret_dir`. */
  async describeCredential(context: RequestContext): Promise<string | Decision> {
    const { inject_header: header, key_by: keyBy, key = "", source, placeholder } = this.#config;
    const { places, hasOther } = this.#places.find(context);
    const unattached =
      this.#unattached(context.destination) ??
      (hasOther && places.length === 0
        ? this.#refuse("static-inject.placeholder-mismatch")
        : undefined);
    if (unattached !== undefined) return unattached;
    if (source === "mappings") {
      const found = await this.#usable(context);
      if (typeof found === "string") return this.#refuse(found);
    }
    const { authority, host } = context.destination;
    const where = header === undefined ? "" : `${header}: `;
    const place = keyBy === "static" ? key : `${authority} or ${host}`;
    const instead = placeholder === undefined ? "a credential" : "the placeholder";
    return `${where}the credential of ${place} from ${source}, in place of ${instead} that the client has to send`;
  }

  async onCredential(context: RequestContext): Promise<Decision> {
    const unattached = this.#unattached(context.destination);
    if (unattached !== undefined) return unattached;
    const { places, hasOther } = this.#places.find(context);
    if (places.length === 0) {
      return this.#refuse(`static-inject.${hasOther ? "placeholder-mismatch" : "missing-auth"}`);
    }
    const found = await this.#usable(context);
    if (typeof found === "string") return this.#refuse(found);
    const value = found.value.reveal();
    const targets = this.#targetsOf(places);
    if (!targets.every((place) => place.fits(value)))
      return this.#refuse("static-inject.unsafe-value");
    this.#clear(context, places);
    for (const place of targets) place.fill(context, value);
    const { placeholder = "" } = this.#config;
    if (targets.some(({ field }) => field === undefined))
      this.#echoes.set(context, new Echo(value, placeholder));
    const header = targets.map(({ shown }) => shown).join(", ");
    return modify("credential_injected", { key: found.key, header });
  }

  wantsAnswer(context: RequestContext): boolean {
    return this.#echoes.has(context);
  }

  onResponse(context: RequestContext): Answer {
    const { response } = context;
    const isChanged =
      response !== undefined && this.#echoes.get(context)?.cleanFields(response.headers) === true;
    return isChanged ? modify("echo_removed") : undefined;
  }

  onFrame(context: RequestContext, { data }: Frame): Answer {
    const cleaned = this.#echoes.get(context)?.cleanBytes(data);
    return cleaned === undefined ? undefined : replaceFrame("echo_removed", cleaned);
  }

  /** The places themselves, or the field that the file names where the stand-in is in another. */
  #targetsOf(places: readonly Place[]): readonly Place[] {
    const { inject_header: header } = this.#config;
    if (header === undefined) return places;
    const inFields = places.filter(({ field }) => field !== undefined);
    if (inFields.length === 0) return places;
    const own = inFields.find(({ field = "" }) => isSameName(field, header));
    return [own ?? namedPlace(header), ...places.filter(({ field }) => field === undefined)];
  }

  /** Takes away what the credential moves from, and what a recipient could read beside it. */
  #clear(context: RequestContext, places: readonly Place[]): void {
    const inFields = places.flatMap(({ field }) => field ?? []);
    if (this.#replaced === undefined || inFields.length === 0) return;
    this.#replaced.removeFrom(context.headers);
    for (const field of inFields) context.headers.delete(field);
  }

  /** Why no credential is for the destination. */
  #unattached({ host, scheme }: RequestContext["destination"]): Decision | undefined {
    if (this.#hosts?.matches(host) === false) return skip("host_not_listed");
    return scheme === "http" && this.#config.allow_plaintext === false
      ? this.#refuse("static-inject.plaintext", 403)
      : undefined;
  }

  async #usable(context: RequestContext): Promise<Stored | keyof typeof refusals> {
    const found = await this.#find(context);
    if (found === undefined) return "static-inject.unresolved-key";
    return safeValue.test(found.value.reveal()) ? found : "static-inject.unsafe-value";
  }

  async #find(context: RequestContext): Promise<Stored | undefined> {
    const { host, authority } = context.destination;
    const { key_by: keyBy, key = "", source } = this.#config;
    for (const candidate of keyBy === "static" ? [key] : [authority, host]) {
      if (source === "mappings") {
        const value = this.#values.get(candidate);
        if (value !== undefined) return { key: candidate, value };
      } else {
        const value = await this.#fromFile(candidate);
        if (value !== undefined) return { key: candidate, value };
      }
    }
    return undefined;
  }

  async #fromFile(name: string): Promise<Secret | undefined> {
    const { secret_dir: directory = "" } = this.#config;
    const text = await readSecretFile(directory, name);
    if (text === undefined) return undefined;
    const known = this.#read.get(name);
    if (known?.reveal() === text) return known;
    const value = new Secret(text);
    this.#read.set(name, value);
    return value;
  }

  /** A 401 asks for a credential (RFC 9110 section 15.5.2): git and others send theirs only then. */
  #refuse(code: keyof typeof refusals, status = 401): Decision {
    const reason = code.slice("static-inject.".length).replace(/-/g, "_");
    const headers = { "WWW-Authenticate": this.#challenge };
    const denial = { code, message: refusals[code], status };
    return deny(reason, status === 401 ? { ...denial, headers } : denial);
  }
}
