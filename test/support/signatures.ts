/**
 * Signatures of requests, made and verified over the bytes that were sent and that arrived: AWS Signature Version 4
 * (docs.aws.amazon.com, "Create a signed AWS API request") in the header and in the query, HTTP Message Signatures
 * (RFC 9421, hmac-sha256) and DPoP proofs (RFC 9449).
 */
import { createHash, createHmac } from "node:crypto";
import {
  decodeProtectedHeader,
  exportJWK,
  generateKeyPair,
  importJWK,
  jwtVerify,
  SignJWT,
} from "jose";

/** A request as it is on the wire; names of fields in the order and spelling of the sender. */
export interface WireRequest {
  readonly method: string;
  /** Path and query, byte for byte. */
  readonly target: string;
  readonly fields: readonly (readonly [name: string, value: string])[];
  readonly body: string;
}

/** What both sides of a test know. */
export interface AwsScope {
  readonly keyId: string;
  readonly secret: string;
  readonly region: string;
  readonly service: string;
}

const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");
const hmac = (key: string | Buffer, text: string): Buffer =>
  createHmac("sha256", key).update(text).digest();

/** RFC 3986 unreserved characters stand, every other byte is %HH. */
function awsEncode(text: string): string {
  return encodeURIComponent(text).replaceAll(
    /[!'()*]/g,
    (one) => `%${one.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function valuesOf({ fields }: WireRequest, name: string): readonly string[] {
  return fields.filter(([field]) => field.toLowerCase() === name).map(([, value]) => value);
}

function valueOf(request: WireRequest, name: string): string | undefined {
  const values = valuesOf(request, name);
  return values.length === 0 ? undefined : values.join(",");
}

function splitTarget(target: string): readonly [path: string, query: string] {
  const mark = target.indexOf("?");
  return mark === -1 ? [target, ""] : [target.slice(0, mark), target.slice(mark + 1)];
}

/** S3 takes the path as it is sent; every other service encodes what was encoded once more. */
function canonicalUri(path: string, service: string): string {
  return service === "s3" ? path : path.split("/").map(awsEncode).join("/");
}

function canonicalQuery(query: string, without: string): string {
  const pairs = query
    .split("&")
    .filter((pair) => pair !== "")
    .map((pair) => {
      const [name = "", ...rest] = pair.split("=");
      return [awsEncode(decodeURIComponent(name)), awsEncode(decodeURIComponent(rest.join("=")))];
    })
    .filter(([name]) => name !== without)
    .map(([name, value]) => `${name}=${value}`);
  return pairs.sort().join("&");
}

/** Task 1 and 2 of the specification, over the request as it is. */
export function awsStringToSign(
  request: WireRequest,
  scope: Omit<AwsScope, "secret" | "keyId">,
  { date, signed, payload }: { date: string; signed: readonly string[]; payload: string },
): string {
  const [path, query] = splitTarget(request.target);
  const headers = signed.map((name) => {
    const values = valuesOf(request, name).map((value) => value.trim().replaceAll(/ +/g, " "));
    return `${name}:${values.join(",")}\n`;
  });
  const canonical = [
    request.method,
    canonicalUri(path, scope.service),
    canonicalQuery(query, "X-Amz-Signature"),
    headers.join(""),
    signed.join(";"),
    payload,
  ].join("\n");
  const place = `${date.slice(0, 8)}/${scope.region}/${scope.service}/aws4_request`;
  return ["AWS4-HMAC-SHA256", date, place, sha256(canonical)].join("\n");
}

/** Task 3. */
export function awsSignature(
  text: string,
  { secret, region, service }: AwsScope,
  date: string,
): string {
  const key = [date.slice(0, 8), region, service, "aws4_request"].reduce<string | Buffer>(
    (above, part) => hmac(above, part),
    `AWS4${secret}`,
  );
  return hmac(key, text).toString("hex");
}

const now = (): string => new Date().toISOString().replaceAll(/[-:]|\.\d+/g, "");

/** The request with an Authorization field that covers every field that it has. */
export function awsSigned(request: WireRequest, scope: AwsScope): WireRequest {
  const date = now();
  const payload = sha256(request.body);
  const fields = [
    ...request.fields,
    ["X-Amz-Date", date],
    ["X-Amz-Content-Sha256", payload],
  ] as const;
  const signed = [...new Set(fields.map(([name]) => name.toLowerCase()))].sort();
  const text = awsStringToSign({ ...request, fields }, scope, { date, signed, payload });
  const credential = `${scope.keyId}/${date.slice(0, 8)}/${scope.region}/${scope.service}/aws4_request`;
  const value = `AWS4-HMAC-SHA256 Credential=${credential}, SignedHeaders=${signed.join(";")}, Signature=${awsSignature(text, scope, date)}`;
  return { ...request, fields: [...fields, ["Authorization", value]] };
}

/** The request with its signature in the query; the body is not covered. */
export function awsPresigned(request: WireRequest, scope: AwsScope): WireRequest {
  const date = now();
  const signed = [...new Set(request.fields.map(([name]) => name.toLowerCase()))].sort();
  const credential = `${scope.keyId}/${date.slice(0, 8)}/${scope.region}/${scope.service}/aws4_request`;
  const query = [
    "X-Amz-Algorithm=AWS4-HMAC-SHA256",
    `X-Amz-Credential=${awsEncode(credential)}`,
    `X-Amz-Date=${date}`,
    "X-Amz-Expires=300",
    `X-Amz-SignedHeaders=${awsEncode(signed.join(";"))}`,
  ].join("&");
  const target = `${request.target}${request.target.includes("?") ? "&" : "?"}${query}`;
  const text = awsStringToSign({ ...request, target }, scope, {
    date,
    signed,
    payload: "UNSIGNED-PAYLOAD",
  });
  return { ...request, target: `${target}&X-Amz-Signature=${awsSignature(text, scope, date)}` };
}

/** Why the AWS signature of a request does not hold; undefined when it does. */
export function awsFault(request: WireRequest, scope: AwsScope): string | undefined {
  const query = new Map(
    splitTarget(request.target)[1]
      .split("&")
      .map((pair) => pair.split("=", 2).map(decodeURIComponent) as [string, string]),
  );
  const header = /SignedHeaders=(.*?), Signature=(.*)$/.exec(
    valueOf(request, "authorization") ?? "",
  );
  const isPresigned = query.has("X-Amz-Signature");
  const list = isPresigned ? query.get("X-Amz-SignedHeaders") : header?.[1];
  const given = isPresigned ? query.get("X-Amz-Signature") : header?.[2];
  const date = isPresigned ? query.get("X-Amz-Date") : valueOf(request, "x-amz-date");
  if (list === undefined || given === undefined || date === undefined) return "it is not signed";
  const payload = isPresigned
    ? "UNSIGNED-PAYLOAD"
    : (valueOf(request, "x-amz-content-sha256") ?? "");
  if (!isPresigned && payload !== sha256(request.body)) return "the body is another";
  const signed = list.split(";");
  const missing = signed.find((name) => valueOf(request, name) === undefined);
  if (missing !== undefined) return `the signed field ${missing} is gone`;
  const text = awsStringToSign(request, scope, { date, signed, payload });
  return awsSignature(text, scope, date) === given ? undefined : "the signature is another";
}

const components = ["@method", "@path", "@query"] as const;

function signatureBase(request: WireRequest, names: readonly string[], parameters: string): string {
  const [path, query] = splitTarget(request.target);
  const derived: Readonly<Record<string, string>> = {
    "@method": request.method,
    "@path": path,
    "@query": `?${query}`,
  };
  const lines = names.map((name) => {
    const value =
      derived[name] ??
      valuesOf(request, name)
        .map((one) => one.trim())
        .join(", ");
    return `"${name}": ${value}`;
  });
  return [...lines, `"@signature-params": ${parameters}`].join("\n");
}

/** The request with a signature of RFC 9421 over its method, target and every field that it has. */
export function messageSigned(request: WireRequest, secret: string): WireRequest {
  const digest = createHash("sha256").update(request.body).digest("base64");
  const fields = [...request.fields, ["Content-Digest", `sha-256=:${digest}:`]] as const;
  const names = [...components, ...new Set(fields.map(([name]) => name.toLowerCase()))];
  const list = names.map((name) => `"${name}"`).join(" ");
  const parameters = `(${list});created=${Math.floor(Date.now() / 1000)};keyid="k";alg="hmac-sha256"`;
  const made = hmac(secret, signatureBase({ ...request, fields }, names, parameters));
  return {
    ...request,
    fields: [
      ...fields,
      ["Signature-Input", `sig1=${parameters}`],
      ["Signature", `sig1=:${made.toString("base64")}:`],
    ],
  };
}

/** Why the message signature of a request does not hold. */
export function messageFault(request: WireRequest, secret: string): string | undefined {
  const parameters = valueOf(request, "signature-input")?.replace(/^sig1=/, "") ?? "";
  const names = [...(/^\(([^)]*)\)/.exec(parameters)?.[1] ?? "").matchAll(/"([^"]*)"/g)].map(
    ([, name = ""]) => name,
  );
  const missing = names.find(
    (name) => !name.startsWith("@") && valueOf(request, name) === undefined,
  );
  if (missing !== undefined) return `the signed field ${missing} is gone`;
  const digest = createHash("sha256").update(request.body).digest("base64");
  if (valueOf(request, "content-digest") !== `sha-256=:${digest}:`) return "the body is another";
  const made = hmac(secret, signatureBase(request, names, parameters)).toString("base64");
  return valueOf(request, "signature") === `sig1=:${made}:`
    ? undefined
    : "the signature is another";
}

/** The request with a proof of a fresh key for its URL without the query. */
export async function dpopProved(request: WireRequest, origin: string): Promise<WireRequest> {
  const { privateKey, publicKey } = await generateKeyPair("ES256");
  const [path] = splitTarget(request.target);
  const proof = await new SignJWT({ htm: request.method, htu: `${origin}${path}`, jti: "1" })
    .setProtectedHeader({ alg: "ES256", typ: "dpop+jwt", jwk: await exportJWK(publicKey) })
    .setIssuedAt()
    .sign(privateKey);
  return {
    ...request,
    fields: [...request.fields, ["Authorization", "DPoP token"], ["DPoP", proof]],
  };
}

/** Why the proof of a request does not hold at an origin. */
export async function dpopFault(request: WireRequest, origin: string): Promise<string | undefined> {
  const proof = valueOf(request, "dpop") ?? "";
  const { jwk } = decodeProtectedHeader(proof);
  if (jwk === undefined) return "there is no key";
  const { payload } = await jwtVerify(proof, await importJWK(jwk, "ES256"));
  const [path] = splitTarget(request.target);
  if (payload["htm"] !== request.method) return "htm is another";
  if (valueOf(request, "authorization") !== "DPoP token") return "the token is another";
  return payload["htu"] === `${origin}${path}` ? undefined : "htu is another";
}
