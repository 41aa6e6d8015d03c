/** Signs a request with the real keys, as it leaves: what it covers is what is sent. */
import { ProxyError } from "../../errors.ts";
import type { BodySource } from "../../http/body-source.ts";
import type { LeavingRequest, RequestSigner } from "../../pipeline/plugin.ts";
import {
  canonicalPath,
  canonicalRequest,
  encodedAgain,
  encodedPath,
  isObjectStore,
  type Parameter,
  readTarget,
  type ReadTarget,
  unsignedPayload,
} from "./canonical.ts";
import { type ChunkTerms, ResignedBody, resignedWhole, signedChunks } from "./chunked-body.ts";
import { type Claim, queryNames, timeOf } from "./claim.ts";
import type { RealKeys } from "./temporary-keys.ts";
import {
  scopeText,
  sha256,
  type SigningKeys,
  type SigningScope,
  stringToSign,
} from "./signing-keys.ts";
import { payloadOf } from "./verify.ts";

/** What a request is signed with. */
export interface SignerTerms {
  /** The signature of the agent, or what one of ours is to be like. */
  readonly claim: Claim;
  readonly real: RealKeys;
  /** Absent where the stand-in secret is not known. */
  readonly standIn: SigningKeys | undefined;
  readonly now: number;
  readonly maxChunkBytes: number;
  /** The agent signed nothing: the hash of the payload is put into its field. */
  readonly isNew: boolean;
  /** Told of the signature once there is one. */
  readonly onSigned?: (signature: string) => void;
}

/** One request's signer. */
export class Signer implements RequestSigner {
  readonly #terms: SignerTerms;

  constructor(terms: SignerTerms) {
    this.#terms = terms;
  }

  sign(request: LeavingRequest): ((source: BodySource) => BodySource) | undefined {
    const { claim } = this.#terms;
    const target = readTarget(request.target);
    if (typeof target === "string")
      throw new ProxyError("request.malformed", `the request cannot be signed: ${target}`);
    const payload = this.#payload(request);
    return claim.place === "query"
      ? this.#signQuery(request, target, payload)
      : this.#signField(request, target, payload);
  }

  /** What is covered of the body; a body that a plugin replaced is hashed. */
  #payload(request: LeavingRequest): string {
    const { claim, isNew } = this.#terms;
    const { headers, body, isBodyReplaced } = request;
    if (isBodyReplaced) {
      for (const name of ["x-amz-decoded-content-length", "x-amz-trailer"]) headers.delete(name);
    }
    const covered = payloadOf(claim, body);
    const isAnother = isBodyReplaced && body !== undefined && covered !== unsignedPayload;
    const payload = isAnother ? sha256(body) : covered;
    if (payload === undefined)
      throw new ProxyError("internal.fault", "a request was to be signed whose body was not read");
    const isInField = isNew || headers.has("x-amz-content-sha256");
    if (isInField && claim.place === "header") headers.set("x-amz-content-sha256", payload);
    return payload;
  }

  #signField(
    request: LeavingRequest,
    target: ReadTarget,
    payload: string,
  ): ((source: BodySource) => BodySource) | undefined {
    const { claim, real, now } = this.#terms;
    const { headers } = request;
    const time = timeOf(now);
    const scope: SigningScope = { ...claim.scope, day: time.slice(0, 8) };
    headers.delete("authorization");
    headers.delete("x-amz-security-token");
    headers.set("X-Amz-Date", time);
    if (real.sessionToken !== undefined)
      headers.set("X-Amz-Security-Token", real.sessionToken.reveal());
    const path = this.#sentPath(target);
    const mark = request.target.indexOf("?");
    request.target = mark === -1 ? path : path + request.target.slice(mark);
    const signed = this.#signedFields(request);
    const canonical = canonicalRequest({
      method: request.method,
      path: canonicalPath(path, scope.service),
      parameters: target.parameters,
      headers,
      signed,
      payload,
    });
    const signature = real.keys.sign(scope, stringToSign(scope, time, canonical));
    this.#terms.onSigned?.(signature);
    const credential = `${real.keys.accessKeyId}/${scopeText(scope)}`;
    headers.set(
      "Authorization",
      `${scope.algorithm} Credential=${credential}, SignedHeaders=${signed.join(";")}, Signature=${signature}`,
    );
    if (!signedChunks.has(payload)) return undefined;
    const terms = this.#chunkTerms(request, payload, { scope, time, seed: signature });
    if (request.body === undefined) return (source) => new ResignedBody(source, terms);
    request.body = resignedWhole(request.body, terms);
    return undefined;
  }

  #chunkTerms(
    { headers, budget }: LeavingRequest,
    payload: string,
    to: Omit<ChunkTerms["to"], "keys">,
  ): ChunkTerms {
    const { claim, real, standIn, maxChunkBytes } = this.#terms;
    const length = headers.get("x-amz-decoded-content-length") ?? "";
    const { scope, time, signature } = claim;
    return {
      from: standIn === undefined ? undefined : { keys: standIn, scope, time, seed: signature },
      to: { keys: real.keys, ...to },
      hasTrailer: payload.endsWith("-TRAILER"),
      maxChunkBytes,
      budget,
      decodedLength: /^\d{1,15}$/.test(length) ? Number(length) : undefined,
    };
  }

  /** The URL keeps its date and its end. */
  #signQuery(request: LeavingRequest, target: ReadTarget, payload: string): undefined {
    const { claim, real } = this.#terms;
    const { headers } = request;
    const { scope, time, expires = 0, regionSet } = claim;
    for (const name of ["authorization", "x-amz-date", "x-amz-security-token"])
      headers.delete(name);
    const signed = this.#signedFields(request);
    const token = real.sessionToken?.reveal();
    const own: Parameter[] = [
      ["X-Amz-Algorithm", scope.algorithm],
      ["X-Amz-Credential", encodedAgain(`${real.keys.accessKeyId}/${scopeText(scope)}`)],
      ["X-Amz-Date", time],
      ["X-Amz-Expires", String(expires)],
      ...(token === undefined ? [] : [["X-Amz-Security-Token", encodedAgain(token)] as const]),
      ...(regionSet.length === 0
        ? []
        : [["X-Amz-Region-Set", encodedAgain(regionSet.join(","))] as const]),
      ["X-Amz-SignedHeaders", encodedAgain(signed.join(";"))],
    ];
    const replaced: readonly string[] = queryNames;
    const kept = target.parameters.filter(([name]) => !replaced.includes(name));
    const parameters = [...kept, ...own];
    const path = this.#sentPath(target);
    const canonical = canonicalRequest({
      method: request.method,
      path: canonicalPath(path, scope.service),
      parameters,
      headers,
      signed,
      payload,
    });
    const signature = real.keys.sign(scope, stringToSign(scope, time, canonical));
    this.#terms.onSigned?.(signature);
    const query = [...parameters, ["X-Amz-Signature", signature] as const]
      .map(([name, value]) => `${name}=${value}`)
      .join("&");
    request.target = `${path}?${query}`;
    return undefined;
  }

  /** The keys of an object store are sent in their one spelling, which every server computes the same signature of. */
  #sentPath({ path }: ReadTarget): string {
    const { service } = this.#terms.claim.scope;
    return isObjectStore(service) ? (encodedPath(path) ?? path) : path;
  }

  /** What the agent signed and is still there, and every field that AWS wants signed. */
  #signedFields({ headers }: LeavingRequest): readonly string[] {
    const names = [...headers.entries()].map(([name]) => name.toLowerCase());
    const wanted = new Set(["host", ...this.#terms.claim.signed]);
    const isSigned = (name: string): boolean =>
      wanted.has(name) || (name.startsWith("x-amz-") && name !== "x-amzn-trace-id");
    return [...new Set(names.filter(isSigned))].sort();
  }
}
