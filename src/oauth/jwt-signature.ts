/** Signatures of JWTs by an issuer's keys, whatever the token is for, and in words what is wrong with one. */
import {
  decodeJwt,
  decodeProtectedHeader,
  errors,
  jwtVerify,
  type CryptoKey,
  type JWSHeaderParameters,
  type JWTPayload,
  type JWTVerifyOptions,
} from "jose";
import {
  type JwtRules,
  shown,
  type TokenFault,
  type TokenFaultCause,
  type TokenParts,
} from "./token-checks.ts";

/** The keys that a verifier asks; see JwksSource. */
export interface VerificationKeys {
  readonly withdrawals: number;
  /** The keys that fit the header, at least one. */
  keysFor(header: JWSHeaderParameters): Promise<readonly CryptoKey[]>;
  /** Those that fit besides the ones that were tried in vain, from a newer key set. */
  keysBeside(tried: readonly CryptoKey[], header: JWSHeaderParameters): Promise<CryptoKey[]>;
  /** Called for each token that is remembered: its key may have been withdrawn meanwhile. */
  refresh(): void;
}

/** Three non-empty parts in the base64url alphabet: no JWE, no unsecured JWS, no detached payload. */
export const compactJws = /^[\w-]+\.[\w-]+\.[\w-]+$/;
/** The claims are judged by token-checks.ts: what jose would say of dates is put out of reach. */
const signatureOnly = { clockTolerance: Number.MAX_SAFE_INTEGER } as const;

type SignatureRules = Pick<JwtRules, "algorithms" | "issuer">;

/** Tries each fitting key, then those of a newer set; whatever but the signature is wrong is so under every key. */
export async function signedParts(
  text: string,
  keys: VerificationKeys,
  rules: SignatureRules,
  now: number,
): Promise<TokenParts> {
  if (!compactJws.test(text)) throw new Unacceptable(notCompact);
  const options: JWTVerifyOptions = {
    ...signatureOnly,
    algorithms: [...rules.algorithms],
    currentDate: new Date(now),
  };
  let known: readonly CryptoKey[] = [];
  let header: JWSHeaderParameters = {};
  const firstOf = async (given: JWSHeaderParameters): Promise<CryptoKey> => {
    header = given;
    known = await keys.keysFor(given);
    const [first] = known;
    if (first === undefined) throw new errors.JWKSNoMatchingKey();
    return first;
  };
  try {
    return partsIn(await jwtVerify(text, firstOf, options));
  } catch (error) {
    if (!isKeysFault(error) || known.length === 0) throw error;
    return await signedUnder(known.slice(1), text, options, error).catch(async (fault: unknown) => {
      if (!isKeysFault(fault)) throw fault;
      const newer = await keys.keysBeside(known, header);
      return signedUnder(newer, text, options, fault);
    });
  }
}

/** What jose threw, or a check of ours, in the words for operators. */
export function signatureFault(
  error: unknown,
  text: string,
  { issuer, algorithms }: SignatureRules,
): TokenFault {
  if (error instanceof Unacceptable) return error.fault;
  const { header, payload } = partsOf(text) ?? { header: {}, payload: {} };
  // Keys of another issuer explain most of these: that claim is unverified, and is shown as what came.
  const alien = payload.iss === issuer ? "" : ` in a token whose iss is ${shown(payload.iss)}`;
  const key = (cause: TokenFaultCause, expected: string): TokenFault => {
    const found = `${header.kid === undefined ? "no kid" : shown(header.kid)}${alien}`;
    return { cause, claim: "kid", expected, found };
  };
  if (error instanceof errors.JOSEAlgNotAllowed) {
    const expected = algorithms.join(" or ");
    return { cause: "algorithm_not_allowed", claim: "alg", expected, found: shown(header.alg) };
  }
  if (error instanceof errors.JWKSNoMatchingKey) {
    return key("unknown_key", "a key of the issuer's key set");
  }
  if (error instanceof errors.JOSEError && !isKeysFault(error)) {
    const claim = error instanceof errors.JWTClaimValidationFailed ? { claim: error.claim } : {};
    return { cause: "malformed", ...claim, expected: "a JWT", found: shown(error.message) };
  }
  // A key that the issuer published and the runtime cannot use is a token that cannot be verified.
  return key("bad_signature", "a signature by that key of the issuer");
}

/** A check of ours that a token fails. */
export class Unacceptable extends Error {
  readonly fault: TokenFault;

  constructor(fault: TokenFault) {
    super(fault.cause);
    this.fault = fault;
  }
}

/** What is wrong with a text that is no JWT at all. */
export const notCompact: TokenFault = {
  cause: "malformed",
  expected: "a compact JWS",
  found: "something else",
};

/** Header and claims as they came, whoever wrote them; undefined where there are none to read. */
export function partsOf(text: string): TokenParts | undefined {
  if (!compactJws.test(text)) return undefined;
  try {
    return { header: decodeProtectedHeader(text), payload: decodeJwt(text) };
  } catch {
    return undefined;
  }
}

/** What the first of the keys that fits verifies; rejects with the last fault, at first that of the keys before. */
async function signedUnder(
  keys: readonly CryptoKey[],
  text: string,
  options: JWTVerifyOptions,
  before: unknown,
): Promise<TokenParts> {
  let last = before;
  for (const key of keys) {
    try {
      return partsIn(await jwtVerify(text, key, options));
    } catch (fault) {
      last = fault;
      if (!isKeysFault(fault)) break;
    }
  }
  throw last;
}

/** Another key may do: the signature is not by this one, or the runtime cannot use it (e.g. a short RSA key). */
function isKeysFault(error: unknown): boolean {
  return (
    error instanceof errors.JWSSignatureVerificationFailed || !(error instanceof errors.JOSEError)
  );
}

function partsIn(verified: {
  readonly protectedHeader: JWSHeaderParameters;
  readonly payload: JWTPayload;
}): TokenParts {
  return { header: verified.protectedHeader, payload: verified.payload };
}
