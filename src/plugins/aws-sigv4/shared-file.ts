/** The shared credentials file of the AWS tools: sections of keys and values. */
import { Secret } from "../../secret.ts";

/** The keys of a profile. */
export interface ProfileKeys {
  readonly accessKeyId: string;
  readonly secret: Secret;
  readonly sessionToken: Secret | undefined;
}

/** Throws an Error that says what the profile lacks, without quoting the file. */
export function profileOf(text: string, profile: string): ProfileKeys {
  const values = new Map<string, string>();
  let isThere = false;
  let isMeant = false;
  for (const line of text.split(/\r?\n/)) {
    const [, section] = /^\s*\[\s*(?:profile\s+)?([^\]]*?)\s*\]/.exec(line) ?? [];
    if (section !== undefined) {
      isMeant = section === profile;
      isThere ||= isMeant;
      continue;
    }
    const [, name = "", value = ""] = /^\s*([A-Za-z_][\w-]*)\s*=\s*(.*?)\s*$/.exec(line) ?? [];
    if (isMeant && name !== "") values.set(name.toLowerCase(), value);
  }
  if (!isThere) throw new Error(`it has no profile ${profile}`);
  const of = (name: string): string => values.get(name) ?? "";
  const accessKeyId = of("aws_access_key_id");
  const secret = of("aws_secret_access_key");
  if (accessKeyId === "" || secret === "")
    throw new Error(
      `its profile ${profile} has no aws_access_key_id and aws_secret_access_key (roles are named in this plugin's own configuration)`,
    );
  const token = of("aws_session_token");
  return {
    accessKeyId,
    secret: new Secret(secret),
    sessionToken: token === "" ? undefined : new Secret(token),
  };
}
