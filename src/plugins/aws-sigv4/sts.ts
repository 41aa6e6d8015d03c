/** AssumeRole and AssumeRoleWithWebIdentity: a role's temporary keys from STS. */
import { HeaderList } from "../../http/headers.ts";
import type { Clock, OperatorFetch } from "../../pipeline/plugin.ts";
import { Secret } from "../../secret.ts";
import { canonicalPath, canonicalRequest } from "./canonical.ts";
import { timeOf } from "./claim.ts";
import type { StsConfig } from "./config.ts";
import { endpointOf } from "./endpoint.ts";
import { scopeText, sha256, SigningKeys, type SigningScope, stringToSign } from "./signing-keys.ts";

/** How STS is reached. */
export interface StsCall {
  readonly url: string;
  readonly fetch: OperatorFetch;
  readonly clock: Clock;
  readonly timeoutMs: number;
}

/** Who asks for the role. */
export type Asker =
  | { readonly kind: "token"; readonly token: Secret }
  | {
      readonly kind: "keys";
      readonly keys: SigningKeys;
      readonly sessionToken: Secret | undefined;
    };

/** Keys of the role; rejects with an Error that says in words why there are none. */
export async function assumedRole(
  call: StsCall,
  config: StsConfig,
  asker: Asker,
): Promise<{
  readonly keys: SigningKeys;
  readonly sessionToken: Secret;
  readonly endsAt: number;
}> {
  const form = new URLSearchParams({
    Action: asker.kind === "token" ? "AssumeRoleWithWebIdentity" : "AssumeRole",
    Version: "2011-06-15",
    RoleArn: config.role_arn ?? "",
    RoleSessionName: config.role_session_name ?? "authbridge",
    DurationSeconds: String(config.duration_seconds ?? 3_600),
    ...(config.external_id === undefined ? {} : { ExternalId: config.external_id }),
    ...(asker.kind === "token" ? { WebIdentityToken: asker.token.reveal() } : {}),
  });
  const body = form.toString();
  const contentType = "application/x-www-form-urlencoded; charset=utf-8";
  const headers = { "Content-Type": contentType, ...signedFields(call, config, asker, body) };
  const { url, fetch, timeoutMs } = call;
  const response = await fetch(url, { method: "POST", headers, body, timeoutMs });
  const text = response.body.toString();
  if (response.status !== 200) {
    const code = /^[\w.]{1,64}$/.exec(valueOf(text, "Code"))?.[0] ?? "no reason given";
    throw new Error(`${new URL(url).origin} gave no keys for the role: ${response.status} ${code}`);
  }
  const endsAt = Date.parse(valueOf(text, "Expiration"));
  const [id, secret] = [valueOf(text, "AccessKeyId"), valueOf(text, "SecretAccessKey")];
  const token = valueOf(text, "SessionToken");
  if (id === "" || secret === "" || token === "" || Number.isNaN(endsAt))
    throw new Error(`${new URL(url).origin} sent a response without keys`);
  return { keys: new SigningKeys(id, new Secret(secret)), sessionToken: new Secret(token), endsAt };
}

function signedFields(
  { url, clock }: StsCall,
  { region }: StsConfig,
  asker: Asker,
  body: string,
): Record<string, string> {
  if (asker.kind === "token") return {};
  const { host, pathname } = new URL(url);
  const time = timeOf(clock.now());
  const scope: SigningScope = {
    algorithm: "AWS4-HMAC-SHA256",
    day: time.slice(0, 8),
    region: region ?? endpointOf(host)?.region ?? "us-east-1",
    service: "sts",
  };
  const token = asker.sessionToken?.reveal();
  const fields = {
    "X-Amz-Date": time,
    ...(token === undefined ? {} : { "X-Amz-Security-Token": token }),
  };
  const headers = HeaderList.fromRecord({ Host: host, ...fields });
  const signed = [...headers.entries()].map(([name]) => name.toLowerCase()).sort();
  const canonical = canonicalRequest({
    method: "POST",
    path: canonicalPath(pathname, "sts"),
    parameters: [],
    headers,
    signed,
    payload: sha256(body),
  });
  const signature = asker.keys.sign(scope, stringToSign(scope, time, canonical));
  const credential = `${asker.keys.accessKeyId}/${scopeText(scope)}`;
  const value = `${scope.algorithm} Credential=${credential}, SignedHeaders=${signed.join(";")}, Signature=${signature}`;
  return { ...fields, Authorization: value };
}

/** The text of the first element of this name; its few values hold no markup but these entities. */
function valueOf(xml: string, name: string): string {
  const text = new RegExp(`<${name}>\\s*([^<]*?)\\s*</${name}>`).exec(xml)?.[1] ?? "";
  const named: Readonly<Record<string, string>> = { lt: "<", gt: ">", quot: '"', apos: "'" };
  return text
    .replace(/&(lt|gt|quot|apos);/g, (_all, entity: string) => named[entity] ?? "")
    .replace(/&amp;/g, "&");
}
