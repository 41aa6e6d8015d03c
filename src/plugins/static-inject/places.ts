/** The places where clients put a credential: looked for a stand-in, and given the stored value. */
import { timingSafeEqual } from "node:crypto";
import { FieldNames, foldedName } from "../../http/field-names.ts";
import type { RequestContext } from "../../pipeline/plugin.ts";
import { readBearer } from "../credentials/bearer.ts";
import { keyFields } from "../credentials/key-fields.ts";

/** Kinds of places, as `placeholder_in` names them. */
export const placeKinds = ["authorization", "header", "query", "path"] as const;

/** One of {@link placeKinds}. */
export type PlaceKind = (typeof placeKinds)[number];

/** Parameters in which they send it; others, such as a search term, are what servers like to repeat. */
const keyParameters: ReadonlySet<string> = new Set([
  "key",
  "api_key",
  "api-key",
  "apikey",
  "token",
  "access_token",
  "auth_token",
  "private_token",
]);

/** A place that holds the stand-in. */
export interface Place {
  /** For the record, such as `Authorization` or `the parameter key`. */
  readonly shown: string;
  /** The field; undefined for a place in the URL. */
  readonly field?: string;
  /** Whether the credential can stand there without being read as something else. */
  fits(value: string): boolean;
  /** Gives the place the credential, as it has to be written there. */
  fill(context: RequestContext, value: string): void;
}

/** What a request has in place of a credential. */
export interface Found {
  readonly places: readonly Place[];
  /** Whether there is a credential that is not the stand-in. */
  readonly hasOther: boolean;
}

/** Looks for one stand-in, or for any credential that could be one. */
export class Places {
  readonly #kinds: ReadonlySet<PlaceKind>;
  readonly #fields: readonly string[];
  readonly #isStandIn: (text: string) => boolean;
  readonly #isAny: boolean;

  /** `placeholder` undefined: any bearer, and any value of a field for API keys. */
  constructor(
    placeholder: string | undefined,
    kinds: readonly PlaceKind[],
    injectHeader: string | undefined,
  ) {
    this.#kinds = new Set(kinds);
    const own = injectHeader === undefined ? [] : [injectHeader.toLowerCase()];
    this.#fields = [...new Set([...own, ...keyFields])].filter((name) => name !== "authorization");
    this.#isAny = placeholder === undefined;
    this.#isStandIn = (text) => placeholder === undefined || isSame(text, placeholder);
  }

  find(context: RequestContext): Found {
    const places: Place[] = [];
    const bearer = readBearer(context.headers);
    let hasOther = bearer.kind === "bearer";
    if (this.#kinds.has("authorization")) {
      const place = this.#inAuthorization(context);
      if (place !== undefined) places.push(place);
    }
    if (this.#kinds.has("header")) {
      for (const name of this.#fields) {
        const values = context.headers.getAll(name);
        if (values.length > 0) hasOther = true;
        const [value = "", ...more] = values;
        if (value === "" || more.length > 0 || !this.#isStandIn(value.trim())) continue;
        places.push(fieldPlace(name, (credential) => credential));
      }
    }
    // Without a stand-in nothing tells a credential in a URL from what else stands there.
    if (this.#isAny) return { places: places.slice(0, 1), hasOther };
    if (this.#kinds.has("query") && this.#inQuery(context.path)) {
      places.push({
        shown: "query",
        fits: () => true,
        fill: (to, value) => this.#fillQuery(to, value),
      });
    }
    if (this.#kinds.has("path") && this.#inPath(context.path)) {
      places.push({
        shown: "path",
        // A dot segment would be another path.
        fits: (value) => value !== "." && value !== "..",
        fill: (to, value) => this.#fillPath(to, value),
      });
    }
    return { places, hasOther };
  }

  #inAuthorization({ headers }: RequestContext): Place | undefined {
    const [value, ...more] = headers.getAll("authorization");
    if (value === undefined || more.length > 0) return undefined;
    const bearer = readBearer(headers);
    if (bearer.kind === "bearer") {
      if (!this.#isStandIn(bearer.token)) return undefined;
      return fieldPlace("Authorization", (credential) => `Bearer ${credential}`);
    }
    if (this.#isAny) return undefined;
    const [, scheme, parameter] = /^([!#$%&'*+\-.^`|~\w]+) +(\S+)$/.exec(value.trim()) ?? [];
    if (scheme === undefined || parameter === undefined) {
      const isBare = this.#isStandIn(value.trim());
      return isBare ? fieldPlace("Authorization", (credential) => credential) : undefined;
    }
    if (scheme.toLowerCase() === "basic") return this.#inBasic(scheme, parameter);
    if (!this.#isStandIn(parameter)) return undefined;
    return fieldPlace("Authorization", (credential) => `${scheme} ${credential}`);
  }

  /** RFC 7617: git and pip send a token as the user or as the password. */
  #inBasic(scheme: string, encoded: string): Place | undefined {
    const pair = Buffer.from(encoded, "base64").toString("latin1");
    const colon = pair.indexOf(":");
    if (colon === -1) return undefined;
    const [user, password] = [pair.slice(0, colon), pair.slice(colon + 1)];
    const isUser = this.#isStandIn(user);
    const isPassword = this.#isStandIn(password);
    if (!isUser && !isPassword) return undefined;
    return fieldPlace("Authorization", (credential) => {
      // A colon ends the user: the rest of the credential would be read as the password.
      if (isUser && credential.includes(":")) return undefined;
      const filled = `${isUser ? credential : user}:${isPassword ? credential : password}`;
      return `${scheme} ${Buffer.from(filled, "latin1").toString("base64")}`;
    });
  }

  #inQuery(target: string): boolean {
    return this.#parameters(target, () => undefined).isFound;
  }

  #fillQuery(context: RequestContext, value: string): void {
    const encoded = encodeURIComponent(value);
    context.attachToPath(this.#parameters(context.sentPath, () => encoded).target);
  }

  /** The target with each parameter that holds the stand-in given another value. */
  #parameters(
    target: string,
    put: () => string | undefined,
  ): { readonly target: string; readonly isFound: boolean } {
    const mark = target.indexOf("?");
    if (mark === -1) return { target, isFound: false };
    let isFound = false;
    const parameters = target
      .slice(mark + 1)
      .split("&")
      .map((parameter) => {
        const [name = "", ...rest] = parameter.split("=");
        if (rest.length === 0 || !keyParameters.has(decoded(name).toLowerCase())) return parameter;
        if (!this.#isStandIn(decoded(rest.join("=")))) return parameter;
        isFound = true;
        return `${name}=${put() ?? rest.join("=")}`;
      });
    return { target: `${target.slice(0, mark)}?${parameters.join("&")}`, isFound };
  }

  #inPath(target: string): boolean {
    return this.#segments(target, (segment) => segment).isFound;
  }

  #fillPath(context: RequestContext, value: string): void {
    const encoded = encodeURIComponent(value).replace(/%(?:3A|40)/g, decodeURIComponent);
    context.attachToPath(
      this.#segments(context.sentPath, (_segment, before) => `${before}${encoded}`).target,
    );
  }

  /** The target with each segment that is the stand-in, or `bot` and the stand-in as Telegram has it, given another text. */
  #segments(
    target: string,
    put: (segment: string, before: string) => string,
  ): { readonly target: string; readonly isFound: boolean } {
    const mark = target.indexOf("?");
    const path = mark === -1 ? target : target.slice(0, mark);
    let isFound = false;
    const segments = path.split("/").map((segment) => {
      const text = decoded(segment);
      const before = text.startsWith("bot") && this.#isStandIn(text.slice(3)) ? "bot" : "";
      if (before === "" && !this.#isStandIn(text)) return segment;
      isFound = true;
      return put(segment, before);
    });
    return { target: segments.join("/") + target.slice(path.length), isFound };
  }
}

/** A field, removed in every spelling before it is set: a recipient that folds names would see two credentials. */
function fieldPlace(field: string, write: (credential: string) => string | undefined): Place {
  return {
    shown: field,
    field,
    fits: (value) => write(value) !== undefined,
    fill: ({ headers }, value) => {
      new FieldNames([field]).removeFrom(headers);
      headers.set(field, write(value) ?? "");
    },
  };
}

/** A field that the operator names, with the credential as it stands there. */
export function namedPlace(field: string): Place {
  const isAuthorization = foldedName(field) === "authorization";
  return fieldPlace(field, (credential) => (isAuthorization ? `Bearer ${credential}` : credential));
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text.replace(/\+/g, " "));
  } catch {
    return text;
  }
}

/** Compares without telling by its time how much was right. */
function isSame(given: string, wanted: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(wanted)];
  return a.length === b.length && timingSafeEqual(a, b);
}
