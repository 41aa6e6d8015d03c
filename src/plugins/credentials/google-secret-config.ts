/** The keys of secrets that Google issues: to a service account by its key, and to workloads of somewhere else. */
import { z } from "zod";
import { readSmallFile } from "../../files/watched-file.ts";
import { googleTokenUrl, readServiceAccountKey } from "../../secrets/google-service-account.ts";
import {
  type ExternalAccount,
  googleStsUrl,
  jwtTokenType,
  readExternalAccount,
} from "../../secrets/google-workload-identity.ts";
import { originOf, serviceUrl, words } from "../config-values.ts";
import { scopes, waiting } from "./stored-secret-config.ts";

const googleIamUrl = "https://iamcredentials.googleapis.com";

const googleScopes = scopes
  .optional()
  .describe("Scopes of an access token, such as https://www.googleapis.com/auth/cloud-platform.");

/** A key file. */
export const googleKeySource = z
  .strictObject({
    type: z
      .literal("google_service_account")
      .describe("An access token or ID token of a Google service account, by its key file."),
    credentials_file: words().describe("The key file in JSON, read again when it changes."),
    scopes: googleScopes,
    audience: words().optional().describe("In place of scopes: an ID token for this audience."),
    subject: words()
      .optional()
      .describe("The user to act for, by domain-wide delegation (access tokens only)."),
    token_url: serviceUrl().optional().describe("Default: token_uri of the key file."),
    ...waiting,
  })
  .superRefine(({ scopes: given, audience, subject }, context) => {
    const refuse = (key: string, message: string): void =>
      context.addIssue({ code: "custom", path: [key], message });
    if ((given === undefined) === (audience === undefined))
      refuse("scopes", "set either scopes or audience");
    if (audience !== undefined && subject !== undefined)
      refuse("subject", "has no effect with audience: only access tokens are for a user");
  });

/** What a credentials_file says as well, besides the workload's own token. */
const besides = [
  "audience",
  "subject_token_type",
  "service_account",
  "sts_url",
  "iam_url",
] as const;

/** Workload identity federation. */
export const googleFederatedSource = z
  .strictObject({
    type: z
      .literal("google_workload_identity")
      .describe("A token of Google for a workload of somewhere else, without a key."),
    credentials_file: words()
      .optional()
      .describe(
        "The file of type external_account that gcloud writes, with a credential_source of file or url. Or the keys below, down to iam_url.",
      ),
    audience: words()
      .optional()
      .describe("The pool's provider: //iam.googleapis.com/projects/…/providers/NAME."),
    subject_token_file: words().optional().describe("File with the workload's own token."),
    subject_token_url: serviceUrl().optional().describe("Address that answers with that token."),
    jwt_svid_audience: words()
      .optional()
      .describe("The workload's own token is a JWT-SVID of the block spiffe for this audience."),
    subject_token_type: words()
      .optional()
      .describe(`What kind of token it is. Default: ${jwtTokenType}.`),
    service_account: words()
      .regex(/^[^\s/?#:]+$/, { error: "must be the e-mail address of a service account" })
      .optional()
      .describe("E-mail address of a service account to impersonate."),
    sts_url: serviceUrl().optional().describe(`Security Token Service. Default: ${googleStsUrl}.`),
    iam_url: serviceUrl()
      .optional()
      .describe(`Where service_account is impersonated. Default: ${googleIamUrl}.`),
    scopes: googleScopes,
    id_token_audience: words()
      .optional()
      .describe("In place of scopes: an ID token of the service account for this audience."),
    ...waiting,
  })
  .superRefine((source, context) => {
    const refuse = (key: string, message: string): void =>
      context.addIssue({ code: "custom", path: [key], message });
    const own = ["subject_token_file", "subject_token_url", "jwt_svid_audience"] as const;
    const set = own.filter((key) => source[key] !== undefined);
    if (source.credentials_file !== undefined) {
      for (const key of [...set, ...besides])
        if (source[key] !== undefined) refuse(key, "has no effect with credentials_file");
    } else {
      if (source.iam_url !== undefined && source.service_account === undefined)
        refuse("iam_url", "has no effect without service_account");
      if (source.audience === undefined) refuse("audience", "is required without credentials_file");
      if (set.length !== 1) refuse(set[1] ?? own[0], `set one of ${own.join(", ")}`);
      if (source.id_token_audience !== undefined && source.service_account === undefined)
        refuse("service_account", "is required for an ID token: Google's STS issues none");
    }
    if ((source.scopes === undefined) === (source.id_token_audience === undefined))
      refuse("scopes", "set either scopes or id_token_audience");
  });

type KeyConfig = z.output<typeof googleKeySource>;
type FederatedConfig = z.output<typeof googleFederatedSource>;

/** The origin of the token endpoint; of a file that is not there yet, the usual one. */
export function keyOrigins({ credentials_file: path, token_url: url }: KeyConfig): string[] {
  const key = readNow(path, readServiceAccountKey);
  return [originOf(url ?? key?.tokenUrl ?? googleTokenUrl)];
}

/** The origins of the STS, of the impersonation and of the workload's own token. */
export function federationOrigins(source: FederatedConfig): string[] {
  const account =
    source.credentials_file === undefined
      ? externalAccountOf(source)
      : readNow(source.credentials_file, readExternalAccount);
  const urls =
    account === undefined
      ? [googleStsUrl, googleIamUrl]
      : [account.tokenUrl, account.impersonation?.url, subjectUrl(account)];
  return urls.flatMap((url) => (url === undefined ? [] : originOf(url)));
}

function subjectUrl({ subject }: ExternalAccount): string | undefined {
  return subject.kind === "url" ? subject.url : undefined;
}

/** The account that the keys describe, where no file does. */
export function externalAccountOf(source: FederatedConfig): ExternalAccount {
  const { audience = "", subject_token_file: path, subject_token_url: url } = source;
  const { service_account: email, jwt_svid_audience: svidAudience = "" } = source;
  const { sts_url: tokenUrl = googleStsUrl, iam_url: iamUrl = googleIamUrl } = source;
  const iam = iamUrl.replace(/\/+$/, "");
  const account = `${iam}/v1/projects/-/serviceAccounts/${encodeURI(email ?? "")}`;
  return {
    audience,
    subjectTokenType: source.subject_token_type ?? jwtTokenType,
    tokenUrl,
    subject:
      path !== undefined
        ? { kind: "file", path }
        : url !== undefined
          ? { kind: "url", url, headers: {} }
          : { kind: "svid", audience: svidAudience },
    impersonation:
      email === undefined
        ? undefined
        : { url: `${account}:generateAccessToken`, lifetimeSeconds: 3_600 },
  };
}

function readNow<T>(path: string, read: (text: string) => T): T | undefined {
  try {
    return read(readSmallFile(path));
  } catch {
    // Creating the source says what is wrong with it.
    return undefined;
  }
}
