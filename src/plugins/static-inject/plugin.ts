/** static-inject: replaces the client's stand-in credential with the one that belongs to the destination. */
import { timingSafeEqual } from "node:crypto";
import { HostMatcher } from "../../pattern/host-pattern.ts";
import {
  type Answer,
  type BodyAccess,
  type Decision,
  deny,
  type Message,
  modify,
  type Plugin,
  type PluginDeps,
  replaceMessage,
  type RequestContext,
  skip,
} from "../../pipeline/plugin.ts";
import { Secret } from "../../secret.ts";
import { BoundedMap } from "../../bounded-map.ts";
import { FieldNames } from "../../http/field-names.ts";
import { isSameName } from "../../http/headers.ts";
import { messageOf, ProxyError } from "../../errors.ts";
import { readSecretFile, secretNames } from "../../secrets/secret-directory.ts";
import type { SecretSet } from "../credentials/secret-set.ts";
import { defineSecretUser } from "../credentials/secret-users.ts";
import { readBearer } from "../credentials/bearer.ts";
import { namedPlace } from "../credentials/field-places.ts";
import type { Place, Where } from "../credentials/place.ts";
import { fillPlaces, Places } from "../credentials/places.ts";
import { placesOf, usualPlaces } from "./usual-places.ts";
import {
  injectWarningsOf,
  namedSourcesOf,
  staticInjectConfig,
  type StaticInjectConfig,
} from "./config.ts";

/** The definition that a pipeline names. */
export const staticInject = defineSecretUser<StaticInjectConfig>({
  name: "static-inject",
  description: "Attaches a stored credential for the destination in place of a stand-in",
  config: staticInjectConfig,
  sources: namedSourcesOf,
  create: (config, deps, secrets) => new StaticInject(config, deps, secrets),
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

/** What a WebSocket still has to bring. */
interface Awaited {
  message?: "needed" | "optional";
}

class StaticInject implements Plugin {
  readonly body: BodyAccess;
  readonly #config: StaticInjectConfig;
  readonly #values: ReadonlyMap<string, Secret>;
  readonly #sources: SecretSet;
  /** The secrets of the directory as they were last read: held, they are known to whoever looks for them in traffic. */
  readonly #read = new BoundedMap<string, Secret>(maxSecretFiles);
  readonly #hosts: HostMatcher | undefined;
  readonly #places: Places;
  /** Where credentials of the client go, besides the places of the stand-in. */
  readonly #replaced: FieldNames | undefined;
  readonly #challenge: string;
  readonly #onEcho: () => void;

  constructor(config: StaticInjectConfig, deps: PluginDeps, sources: SecretSet) {
    this.#config = config;
    for (const warning of injectWarningsOf(config)) deps.log.warn({}, warning);
    const spelled = (key: string): string => (config.key_by === "host" ? key.toLowerCase() : key);
    this.#values = new Map(
      Object.entries(config.mappings ?? {}).flatMap(([key, value]) =>
        typeof value === "string" ? [[spelled(key), new Secret(value.trim())]] : [],
      ),
    );
    this.#sources = sources;
    this.#hosts = config.hosts.length === 0 ? undefined : new HostMatcher(config.hosts);
    const { inject_header: header, placeholder, placeholder_in: groups = usualPlaces } = config;
    // Without a stand-in nothing tells a credential in a URL from what else stands there.
    const known = groups.filter((group) => placeholder !== undefined || !/^[qp]/.test(group));
    const places = config.places ?? placesOf(known, header);
    const bearer = 'Bearer realm="authbridge"';
    const isBasicRead =
      placeholder !== undefined && places.some(({ basic }) => basic !== undefined);
    this.#challenge = isBasicRead ? `Basic realm="authbridge", ${bearer}` : bearer;
    this.#places = new Places(places);
    this.body = this.#places.needBodies ? { request: "read" } : {};
    this.#replaced = header === undefined ? undefined : new FieldNames(["authorization", header]);
    this.#onEcho = () => deps.count("echo_removed");
  }

  wantsBody(context: RequestContext): boolean {
    return this.#unattached(context.destination) === undefined && this.#places.wantsBody(context);
  }

  async start(): Promise<void> {
    const { source, secret_dir: directory = "" } = this.#config;
    if (source !== "secret_dir") return;
    for (const name of await secretNames(directory, maxSecretFiles)) await this.#fromFile(name);
  }

  /** Assumes what the file does not have: the stand-in, where the client sent nothing, and the secrets of `secret_dir`. */
  async describeCredential(context: RequestContext): Promise<string | Decision> {
    const { inject_header: header, key_by: keyBy, key = "", source, placeholder } = this.#config;
    const unattached = this.#unattached(context.destination);
    if (unattached !== undefined) return unattached;
    const found = this.#find(context);
    if (found.kind === "unreadable") return found.refusal;
    const isOther = found.places.length === 0 && this.#hasOther(context);
    if (isOther) return this.#refuse("static-inject.placeholder-mismatch");
    const shown = this.#config.places === undefined ? undefined : this.#places.shown(context);
    if (shown === "") return this.#missing(context);
    const { authority, host } = context.destination;
    const fetched = this.#keysOf(context).map((each) => this.#sources.get(each));
    const [from] = fetched.flatMap((each) => each?.name ?? []);
    if (source === "mappings" && from === undefined) {
      const stored = await this.#usable(context);
      if ("action" in stored) return stored;
    }
    const where = header === undefined ? "" : `${header}: `;
    const place = keyBy === "static" ? key : `${authority} or ${host}`;
    const instead = placeholder === undefined ? "a credential" : "the placeholder";
    const places = shown === undefined ? "" : ` in: ${shown}`;
    return `${where}the credential of ${place} from ${from ?? source}, in place of ${instead} that the client has to send${places}`;
  }

  async onCredential(context: RequestContext): Promise<Decision> {
    const unattached = this.#unattached(context.destination);
    if (unattached !== undefined) return unattached;
    const found = this.#find(context);
    if (found.kind === "unreadable") return found.refusal;
    const { places } = found;
    const isAwaited = this.#places.awaitMessage(context);
    if (places.length === 0 && !isAwaited) {
      const isOther = this.#hasOther(context);
      return isOther ? this.#refuse("static-inject.placeholder-mismatch") : this.#missing(context);
    }
    const stored = await this.#usable(context);
    if ("action" in stored) return stored;
    if (isAwaited) this.#stateOf(context).message = places.length === 0 ? "needed" : "optional";
    if (places.length === 0) return modify("credential_awaited", { key: stored.key });
    const value = stored.value.reveal();
    const targets = this.#targetsOf(places);
    if (!targets.every((place) => place.fits(value)))
      return this.#refuse("static-inject.unsafe-value");
    this.#clear(context, places);
    context.noteStored(value);
    fillPlaces(context, targets, value, {
      isConcealed: ({ isInUrl }) => isInUrl === true || this.#config.places !== undefined,
      onFound: this.#onEcho,
    });
    const header = [...new Set(targets.map(({ shown }) => shown))].join(", ");
    return modify("credential_injected", { key: stored.key, header });
  }

  needsMessages(context: RequestContext): boolean {
    return this.#stateOf(context).message !== undefined;
  }

  async onMessageCredential(context: RequestContext, message: Message): Promise<Answer> {
    const state = this.#stateOf(context);
    const isNeeded = state.message === "needed";
    delete state.message;
    const place = this.#places.findInMessage(context, message, this.#recognise);
    if (place === undefined) return isNeeded ? this.#missing(context) : undefined;
    const stored = await this.#usable(context);
    if ("action" in stored) return stored;
    const value = stored.value.reveal();
    context.noteStored(value);
    context.conceal(value, place.standIn, this.#onEcho);
    const { key } = stored;
    return replaceMessage("credential_injected", place.fill(value), { key, header: place.shown });
  }

  readonly #recognise = (text: string, { place: { header }, scheme }: Where): boolean => {
    const { placeholder } = this.#config;
    if (placeholder !== undefined) return isSame(text, placeholder);
    if (header === undefined) return false;
    return header === "authorization" ? scheme?.toLowerCase() === "bearer" : scheme === undefined;
  };

  /** Without a stand-in only the first credential is replaced. */
  #find(context: RequestContext) {
    const found = this.#places.find(context, this.#recognise);
    if (found.kind === "unreadable" || this.#config.placeholder !== undefined) return found;
    const isMalformed = readBearer(context.headers).kind === "malformed";
    const places = found.places.filter(
      ({ field }) => !(isMalformed && isSameName(field ?? "", "authorization")),
    );
    return { ...found, places: places.slice(0, 1) };
  }

  /** Whether there is a credential that is not the stand-in. */
  #hasOther(context: RequestContext): boolean {
    return readBearer(context.headers).kind === "bearer" || this.#places.holdsOther(context);
  }

  #stateOf(context: RequestContext): Awaited {
    return context.stateOf<Awaited>(this, () => ({}));
  }

  /** The places themselves, or the field that the file names where the stand-in is in another. */
  #targetsOf(places: readonly Place[]): readonly Place[] {
    const { inject_header: header } = this.#config;
    if (header === undefined) return places;
    const [first, ...more] = places.filter(({ field }) => field !== undefined);
    if (first === undefined) return places;
    const own = [first, ...more].find(({ field = "" }) => isSameName(field, header));
    const others = places.filter(({ field }) => field === undefined);
    return [own ?? namedPlace(header, first.standIn), ...others];
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
      found = await this.#stored(context);
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

  async #stored(context: RequestContext): Promise<Stored | undefined> {
    const { source } = this.#config;
    for (const key of this.#keysOf(context)) {
      if (source === "mappings") {
        const fetched = this.#sources.get(key);
        const value =
          fetched === undefined
            ? this.#values.get(key)
            : (await fetched.current(context.signal)).value;
        if (value !== undefined) return { key, value };
      } else {
        const value = await this.#fromFile(key);
        if (value !== undefined) return { key, value };
      }
    }
    return undefined;
  }

  #missing(context: RequestContext): Decision {
    const refusal = this.#refuse("static-inject.missing-auth");
    if (this.#config.places === undefined || refusal.action !== "deny") return refusal;
    const message = `no placeholder in: ${this.#places.shown(context) || "any place (see places)"}`;
    return { ...refusal, denial: { ...refusal.denial, message } };
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

/** Compares without telling by its time how much was right. */
function isSame(given: string, wanted: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(wanted)];
  return a.length === b.length && timingSafeEqual(a, b);
}

/** The source has nothing to give: the client learns which one, the operator why. */
function unavailableCredential({ code, message, status, cause }: ProxyError): Decision {
  const headers = { "Retry-After": "1" };
  return deny("secret_unavailable", { code, message, status, headers }, { why: messageOf(cause) });
}
