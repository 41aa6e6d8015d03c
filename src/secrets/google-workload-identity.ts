/** Tokens of Google for a workload of somewhere else: its own token, exchanged at Google's STS, and a service account if wanted. */
import { readSmallFile } from "../files/watched-file.ts";
import type { Clock } from "../duration.ts";
import { messageOf, ProxyError } from "../errors.ts";
import { objectOf, parseJsonObject, textOf } from "../http/json-access.ts";
import type { OperatorFetch } from "../http/operator-fetch.ts";
import { Secret } from "../secret.ts";
import { accessTokenOf, addressOf, impersonate, type Impersonation } from "./google-tokens.ts";
import { askProvider, type ProviderMeans } from "./provider-call.ts";
import { type Fetched, type SecretFetcher, unavailable } from "./secret-source.ts";

/** Where the workload's own token is. */
export type SubjectSource =
  | { readonly kind: "file"; readonly path: string; readonly member?: string | undefined }
  | {
      readonly kind: "url";
      readonly url: string;
      readonly headers: Readonly<Record<string, string>>;
      readonly member?: string | undefined;
    }
  /** A JWT-SVID of the Workload API for this audience. */
  | { readonly kind: "svid"; readonly audience: string };

/** What is exchanged for what, as the files of type `external_account` say it. */
export interface ExternalAccount {
  /** Of the pool's provider: `//iam.googleapis.com/projects/…`. */
  readonly audience: string;
  readonly subjectTokenType: string;
  readonly subject: SubjectSource;
  readonly tokenUrl: string;
  readonly impersonation?: Omit<Impersonation, "token"> | undefined;
}

/** What a token is asked for. */
export interface GoogleWorkloadIdentityOptions {
  /** Throws ProxyError where the file that says it cannot be used. */
  account(this: void): ExternalAccount;
  readonly token: Impersonation["token"];
  readonly clock: Clock;
}

export const googleStsUrl = "https://sts.googleapis.com/v1/token";
export const jwtTokenType = "urn:ietf:params:oauth:token-type:jwt";
const tokenExchange = "urn:ietf:params:oauth:grant-type:token-exchange";
const accessToken = "urn:ietf:params:oauth:token-type:access_token";
/** What the exchanged token may do where it is only for the impersonation. */
const wholePlatform = "https://www.googleapis.com/auth/cloud-platform";
const maxFileBytes = 64 * 1024;
const usualLifetimeSeconds = 3_600;

/** Asks Google's Security Token Service. */
export class GoogleWorkloadIdentity implements SecretFetcher<Secret, ProviderMeans> {
  readonly #options: GoogleWorkloadIdentityOptions;

  constructor(options: GoogleWorkloadIdentityOptions) {
    this.#options = options;
  }

  async fetch(means: ProviderMeans, signal: AbortSignal): Promise<Fetched> {
    const { account: accountOf, token, clock } = this.#options;
    const { audience, subjectTokenType, subject, tokenUrl, impersonation } = accountOf();
    const own = await subjectToken(subject, means, signal);
    const scopes =
      impersonation === undefined && "scopes" in token ? token.scopes : [wholePlatform];
    const sentAt = clock.now();
    const body = new URLSearchParams({
      grant_type: tokenExchange,
      audience,
      scope: scopes.join(" "),
      requested_token_type: accessToken,
      subject_token: own.reveal(),
      subject_token_type: subjectTokenType,
    });
    const asked = { url: tokenUrl, method: "POST", body, signal } as const;
    const federated = accessTokenOf((await askProvider(means.call, asked)).fields, sentAt);
    return impersonation === undefined
      ? federated
      : impersonate(means.call, { ...impersonation, token }, federated.value, signal);
  }
}

/** Reads a file of type `external_account`; an Error says what is wrong with it, or cannot be done here. */
export function readExternalAccount(text: string): ExternalAccount {
  const fields = parseJsonObject(text);
  if (fields === undefined) throw new Error("it is not a JSON object");
  if (fields["type"] !== "external_account") throw new Error('its type is not "external_account"');
  const audience = textOf(fields["audience"]);
  if (audience === undefined) throw new Error("it has no audience");
  const impersonated = "service_account_impersonation_url";
  const url =
    fields[impersonated] === undefined
      ? undefined
      : addressOf(fields[impersonated], impersonated, "");
  const more = objectOf(fields["service_account_impersonation"]);
  const seconds = more["token_lifetime_seconds"];
  return {
    audience,
    subjectTokenType: textOf(fields["subject_token_type"]) ?? jwtTokenType,
    subject: subjectSourceOf(fields["credential_source"]),
    tokenUrl: addressOf(fields["token_url"], "token_url", googleStsUrl),
    impersonation:
      url === undefined
        ? undefined
        : { url, lifetimeSeconds: typeof seconds === "number" ? seconds : usualLifetimeSeconds },
  };
}

function subjectSourceOf(value: unknown): SubjectSource {
  const source = objectOf(value);
  const format = objectOf(source["format"]);
  const member = format["type"] === "json" ? textOf(format["subject_token_field_name"]) : undefined;
  if (format["type"] === "json" && member === undefined)
    throw new Error("its credential_source.format is json without a subject_token_field_name");
  const path = textOf(source["file"]);
  if (path !== undefined) return { kind: "file", path, member };
  const url = textOf(source["url"]);
  if (url !== undefined && source["environment_id"] === undefined) {
    const given = Object.entries(objectOf(source["headers"]));
    const headers = given.filter((pair): pair is [string, string] => typeof pair[1] === "string");
    addressOf(url, "credential_source.url", "");
    return { kind: "url", url, headers: Object.fromEntries(headers), member };
  }
  throw new Error(
    "its credential_source has no file and no url; those of executable and of AWS cannot be used here",
  );
}

async function subjectToken(
  subject: SubjectSource,
  { call, svids }: ProviderMeans,
  signal: AbortSignal,
): Promise<Secret> {
  if (subject.kind === "svid") {
    if (svids === undefined)
      throw unavailable("the file has no spiffe block to take a JWT-SVID from");
    return (await svids.token(subject.audience)).token;
  }
  const { text, what } =
    subject.kind === "file"
      ? await textOfFile(subject.path)
      : await textOfUrl(subject, call, signal);
  const token = subject.member === undefined ? text : parseJsonObject(text)?.[subject.member];
  if (typeof token !== "string" || !/^[\x21-\x7e]+$/.test(token.trim()))
    throw unavailable(`${what} holds no token`);
  return new Secret(token.trim());
}

async function textOfFile(path: string): Promise<{ readonly text: string; readonly what: string }> {
  try {
    return { text: readSmallFile(path, maxFileBytes).trim(), what: path };
  } catch (error) {
    throw unavailable(`${path}: ${messageOf(error)}`, error);
  }
}

async function textOfUrl(
  { url, headers }: Extract<SubjectSource, { kind: "url" }>,
  call: OperatorFetch,
  signal: AbortSignal,
): Promise<{ readonly text: string; readonly what: string }> {
  const { origin, pathname } = new URL(url);
  const what = `${origin}${pathname}`;
  try {
    const { status, body } = await call(url, { headers, signal, maxBytes: maxFileBytes });
    if (status !== 200) throw unavailable(`${what} answered ${status}`);
    return { text: body.toString("utf8").trim(), what };
  } catch (error) {
    if (!(error instanceof ProxyError) || error.code === "secret.unavailable") throw error;
    throw unavailable(`${what}: ${error.message} (${error.code})`, error);
  }
}
