/** What proves which client this proxy is, for each type of `identity`. */
import { durationMs } from "../../duration.ts";
import {
  certifiedKey,
  readSigningKey,
  signAssertion,
  type SigningKey,
} from "../../oauth/client-assertion.ts";
import type { ClientAuthentication, RenewedSecret } from "../../oauth/client-authentication.ts";
import type { ClientCertificate } from "../../http/operator-fetch.ts";
import { readCertificateChain } from "../../oauth/pem.ts";
import { unverifiedClaims } from "../../oauth/unverified-claims.ts";
import { Secret } from "../../secret.ts";
import type { SecretSource } from "../../secrets/secret-source.ts";
import { credentialText } from "../../files/watched-file.ts";
import { clientCertificateOf } from "./client-certificate.ts";
import { type ClientIdentityConfig, defaultSecretFile } from "./client-identity-config.ts";
import {
  type CredentialFiles,
  type Current,
  type IdentityDeps,
  refuse,
} from "./credential-files.ts";

/** The proof as it is now. */
export interface Proof {
  /** Compared by identity: another credential is another object. */
  readonly credential: object;
  /** How the client with this id shows it. `named` is empty where the form is to leave the id out. */
  show(id: string, named: { readonly clientId?: string }): ClientAuthentication;
}

/** Where a proof comes from. */
export interface ProofSource extends Current<Proof> {
  /** What a call begins with where nothing is at hand: it fetches its proof, and fails where there is none to be had. */
  readonly fetched?: Proof;
}

type Source = (
  identity: ClientIdentityConfig,
  files: CredentialFiles,
  deps: IdentityDeps,
) => ProofSource;

/** By `identity.type`. */
export const proofSources: Readonly<Record<ClientIdentityConfig["type"], Source>> = {
  "client-secret": secret,
  spiffe: jwtSvid,
  "private-key-jwt": signer,
  "tls-client-auth": certificate,
  "kubernetes-service-account": serviceAccount,
};

function secret(
  identity: ClientIdentityConfig,
  files: CredentialFiles,
  { clientSecret: source }: IdentityDeps,
): ProofSource {
  const { client_auth_method: method, client_secret_file: path = defaultSecretFile } = identity;
  const proofOf = (text: string): Proof => {
    const clientSecret = new Secret(text);
    return {
      credential: clientSecret,
      show: (clientId) => ({ method, clientId, clientSecret }),
    };
  };
  if (source !== undefined) return files.watch(sourcedSecret(method, source));
  const { client_secret: inline } = identity;
  if (typeof inline !== "string") return files.file(path, (text) => proofOf(credentialText(text)));
  const proof = proofOf(inline);
  return { problem: undefined, current: () => proof };
}

/** A secret that its source renews; a call that finds none waits for one, as long as the source lets it. */
function sourcedSecret(
  method: ClientIdentityConfig["client_auth_method"],
  source: SecretSource,
): ProofSource {
  let last: Secret | undefined;
  const proof: Proof = {
    /** Another object where the source gave another text. */
    get credential() {
      const held = source.current();
      // Whoever shows the proof is told.
      if (held instanceof Promise) held.catch(() => undefined);
      else if (held.value.reveal() !== last?.reveal()) last = held.value;
      return last ?? source;
    },
    show: (clientId) => {
      let shown: Secret | undefined;
      const clientSecret: RenewedSecret = {
        current: async () => (shown = (await source.current()).value),
        another: async () => shown !== undefined && source.another(shown),
      };
      return { method, clientId, clientSecret };
    },
  };
  return {
    get problem() {
      return source.notReady();
    },
    current: () => (source.notReady() === undefined ? proof : undefined),
    fetched: proof,
  };
}

function jwtSvid(
  identity: ClientIdentityConfig,
  files: CredentialFiles,
  { jwtSvids: source }: IdentityDeps,
): ProofSource {
  const { jwt_svid_file: path, assertion_type: type, jwt_audience: audience = "" } = identity;
  if (path !== undefined) return assertionOf({ path, what: "JWT-SVID", type }, identity, files);
  if (source === undefined)
    refuse("type", "spiffe needs a spiffe block in the file, or identity.jwt_svid_file");
  const proof: Proof = {
    credential: source,
    show: (_id, named) => ({
      method: "client_assertion",
      ...named,
      assertion: async () => (await source.token(audience)).token,
      assertionType: type,
    }),
  };
  const own = {
    get problem() {
      return source.notReady(audience);
    },
    current: () => (own.problem === undefined ? proof : undefined),
    // A token that ended while nobody called is no reason to refuse the next call.
    fetched: proof,
  };
  files.watch(own);
  return own;
}

function serviceAccount(identity: ClientIdentityConfig, files: CredentialFiles): Current<Proof> {
  const { service_account_token_file: path = "" } = identity;
  return assertionOf({ path, what: "service account token", type: "jwt-bearer" }, identity, files);
}

interface AssertionFile {
  readonly path: string;
  readonly what: string;
  readonly type: ClientIdentityConfig["assertion_type"];
}

/** An assertion that somebody else signs and renews in a file. */
function assertionOf(
  { path, what, type: assertionType }: AssertionFile,
  { jwt_audience: audience = "" }: ClientIdentityConfig,
  files: CredentialFiles,
): Current<Proof> {
  const read = (text: string): Proof & { readonly endsAt: number } => {
    const assertion = new Secret(text);
    return {
      credential: assertion,
      endsAt: endOf(text, audience, what),
      show: (_id, named) => ({ method: "client_assertion", ...named, assertion, assertionType }),
    };
  };
  const file = files.file(path, (text) => read(credentialText(text)));
  return files.lasting(file, path, what);
}

/** An assertion for somebody else must not be shown to the token endpoint: it could be replayed there. */
function endOf(text: string, audience: string, what: string): number {
  const claims = unverifiedClaims(text);
  if (claims === undefined) throw new Error("it is not a JWT");
  if (!claims.audience.includes(audience))
    throw new Error(`the ${what} is not for audience ${audience}`);
  return (claims.expiresAt ?? Number.POSITIVE_INFINITY) * 1000;
}

function signer(
  identity: ClientIdentityConfig,
  files: CredentialFiles,
  { clock }: IdentityDeps,
): Current<Proof> {
  const {
    signing_key_file: path = "",
    signing_key_id: keyId,
    signing_algorithm: algorithm,
    signing_certificate_file: certificatePath,
    jwt_audience: audience,
  } = identity;
  const lifetimeMs = durationMs(identity.assertion_lifetime);
  const readKey = (text: string): SigningKey => {
    const read = readSigningKey(credentialText(text), algorithm);
    return keyId === undefined ? read : { ...read, keyId };
  };
  const proofOf = (key: SigningKey): Proof => ({
    credential: key,
    show: (clientId, named) => ({
      method: "client_assertion",
      ...named,
      assertion: (url) =>
        signAssertion(key, { clientId, audience: audience ?? url, lifetimeMs }, clock),
      assertionType: "jwt-bearer",
    }),
  });
  if (certificatePath === undefined)
    return files.checked("signing_key_file", path, (text) => proofOf(readKey(text)));
  const key = files.checked("signing_key_file", path, readKey);
  const chain = files.checked("signing_certificate_file", certificatePath, readCertificateChain);
  return files.pair(
    { key: "signing_certificate_file", path: certificatePath },
    chain,
    key,
    (known, signing) => proofOf(certifiedKey(signing, known)),
  );
}

function certificate(
  identity: ClientIdentityConfig,
  files: CredentialFiles,
  { x509Svids: source }: IdentityDeps,
): Current<Proof> {
  const { client_certificate_file: path, client_certificate_key_file: keyPath } = identity;
  if (path !== undefined && keyPath !== undefined) return certificateFiles(path, keyPath, files);
  if (source === undefined)
    refuse(
      "type",
      "tls-client-auth needs a spiffe block in the file, or identity.client_certificate_file",
    );
  return files.watch({
    get problem() {
      return source.notReady();
    },
    current: () => {
      const svid = source.current();
      return svid === undefined ? undefined : certificateProof(svid);
    },
  });
}

function certificateFiles(path: string, keyPath: string, files: CredentialFiles): Current<Proof> {
  const certificate = clientCertificateOf(path, keyPath, files);
  const proofs = new WeakMap<ClientCertificate, Proof>();
  return {
    get problem() {
      return certificate.problem;
    },
    current: () => {
      const shown = certificate.current();
      if (shown === undefined) return undefined;
      const proof = proofs.get(shown) ?? certificateProof(shown);
      proofs.set(shown, proof);
      return proof;
    },
  };
}

function certificateProof(certificate: ClientCertificate): Proof {
  return {
    credential: certificate,
    show: (clientId) => ({ method: "tls_client_auth", clientId, certificate }),
  };
}
