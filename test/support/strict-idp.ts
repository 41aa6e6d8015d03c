/**
 * An authorization server that believes no client: oidc-provider over TLS, with a client for every way to prove itself.
 *
 * Its exchange grant looks at nothing but the client, and issues an opaque token that names client and audience.
 */
import type { X509Certificate } from "node:crypto";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import type { TLSSocket } from "node:tls";
import {
  decodeJwt,
  decodeProtectedHeader,
  exportJWK,
  generateKeyPair,
  type JWTPayload,
  type ProtectedHeaderParameters,
} from "jose";
import {
  type Adapter,
  type AdapterPayload,
  type ClientMetadata,
  errors,
  type KoaContextWithOIDC,
  Provider,
} from "oidc-provider";
import type { ServerCertificate } from "./certs.ts";

const exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange";

/** How a client proved itself. */
export interface ProvenCall {
  readonly clientId: string;
  readonly method: string;
  readonly resource: string | undefined;
  /** Header and claims of its assertion. */
  readonly assertion: (JWTPayload & { readonly header: ProtectedHeaderParameters }) | undefined;
  /** SHA-256 of its certificate, as OpenSSL writes it. */
  readonly fingerprint: string | undefined;
}

/** What to make of it. */
export interface StrictIdpOptions {
  readonly server: ServerCertificate;
  /** The authority of client certificates, in PEM. */
  readonly clientCa: string;
  /** Without the members that all have in common. */
  readonly clients: readonly ClientMetadata[];
}

/** A running authorization server. */
export class StrictIdp {
  /** Exchanges that were granted, and the client's proof in each. */
  readonly granted: ProvenCall[] = [];
  /** Why clients were refused. */
  readonly refused: string[] = [];
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start({ server: own, clientCa, clients }: StrictIdpOptions): Promise<StrictIdp> {
    const server = createServer({
      ...own,
      ca: clientCa,
      requestCert: true,
      // What is not of the authority may still be self-signed: the client's registration decides.
      rejectUnauthorized: false,
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const idp = new StrictIdp(server);
    const provider = await idp.#provider(clients);
    const answer = provider.callback();
    server.on("request", (request, response) => void answer(request, response));
    return idp;
  }

  get issuer(): string {
    const { port } = this.#server.address() as AddressInfo;
    return `https://127.0.0.1:${port}`;
  }

  get tokenUrl(): string {
    return `${this.issuer}/token`;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #provider(clients: readonly ClientMetadata[]): Promise<Provider> {
    const { privateKey } = await generateKeyPair("ES256", { extractable: true });
    const common = {
      redirect_uris: [],
      response_types: [],
      grant_types: [exchangeGrant],
      id_token_signed_response_alg: "ES256" as const,
    };
    const provider = new Provider(this.issuer, {
      adapter: MemoryStore,
      jwks: { keys: [{ ...(await exportJWK(privateKey)), alg: "ES256", use: "sig" }] },
      clients: clients.map((client) => ({ ...common, ...client })),
      clientAuthMethods: [
        "client_secret_basic",
        "client_secret_post",
        "private_key_jwt",
        "tls_client_auth",
        "self_signed_tls_client_auth",
      ],
      enabledJWA: {
        clientAuthSigningAlgValues: ["RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"],
      },
      features: {
        devInteractions: { enabled: false },
        mTLS: {
          enabled: true,
          tlsClientAuth: true,
          selfSignedTlsClientAuth: true,
          getCertificate: (context) => certificateOf(context)?.toString() ?? "",
          certificateAuthorized: (context) => (context.socket as TLSSocket).authorized,
          certificateSubjectMatches: (context, property, expected) =>
            property === "tls_client_auth_san_uri" &&
            certificateOf(context)?.subjectAltName === `URI:${expected}`,
        },
      },
    });
    provider.on("grant.error", (_context, error) => {
      this.refused.push(error.error_detail ?? error.error_description ?? error.message);
    });
    provider.registerGrantType<Record<string, string | undefined>>(
      exchangeGrant,
      async (context) => this.#grant(context),
      ["subject_token", "subject_token_type", "requested_token_type", "audience", "resource"],
    );
    return provider;
  }

  async #grant(context: KoaContextWithOIDC): Promise<void> {
    const { client, params = {} } = context.oidc;
    if (client === undefined) throw new errors.InvalidClient("no client");
    const text = (name: string): string | undefined => {
      const value = params[name];
      return typeof value === "string" ? value : undefined;
    };
    const assertion = text("client_assertion");
    this.granted.push({
      clientId: client.clientId,
      method: client.clientAuthMethod ?? "",
      resource: text("resource"),
      assertion:
        assertion === undefined
          ? undefined
          : { ...decodeJwt(assertion), header: decodeProtectedHeader(assertion) },
      fingerprint: certificateOf(context)?.fingerprint256,
    });
    context.body = {
      access_token: `${client.clientId}-for-${text("audience") ?? ""}`,
      issued_token_type: "urn:ietf:params:oauth:token-type:access_token",
      token_type: "Bearer",
      expires_in: 300,
    };
    await Promise.resolve();
  }
}

function certificateOf(context: KoaContextWithOIDC): X509Certificate | undefined {
  return (context.socket as TLSSocket).getPeerX509Certificate();
}

/** Nothing of it outlives the server. oidc-provider's own is for development, and says so. */
class MemoryStore implements Adapter {
  readonly #entries = new Map<string, AdapterPayload>();

  upsert(id: string, payload: AdapterPayload): Promise<void> {
    this.#entries.set(id, payload);
    return Promise.resolve();
  }

  find(id: string): Promise<AdapterPayload | undefined> {
    return Promise.resolve(this.#entries.get(id));
  }

  findByUserCode(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  findByUid(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  consume(): Promise<void> {
    return Promise.resolve();
  }

  destroy(id: string): Promise<void> {
    this.#entries.delete(id);
    return Promise.resolve();
  }

  revokeByGrantId(): Promise<void> {
    return Promise.resolve();
  }
}
