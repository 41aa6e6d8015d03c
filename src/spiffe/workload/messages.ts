/** The messages of the SPIFFE Workload API, as its specification writes them in protocol buffers. */
import type { RawSvid } from "../x509-svid.ts";
import { bytesOf, fieldOf, mapOf, readFields, repeatedOf, textOf } from "../../grpc/protobuf.ts";

/** `X509SVIDResponse`: it replaces all that an earlier one said. */
export interface X509Response {
  /** The first one is the identity to show where nobody says which. */
  readonly svids: readonly (RawSvid & {
    /** The authorities of its trust domain in DER, one behind the other. */
    readonly bundle: Buffer;
  })[];
  /** The same of other trust domains, by their SPIFFE IDs. */
  readonly federatedBundles: ReadonlyMap<string, Buffer>;
}

/** One `JWTSVID`. */
export interface RawJwtSvid {
  readonly spiffeId: string;
  readonly token: string;
}

/** Throws an Error where the bytes are no such message. */
export function readX509Response(message: Buffer): X509Response {
  const fields = readFields(message);
  return {
    svids: repeatedOf(fields, 1).map((bytes) => {
      const svid = readFields(bytes);
      return {
        spiffeId: textOf(svid, 1),
        certificates: bytesOf(svid, 2),
        privateKey: bytesOf(svid, 3),
        bundle: bytesOf(svid, 4),
      };
    }),
    federatedBundles: mapOf(fields, 3),
  };
}

/** `JWTBundlesResponse`: key sets by the SPIFFE IDs of trust domains. Throws an Error where the bytes are none. */
export function readJwtBundles(message: Buffer): ReadonlyMap<string, Buffer> {
  return mapOf(readFields(message), 1);
}

/** `JWTSVIDRequest`. */
export function writeJwtRequest(audience: string): Buffer {
  return fieldOf(1, audience);
}

/** `JWTSVIDResponse`. Throws an Error where the bytes are no such message. */
export function readJwtResponse(message: Buffer): RawJwtSvid[] {
  return repeatedOf(readFields(message), 1).map((bytes) => {
    const svid = readFields(bytes);
    return { spiffeId: textOf(svid, 1), token: textOf(svid, 2) };
  });
}
