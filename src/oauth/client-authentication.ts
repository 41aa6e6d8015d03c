/** How this program proves to a token endpoint which client it is. */
import type { Secret } from "../secret.ts";
import { parseJsonObject } from "../http/json-access.ts";
import type { ClientCertificate, OperatorResponse } from "../http/operator-fetch.ts";

/** The assertion types that token endpoints of the field know, by the word of the configuration file. */
export const assertionTypes = {
  "jwt-spiffe": "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",
  "jwt-bearer": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
} as const;

/** A client secret that may be another one at the next call. */
export interface RenewedSecret {
  /** Rejects with a ProxyError where there is none. */
  current(): Promise<Secret>;
  /** Whether there is another one than the last that was given, which was refused. */
  another(): Promise<boolean>;
}

/** A client's identity and its proof, as of now; made anew for every call because the proof rotates. */
export type ClientAuthentication =
  | {
      readonly method: "client_secret_post" | "client_secret_basic";
      readonly clientId: string;
      readonly clientSecret: Secret | RenewedSecret;
    }
  | {
      readonly method: "client_assertion";
      /** Absent: the assertion alone says who the client is (RFC 7521 section 4.2). */
      readonly clientId?: string;
      /** The assertion, or what makes one that nobody has seen, for the endpoint at this address. */
      readonly assertion: Secret | ((url: string) => Promise<Secret>);
      readonly assertionType: keyof typeof assertionTypes;
    }
  | {
      /** RFC 8705 section 2, both methods: how the endpoint trusts the certificate is its own affair. */
      readonly method: "tls_client_auth";
      readonly clientId: string;
      readonly certificate: ClientCertificate;
    }
  | {
      /** A public client (RFC 6749 section 2.1): its id is all that it has. */
      readonly method: "none";
      readonly clientId: string;
    };

/** The parts of a request that a proof goes into. */
export interface ClientRequest {
  readonly form: URLSearchParams;
  readonly headers: Record<string, string>;
  certificate?: ClientCertificate;
}

/**
 * Adds the proof to a request to `url`; once for each request that is sent.
 *
 * Rejects with a ProxyError where a secret or an assertion cannot be had at the moment.
 */
export async function authenticateClient(
  client: ClientAuthentication,
  url: string,
  request: ClientRequest,
): Promise<void> {
  const { form, headers } = request;
  switch (client.method) {
    case "client_secret_post":
      form.set("client_id", client.clientId);
      form.set("client_secret", (await secretOf(client)).reveal());
      return;
    case "client_secret_basic": {
      const secret = await secretOf(client);
      // RFC 6749 section 2.3.1: both parts are form-encoded before they are joined.
      const pair = `${formEncode(client.clientId)}:${formEncode(secret.reveal())}`;
      headers["authorization"] = `Basic ${Buffer.from(pair, "latin1").toString("base64")}`;
      return;
    }
    case "client_assertion": {
      const { assertion, clientId } = client;
      const proof = typeof assertion === "function" ? await assertion(url) : assertion;
      if (clientId !== undefined) form.set("client_id", clientId);
      form.set("client_assertion_type", assertionTypes[client.assertionType]);
      form.set("client_assertion", proof.reveal());
      return;
    }
    case "tls_client_auth":
      form.set("client_id", client.clientId);
      request.certificate = client.certificate;
      return;
    case "none":
      form.set("client_id", client.clientId);
      return;
  }
}

type SecretClient = Extract<ClientAuthentication, { readonly clientSecret: unknown }>;

async function secretOf({ clientSecret }: SecretClient): Promise<Secret> {
  return "current" in clientSecret ? clientSecret.current() : clientSecret;
}

/** Whether this response refuses the client's secret (RFC 6749 section 5.2) and there is another one to show by now. */
export async function hasAnotherSecret(
  client: ClientAuthentication,
  { status, body }: Pick<OperatorResponse, "status" | "body">,
): Promise<boolean> {
  if (!("clientSecret" in client) || !("another" in client.clientSecret)) return false;
  const error = status === 400 ? parseJsonObject(body.toString("utf8"))?.["error"] : undefined;
  const isRefused = status === 401 || error === "invalid_client" || error === "unauthorized_client";
  return isRefused && client.clientSecret.another();
}

function formEncode(text: string): string {
  return new URLSearchParams([["", text]]).toString().slice(1);
}
