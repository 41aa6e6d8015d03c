/** Which service and region the name of an AWS endpoint stands for, as far as it says. */
import type { Claim } from "./claim.ts";
import type { AwsRule } from "./config.ts";

const suffixes = [
  ".amazonaws.com",
  ".amazonaws.com.cn",
  ".amazonaws.eu",
  ".api.aws",
  ".on.aws",
] as const;
const region = /^[a-z]{2,4}(?:-[a-z]+)+-\d$/;
/** S3 had its region in the same label once. */
const oldObjectStore = /^(s3(?:-website|-fips)?)[-.]([a-z]{2}(?:-[a-z]+)+-\d)$/;
/** Labels that say how an endpoint is reached and not whose it is. */
const ways: ReadonlySet<string> = new Set(["vpce", "dualstack", "fips"]);
/** Where signing names differ from the label, and do not merely begin it. */
const signingNames: ReadonlyMap<string, readonly string[]> = new Map([
  ["email", ["ses"]],
  ["iot", ["iotdata", "iotdevicegateway", "execute-api"]],
  ["lambda-url", ["lambda"]],
  ["marketplace", ["aws-marketplace"]],
  ["queue", ["sqs"]],
  ["transcribestreaming", ["transcribe"]],
  ["runtime-v2-lex", ["lex"]],
  ["models-v2-lex", ["lex"]],
  ["neptune", ["neptune-db"]],
]);

/** An endpoint of AWS. */
export interface Endpoint {
  /** The label of its service. */
  readonly label: string;
  /** Undefined where the name has none: a service of all regions. */
  readonly region: string | undefined;
}

/** Undefined for a name that is not one of AWS. */
export function endpointOf(host: string): Endpoint | undefined {
  const suffix = suffixes.findLast((one) => host.endsWith(one));
  if (suffix === undefined) return undefined;
  const labels = host.slice(0, -suffix.length).split(".");
  const meant = labels.filter((label) => !ways.has(label));
  const last = meant.at(-1) ?? "";
  const [, old, oldRegion] = oldObjectStore.exec(last) ?? [];
  if (old !== undefined) return { label: old, region: oldRegion };
  const at = meant.findLastIndex((label) => region.test(label));
  if (at === -1) return { label: last, region: undefined };
  // A name such as search-x.us-east-1.es has its service behind the region.
  const label = meant[at + 1] ?? meant[at - 1] ?? "";
  return { label, region: meant[at] };
}

/** Whether requests to the endpoint are signed for this service: `bedrock` for `bedrock-runtime`. */
export function isServiceOf({ label }: Endpoint, service: string): boolean {
  const plain = label.replace(/-fips$/, "");
  if (plain === service || signingNames.get(plain)?.includes(service) === true) return true;
  return plain.startsWith(`${service}-`);
}

/** The name that an unsigned request to the endpoint is signed for. */
export function serviceOf({ label }: Endpoint): string {
  const plain = label.replace(/-fips$/, "");
  if (plain.startsWith("bedrock-") && !plain.startsWith("bedrock-agentcore")) return "bedrock";
  if (/^s3-(?:accesspoint|control|global)/.test(plain)) return "s3";
  return signingNames.get(plain)?.[0] ?? plain;
}

/** The regions of services whose names say none, and the one that stands for all of them. */
export const commonRegions: readonly string[] = [
  "us-east-1",
  "us-gov-west-1",
  "cn-north-1",
  "cn-northwest-1",
  "aws-global",
];

/** Services whose responses hold keys that AWS would take: only where the file names them. */
export const keyGivers: ReadonlySet<string> = new Set([
  "sts",
  "s3express",
  "cognito-identity",
  "sso",
  "signin",
]);

/** What a rule of the file says of a scope. */
export interface AllowedScope {
  readonly services: readonly string[];
  readonly regions: readonly string[];
  readonly signingName: string | undefined;
}

/** For which service and region an unsigned request is signed. */
export function placeOf(
  host: string,
  { services, regions, signing_name: name }: AwsRule,
): { readonly service: string; readonly region: string } {
  const endpoint = endpointOf(host);
  const [only, ...others] = services;
  const [region, ...further] = regions;
  const derived = endpoint === undefined ? "" : serviceOf(endpoint);
  const own = others.length === 0 ? only : undefined;
  const named = further.length === 0 && region !== "*" ? region : undefined;
  return {
    service: name ?? own ?? derived,
    region: named ?? endpoint?.region ?? commonRegions[0] ?? "",
  };
}

/** Why the scope does not fit the host or the file, in words that name the key to set; undefined when it does. */
export function scopeFault(
  host: string,
  { scope, regionSet }: Pick<Claim, "scope" | "regionSet">,
  allowed: AllowedScope,
): string | undefined {
  const { services, regions, signingName } = allowed;
  const { service } = scope;
  const endpoint = endpointOf(host);
  if (signingName !== undefined) {
    if (service !== signingName)
      return `it is signed for the service ${service}, and signing_name of its rule is ${signingName}`;
  } else if (endpoint === undefined && services.length === 0) {
    return `${host} is no endpoint of AWS by its name: set services or signing_name in its rule`;
  } else if (endpoint !== undefined && !isServiceOf(endpoint, service)) {
    return `it is signed for the service ${service}, and ${host} is none of its endpoints (signing_name of its rule says otherwise)`;
  }
  if (services.length > 0 && !services.includes(service))
    return `it is signed for the service ${service}, which is not in services of its rule`;
  if (keyGivers.has(service) && !services.includes(service) && signingName !== service)
    return `responses of ${service} hold keys of AWS: add it to services of its rule to let them through`;
  const asked = scope.algorithm === "AWS4-HMAC-SHA256" ? [scope.region] : regionSet;
  const fault = asked.map((one) => regionFault(host, one, endpoint, allowed)).find(isText);
  if (fault !== undefined || regions.length === 0) return fault;
  const other = asked.find((one) => !regions.includes(one));
  return other === undefined
    ? undefined
    : `it is signed for the region ${other}, which is not in regions of its rule`;
}

function isText(text: string | undefined): text is string {
  return text !== undefined;
}

function regionFault(
  host: string,
  asked: string,
  endpoint: Endpoint | undefined,
  { regions }: AllowedScope,
): string | undefined {
  if (endpoint === undefined) {
    if (regions.length > 0) return undefined;
    return `${host} is no endpoint of AWS by its name: set regions in its rule`;
  }
  if (endpoint.region !== undefined) {
    return endpoint.region === asked
      ? undefined
      : `it is signed for the region ${asked}, and ${host} is in ${endpoint.region}`;
  }
  // Multi-region access points are in every region.
  const isOfAll = endpoint.label === "s3-global" && asked === "*";
  if (isOfAll || commonRegions.includes(asked) || regions.includes(asked)) return undefined;
  return `it is signed for the region ${asked}, and ${host} names none: set regions in its rule`;
}
