/** What a request says of its own signature: in the Authorization field, or in its query. */
import type { HeaderList } from "../../http/headers.ts";
import { type Parameter, readTarget, type ReadTarget } from "./canonical.ts";
import type { SigningScope } from "./signing-keys.ts";

/** A signature of Version 4 or 4A, as its request describes it. */
export interface Claim {
  readonly place: "header" | "query";
  readonly accessKeyId: string;
  readonly scope: SigningScope;
  /** Lower-case names in order. */
  readonly signed: readonly string[];
  readonly signature: string;
  /** YYYYMMDDTHHMMSSZ. */
  readonly time: string;
  /** Seconds from `time`; undefined in a field. */
  readonly expires: number | undefined;
  /** Regions of Version 4A. */
  readonly regionSet: readonly string[];
  /** What `x-amz-content-sha256` says of the payload. */
  readonly payload: string | undefined;
  readonly target: ReadTarget;
}

/** A signature, or why it cannot be read; undefined where there is none. */
export type ReadClaim =
  | { readonly kind: "signed"; readonly claim: Claim }
  | { readonly kind: "malformed" | "unsupported"; readonly why: string }
  | undefined;

/** Parameters of a signature; they are replaced when a request is signed anew. */
export const queryNames = [
  "X-Amz-Algorithm",
  "X-Amz-Credential",
  "X-Amz-Date",
  "X-Amz-Expires",
  "X-Amz-SignedHeaders",
  "X-Amz-Signature",
  "X-Amz-Security-Token",
  "X-Amz-Region-Set",
] as const;

const maxExpires = 604_800;
const maxSignedFields = 100;
const token = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;

/** The value of a parameter by its exact name; undefined where it is absent. */
export function parameterOf(parameters: readonly Parameter[], name: string): string | undefined {
  const found = parameters.find(([own]) => own === name);
  return found === undefined ? undefined : decodeURIComponent(found[1]);
}

/** Whether the request has a signature of Version 4, without reading it. */
export function isSigned(headers: HeaderList, target: string): boolean {
  if (headers.getAll("authorization").some((value) => /^\s*AWS4-/i.test(value))) return true;
  return /[?&]x-amz-(?:algorithm|signature|credential)=/i.test(target);
}

/** Reads the signature of a request strictly: what two readers could take differently is malformed. */
export function readClaim(headers: HeaderList, target: string): ReadClaim {
  const fields = headers.getAll("authorization");
  if (fields.some((value) => /^\s*AWS [^\s:]+:/.test(value)) || /[?&]AWSAccessKeyId=/.test(target))
    return { kind: "unsupported", why: "Signature Version 2 is not signed anew" };
  if (!isSigned(headers, target)) return undefined;
  const read = readTarget(target);
  if (typeof read === "string") return malformed(read);
  const repeated = repeatedName(read.parameters);
  if (repeated !== undefined) return malformed(`its query has ${repeated} twice, or misspelt`);
  const isInQuery = read.parameters.some(([name]) => name === "X-Amz-Signature");
  const isInField = fields.some((value) => /^\s*AWS4-/i.test(value));
  if (isInQuery && fields.length > 0) return malformed("it is signed in its query and in a field");
  if (!isInField && !isInQuery) return malformed("its query is half of a signature");
  if (fields.length > 1) return malformed("it has several Authorization fields");
  const single = ["x-amz-date", "x-amz-security-token", "x-amz-content-sha256", "x-amz-region-set"];
  const twice = single.find((name) => headers.getAll(name).length > 1);
  if (twice !== undefined) return malformed(`it has several fields ${twice}`);
  return isInQuery ? fromQuery(headers, read) : fromField(fields[0] ?? "", headers, read);
}

function malformed(why: string): ReadClaim {
  return { kind: "malformed", why };
}

function repeatedName(parameters: readonly Parameter[]): string | undefined {
  const seen = new Set<string>();
  for (const [name] of parameters) {
    const known = queryNames.find((one) => one.toLowerCase() === name.toLowerCase());
    if (known === undefined) continue;
    if (known !== name || seen.has(name)) return known;
    seen.add(name);
  }
  return undefined;
}

function fromField(value: string, headers: HeaderList, target: ReadTarget): ReadClaim {
  const [, algorithm = "", rest = ""] = /^\s*(\S+)\s+(.*)$/.exec(value) ?? [];
  const parts = new Map<string, string>();
  for (const item of rest.split(",")) {
    const [, name = "", text = ""] = /^\s*([A-Za-z]+)=(\S*)\s*$/.exec(item) ?? [];
    if (name === "" || parts.has(name)) return malformed("its Authorization field cannot be read");
    parts.set(name, text);
  }
  if (parts.size !== 3) return malformed("its Authorization field cannot be read");
  const time = headers.get("x-amz-date") ?? basicTime(headers.get("date"));
  return claimOf({
    place: "header",
    algorithm,
    credential: parts.get("Credential"),
    signed: parts.get("SignedHeaders"),
    signature: parts.get("Signature"),
    time,
    expires: undefined,
    regionSet: headers.get("x-amz-region-set"),
    payload: headers.get("x-amz-content-sha256"),
    target,
  });
}

function fromQuery(headers: HeaderList, target: ReadTarget): ReadClaim {
  const of = (name: string): string | undefined => parameterOf(target.parameters, name);
  return claimOf({
    place: "query",
    algorithm: of("X-Amz-Algorithm") ?? "",
    credential: of("X-Amz-Credential"),
    signed: of("X-Amz-SignedHeaders"),
    signature: of("X-Amz-Signature"),
    time: of("X-Amz-Date"),
    expires: of("X-Amz-Expires") ?? "",
    regionSet: of("X-Amz-Region-Set"),
    payload: of("X-Amz-Content-Sha256") ?? headers.get("x-amz-content-sha256"),
    target,
  });
}

interface Texts extends Pick<Claim, "place" | "payload" | "target"> {
  readonly algorithm: string;
  readonly credential: string | undefined;
  readonly signed: string | undefined;
  readonly signature: string | undefined;
  readonly time: string | undefined;
  readonly expires: string | undefined;
  readonly regionSet: string | undefined;
}

function claimOf(texts: Texts): ReadClaim {
  const { place, payload, target, algorithm, time = "", expires } = texts;
  if (algorithm !== "AWS4-HMAC-SHA256" && algorithm !== "AWS4-ECDSA-P256-SHA256")
    return { kind: "unsupported", why: "its algorithm is none of Signature Version 4 or 4A" };
  const isHmac = algorithm === "AWS4-HMAC-SHA256";
  const read = credentialOf(texts.credential ?? "", algorithm);
  if (read === undefined) return malformed("its credential scope cannot be read");
  const { accessKeyId, scope } = read;
  if (!/^\d{8}T\d{6}Z$/.test(time) || !time.startsWith(scope.day) || Number.isNaN(msOf(time)))
    return malformed("its date cannot be read, or is not that of its credential scope");
  const signed = (texts.signed ?? "").split(";");
  const fieldsFault = signedFieldsFault(signed);
  if (fieldsFault !== undefined) return malformed(fieldsFault);
  const signature = texts.signature ?? "";
  if (!(isHmac ? /^[0-9a-f]{64}$/ : /^(?:[0-9a-f]{2}){8,72}$/).test(signature))
    return malformed("its signature cannot be read");
  const seconds = expires === undefined ? undefined : secondsOf(expires);
  if (seconds !== undefined && Number.isNaN(seconds))
    return malformed("its X-Amz-Expires is not between a second and a week");
  const regionSet = isHmac ? [] : (texts.regionSet ?? "").split(",").map((one) => one.trim());
  if (!regionSet.every((one) => /^[a-z0-9*-]{1,64}$/.test(one)))
    return malformed("its X-Amz-Region-Set cannot be read");
  const claim = { place, accessKeyId, scope, signed, signature, time, payload, target };
  return { kind: "signed", claim: { ...claim, expires: seconds, regionSet } };
}

/** Who signed, and for what; undefined where it cannot be read. */
function credentialOf(
  text: string,
  algorithm: SigningScope["algorithm"],
): Pick<Claim, "accessKeyId" | "scope"> | undefined {
  const pattern =
    algorithm === "AWS4-HMAC-SHA256"
      ? /^(\w{1,128})\/(\d{8})\/([a-z0-9-]{1,64})\/([a-z0-9-]{1,64})\/aws4_request$/
      : /^(\w{1,128})\/(\d{8})()\/([a-z0-9-]{1,64})\/aws4_request$/;
  const [, accessKeyId = "", day = "", region = "", service = ""] = pattern.exec(text) ?? [];
  if (accessKeyId === "") return undefined;
  return { accessKeyId, scope: { algorithm, day, region, service } };
}

function signedFieldsFault(signed: readonly string[]): string | undefined {
  if (signed.length > maxSignedFields || !signed.every((name) => token.test(name)))
    return "its list of signed fields cannot be read";
  const isSorted = signed.every((name, at) => at === 0 || (signed[at - 1] ?? "") < name);
  if (!isSorted) return "its list of signed fields is not sorted";
  return signed.includes("host") ? undefined : "its Host field is not signed";
}

/** NaN where it is not one that AWS takes. */
function secondsOf(expires: string): number {
  const seconds = /^\d{1,6}$/.test(expires) ? Number(expires) : 0;
  return seconds >= 1 && seconds <= maxExpires ? seconds : Number.NaN;
}

/** What a signature of ours is to be like, where the agent made none. */
export function ownClaim(
  own: Pick<Claim, "accessKeyId" | "time" | "payload" | "target"> &
    Pick<SigningScope, "region" | "service">,
): Claim {
  const { region, service, ...rest } = own;
  const day = rest.time.slice(0, 8);
  return {
    ...rest,
    place: "header",
    scope: { algorithm: "AWS4-HMAC-SHA256", day, region, service },
    signed: ["content-type", "host"],
    signature: "",
    expires: undefined,
    regionSet: [],
  };
}

/** The time of an HTTP date in the basic format. */
function basicTime(date: string | undefined): string | undefined {
  const ms = date === undefined ? Number.NaN : Date.parse(date);
  return Number.isNaN(ms) ? undefined : timeOf(ms);
}

/** Milliseconds since the epoch in the basic format. */
export function timeOf(ms: number): string {
  return new Date(ms).toISOString().replace(/[-:]|\.\d+/g, "");
}

/** Milliseconds since the epoch; NaN where it is no time. */
export function msOf(time: string): number {
  return Date.parse(
    time.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, "$1-$2-$3T$4:$5:$6Z"),
  );
}
