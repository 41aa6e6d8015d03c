/** The configuration of aws-sigv4. */
import { z } from "zod";
import { guarded, narrowing } from "../../yaml/empty-values.ts";
import { duration, hostGlob, serviceUrl, words } from "../config-values.ts";
import { rulesReader } from "../credentials/host-routes.ts";

const scopeName = (): z.ZodString =>
  z
    .string()
    .regex(/^[a-z0-9-]{1,64}$/, { error: "must be lower-case letters, digits and hyphens" });
const regionName = (): z.ZodString =>
  z.string().regex(/^(?:[a-z0-9-]{1,64}|\*)$/, { error: 'must be a region or "*"' });
const roleArn = (): z.ZodString =>
  z.string().regex(/^arn:[\w-]+:iam::\d{12}:role\/\S+$/, { error: "must be the ARN of a role" });
const sessionName = (): z.ZodString =>
  z.string().regex(/^[\w+=,.@-]{2,64}$/, { error: "must be 2 to 64 of A-Z a-z 0-9 _+=,.@-" });

/** Keys of every call to STS. */
const stsKeys = {
  role_arn: roleArn().optional().describe("The role to assume."),
  role_session_name: sessionName()
    .optional()
    .describe("Name of the session, as CloudTrail shows it. Default authbridge."),
  region: scopeName()
    .optional()
    .describe("Region of the STS endpoint: https://sts.REGION.amazonaws.com/."),
  sts_url: serviceUrl()
    .optional()
    .describe("The STS endpoint, where it is not that of a region: a private one, one of China."),
  duration_seconds: z
    .int()
    .min(900)
    .max(43_200)
    .optional()
    .describe("How long the keys of the role are good for, in seconds. Default 3600."),
};

const stsKeyNames = Object.keys(stsKeys) as (keyof typeof stsKeys)[];

const assumeRole = z
  .strictObject({
    ...stsKeys,
    role_arn: roleArn().describe("The role to assume with the keys of this source."),
    external_id: words().optional().describe("The external id that the role's trust wants."),
  })
  .superRefine(endpointProblem);

function endpointProblem(
  {
    sts_url: url,
    region,
  }: { readonly sts_url?: string | undefined; readonly region?: string | undefined },
  context: z.RefinementCtx,
): void {
  if (url !== undefined || region !== undefined) return;
  context.addIssue({ code: "custom", path: ["region"], message: "is required, or sts_url" });
}

const sourceKeys = z.strictObject({
  source: z
    .enum(["static", "shared_file", "web_identity", "container"])
    .describe(
      "static: keys of this file or of files. shared_file: a profile of a shared credentials file. web_identity: AssumeRoleWithWebIdentity with the token of a file, as IRSA of EKS has it. container: the endpoint that ECS and EKS Pod Identity give to a container.",
    ),
  access_key_id: words().optional().describe("Access key id (static)."),
  access_key_id_file: words().optional().describe("File with it, read again when it changes."),
  secret_access_key: words()
    .optional()
    .describe("Secret access key (static). Prefer a file: this one is easily shown."),
  secret_access_key_file: words().optional().describe("File with it, read again when it changes."),
  session_token_file: words()
    .optional()
    .describe(
      "File with the session token of temporary keys (static), read again when it changes.",
    ),
  file: words()
    .optional()
    .describe("The shared credentials file, read again when it changes (shared_file)."),
  profile: words().optional().describe("Its profile (shared_file). Default default."),
  ...stsKeys,
  web_identity_token_file: words()
    .optional()
    .describe("File with the OpenID Connect token, read at each call (web_identity)."),
  url: serviceUrl()
    .optional()
    .describe(
      "The endpoint of container credentials, such as $AWS_CONTAINER_CREDENTIALS_FULL_URI.",
    ),
  authorization_token_file: words()
    .optional()
    .describe("File with the value of Authorization for it, read at each call (container)."),
  assume_role: guarded(
    assumeRole
      .optional()
      .describe(
        "Assumes one more role with the keys of the source, and signs with those of the role.",
      ),
  ),
});

type SourceKeys = z.output<typeof sourceKeys>;

const keysOfSource: Readonly<Record<SourceKeys["source"], readonly (keyof SourceKeys)[]>> = {
  static: [
    "access_key_id",
    "access_key_id_file",
    "secret_access_key",
    "secret_access_key_file",
    "session_token_file",
  ],
  shared_file: ["file", "profile"],
  web_identity: [...stsKeyNames, "web_identity_token_file"],
  container: ["url", "authorization_token_file"],
};

const credentials = sourceKeys.superRefine((keys, context) => {
  const issue = (key: keyof SourceKeys, message: string): void =>
    context.addIssue({ code: "custom", path: [key], message });
  const { source } = keys;
  const own = keysOfSource[source];
  for (const key of new Set(Object.values(keysOfSource).flat())) {
    if (keys[key] !== undefined && !own.includes(key))
      issue(key, `has no effect with source: ${source}`);
  }
  const need = (key: keyof SourceKeys): void => {
    if (keys[key] === undefined) issue(key, `is required for source: ${source}`);
  };
  if (source === "static") {
    for (const key of ["access_key_id", "secret_access_key"] as const) {
      const file = `${key}_file` as const;
      if ((keys[key] === undefined) === (keys[file] === undefined))
        issue(key, `is required for source: static, or ${file}, and not both`);
    }
  }
  if (source === "shared_file") need("file");
  if (source === "container") need("url");
  if (source === "web_identity") {
    need("role_arn");
    need("web_identity_token_file");
    endpointProblem(keys, context);
  }
});

const standInKey = z
  .strictObject({
    access_key_id: z
      .string()
      .regex(/^\w{16,128}$/, { error: "must be 16 to 128 letters, digits and underscores" })
      .describe("Access key id of the stand-in that agents are given; no real one."),
    secret_access_key: guarded(
      words()
        .optional()
        .describe(
          "Secret of the stand-in. With it the signatures of agents are verified; without it, or a file, their form is.",
        ),
    ),
    secret_access_key_file: guarded(
      words().optional().describe("File with that secret, read again when it changes."),
    ),
    credentials: credentials.describe("The real keys that requests are signed with."),
  })
  .superRefine((key, context) => {
    if (key.secret_access_key !== undefined && key.secret_access_key_file !== undefined)
      context.addIssue({
        code: "custom",
        path: ["secret_access_key_file"],
        message: "has no effect with secret_access_key",
      });
  });

const awsRule = z.strictObject({
  host: hostGlob().describe(
    "Destination host, as a glob in which * stays within one label: **.amazonaws.com is every endpoint.",
  ),
  services: narrowing(scopeName(), 100).describe(
    "Services that requests may be signed for, by their signing names (s3, bedrock). Any that fits the host when left out, but those that give out keys (sts, s3express, cognito-identity, sso, signin).",
  ),
  regions: narrowing(regionName(), 100).describe(
    "Regions that requests may be signed for. The one of the host's name when left out.",
  ),
  signing_name: scopeName()
    .optional()
    .describe("The service of this endpoint, where its host name does not say it."),
  keys: narrowing(words(), 100).describe(
    "Access key ids of the stand-ins that may be used here. Any when left out.",
  ),
  unsigned: z
    .enum(["refuse", "sign", "pass"])
    .default("refuse")
    .describe(
      "Requests without a signature: refuse them, sign them (with the one key, service and region that the rule allows), or pass them as they are.",
    ),
});

/** A checked rule. */
export type AwsRule = z.output<typeof awsRule>;

/** Reads the text of a rules file; an Error says everything that is wrong with it, and where. */
export const parseAwsRules = rulesReader(awsRule);

/** The schema of `config` of an aws-sigv4 entry. */
export const awsSigv4Config = z
  .strictObject({
    keys: z
      .array(standInKey)
      .min(1)
      .max(100)
      .describe("Stand-in keys, and the real ones that take their place."),
    routes: z
      .strictObject({
        file: words()
          .optional()
          .describe("File of rules, read again when it changes; its rules come first."),
        rules: guarded(z.array(awsRule).max(10_000).default([]).describe("Rules by host.")),
      })
      .describe("Which hosts requests are signed for; requests to others are left alone."),
    clock_skew: duration(1_000, 3_600_000)
      .default("15m")
      .describe("How far the clocks of agents may be off."),
    allow_plaintext: z
      .boolean()
      .default(false)
      .describe("Signs requests over plain HTTP as well, which shows session tokens on the way."),
    max_chunk_bytes: z
      .int()
      .min(8_192)
      .max(16_777_216)
      .default(1_048_576)
      .describe(
        "Of a body whose chunks are signed one by one, each is held until it is whole: a larger chunk is refused.",
      ),
    timeout: duration(100, 60_000)
      .default("10s")
      .describe("Limit of one call for keys, to STS or to the endpoint of a container."),
  })
  .superRefine(({ keys, routes }, context) => {
    const issue = (path: readonly (string | number)[], message: string): void =>
      context.addIssue({ code: "custom", path: [...path], message });
    const ids = keys.map((key) => key.access_key_id);
    for (const [at, id] of ids.entries())
      if (ids.indexOf(id) !== at) issue(["keys", at, "access_key_id"], "is there already");
    for (const [at, rule] of routes.rules.entries()) {
      for (const problem of ruleProblems(rule, ids))
        issue(["routes", "rules", at, ...problem.path], problem.message);
    }
    if (routes.file === undefined && routes.rules.length === 0)
      issue(["routes"], "needs rules, or a file of them");
  });

/** A checked configuration. */
export type AwsSigv4Config = z.output<typeof awsSigv4Config>;

/** Where real keys come from. */
export type CredentialsConfig = AwsSigv4Config["keys"][number]["credentials"];

/** What a call to STS needs. */
export type StsConfig = Pick<
  CredentialsConfig,
  "role_arn" | "role_session_name" | "region" | "sts_url" | "duration_seconds"
> & { readonly external_id?: string | undefined };

/** What is wrong between a rule and the keys; `path` starts below the rule. */
export function ruleProblems(
  rule: AwsRule,
  ids: readonly string[],
): readonly { readonly path: readonly (string | number)[]; readonly message: string }[] {
  const problems = rule.keys.flatMap((id, at) =>
    ids.includes(id)
      ? []
      : [{ path: ["keys", at], message: `${id} is not an access_key_id of keys` }],
  );
  const usable = rule.keys.length === 0 ? ids : rule.keys;
  if (rule.unsigned === "sign" && usable.length !== 1) {
    const message = "sign needs one key: name it in keys of this rule";
    return [...problems, { path: ["unsigned"], message }];
  }
  return problems;
}

/** The address of the STS endpoint. */
export function stsUrlOf({ sts_url: url, region }: StsConfig): string {
  return url ?? `https://sts.${region ?? ""}.amazonaws.com/`;
}

/** Every address that keys come from. */
export function keyUrlsOf({ keys }: AwsSigv4Config): readonly string[] {
  return keys.flatMap(({ credentials: from }) => [
    ...(from.source === "web_identity" ? [stsUrlOf(from)] : []),
    ...(from.assume_role === undefined ? [] : [stsUrlOf(from.assume_role)]),
    ...(from.source === "container" && from.url !== undefined ? [from.url] : []),
  ]);
}
