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
import { FieldNames } from "../../http/field-names.ts";
import { isSameName } from "../../http/headers.ts";
import { messageOf, ProxyError } from "../../errors.ts";
import { readSecretFile } from "../../secrets/secret-directory.ts";
import { SecretSet } from "../credentials/secret-set.ts";
import { Echo } from "./echo.ts";
import { namedPlace, type Place, Places } from "./places.ts";
import {
  injectWarningsOf,
  namedSourcesOf,
  sourceOriginsOf,
  staticInjectConfig,
  type StaticInjectConfig,
} from "./config.ts";

/** The definition that a pipeline names. */
export const staticInject = definePlugin<StaticInjectConfig>({
  name: "static-inject",
  description: "Attaches a stored credential for the destination in place of a stand-in",
  config: staticInjectConfig,
  origins: sourceOriginsOf,
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

/** A credential and the key under which it was found. */
interface Stored {
  readonly key: string;
  readonly value: Secret;
}

class StaticInject implements Plugin {
  readonly #config: StaticInjectConfig;
  readonly #values: ReadonlyMap<string, Secret>;
  readonly #sources: SecretSet;
  readonly #hosts: HostMatcher | undefined;
  readonly #places: Places;
  /** Where credentials of the client go, besides the places of the stand-in. */
  readonly #replaced: FieldNames | undefined;
  readonly #challenge: string;
  readonly #echoes = new WeakMap<RequestContext, Echo>();

  constructor(config: StaticInjectConfig, deps: PluginDeps) {
    this.#config = config;
    for (const warning of injectWarningsOf(config)) deps.log.warn({}, warning);
    const spelled = (key: string): string => (config.key_by === "host" ? key.toLowerCase() : key);
    this.#values = new Map(
      Object.entries(config.mappings ?? {}).flatMap(([key, value]) =>
        typeof value === "string" ? [[spelled(key), new Secret(value.trim())]] : [],
      ),
    );
    this.#sources = new SecretSet(namedSourcesOf(config), deps);
    this.#hosts = config.hosts.length === 0 ? undefined : new HostMatcher(config.hosts);
    const { inject_header: header, placeholder } = config;
    const bearer = 'Bearer realm="authbridge"';
    const isBasicRead =
      placeholder !== undefined && config.placeholder_in.includes("authorization");
    this.#challenge = isBasicRead ? `Basic realm="authbridge", ${bearer}` : bearer;
    this.#places = new Places(placeholder, config.placeholder_in, header);
    this.#replaced = header === undefined ? undefined : new FieldNames(["authorization", header]);
  }

  start(): Promise<void> {
    this.#sources.begin();
    return Promise.resolve();
  }

  ready(): true | string {
    return this.#sources.ready();
  }

  close(): void {
    this.#sources.close();
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
    const { authority, host } = context.destination;
    const fetched = this.#keysOf(context).map((each) => this.#sources.get(each));
    const [from] = fetched.flatMap((each) => each?.name ?? []);
    if (source === "mappings" && from === undefined) {
      const found = await this.#usable(context);
      if ("action" in found) return found;
    }
    const where = header === undefined ? "" : `${header}: `;
    const place = keyBy === "static" ? key : `${authority} or ${host}`;
    const instead = placeholder === undefined ? "a credential" : "the placeholder";
    return `${where}the credential of ${place} from ${from ?? source}, in place of ${instead} that the client has to send`;
  }

  async onCredential(context: RequestContext): Promise<Decision> {
    const unattached = this.#unattached(context.destination);
    if (unattached !== undefined) return unattached;
    const { places, hasOther } = this.#places.find(context);
    if (places.length === 0) {
      return this.#refuse(`static-inject.${hasOther ? "placeholder-mismatch" : "missing-auth"}`);
    }
    const found = await this.#usable(context);
    if ("action" in found) return found;
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

  async #usable(context: RequestContext): Promise<Stored | Decision> {
    let found: Stored | undefined;
    try {
      found = await this.#find(context);
    } catch (error) {
      if (!(error instanceof ProxyError)) throw error;
      return unavailableCredential(error);
    }
    if (found === undefined) return this.#refuse("static-inject.unresolved-key");
    return safeValue.test(found.value.reveal())
      ? found
      : this.#refuse("static-inject.unsafe-value");
  }

  /** In the order in which they are looked for. */
  #keysOf({ destination: { host, authority } }: RequestContext): readonly string[] {
    const { key_by: keyBy, key = "" } = this.#config;
    return keyBy === "static" ? [key] : [authority, host];
  }

  async #find(context: RequestContext): Promise<Stored | undefined> {
    const { source, secret_dir: directory = "" } = this.#config;
    for (const key of this.#keysOf(context)) {
      if (source === "mappings") {
        const fetched = this.#sources.get(key);
        const value =
          fetched === undefined
            ? this.#values.get(key)
            : (await fetched.current(context.signal)).value;
        if (value !== undefined) return { key, value };
      } else {
        const text = await readSecretFile(directory, key);
        if (text !== undefined) return { key, value: new Secret(text) };
      }
    }
    return undefined;
  }

  /** A 401 asks for a credential (RFC 9110 section 15.5.2): git and others send theirs only then. */
  #refuse(code: keyof typeof refusals, status = 401): Decision {
    const reason = code.slice("static-inject.".length).replace(/-/g, "_");
    const headers = { "WWW-Authenticate": this.#challenge };
    const denial = { code, message: refusals[code], status };
    return deny(reason, status === 401 ? { ...denial, headers } : denial);
  }
}

/** The source has nothing to give: the client learns which one, the operator why. */
function unavailableCredential({ code, message, status, cause }: ProxyError): Decision {
  const headers = { "Retry-After": "1" };
  return deny("secret_unavailable", { code, message, status, headers }, { why: messageOf(cause) });
}
