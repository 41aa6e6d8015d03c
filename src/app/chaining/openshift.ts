/** OpenShift's cluster-wide `Proxy` resource, as a file that is mounted. */
import { parse } from "yaml";
import { z } from "zod";
import { readSmallFile } from "../../files/watched-file.ts";
import { messageOf } from "../../errors.ts";

/** What the resource says. */
export interface OpenShiftProxy {
  /** `status` holds what the cluster accepted; `spec` may hold what it has not tried yet. */
  readonly httpProxy?: string;
  readonly httpsProxy?: string;
  readonly noProxy?: string;
  /** They stand in `spec` only. */
  readonly readinessEndpoints: readonly string[];
  /** The ConfigMap in openshift-config whose CAs belong into `trusted_ca`. */
  readonly trustedCaName?: string;
  readonly hasStatus: boolean;
}

const resourceSchema = z.object({
  apiVersion: z.string().startsWith("config.openshift.io/"),
  kind: z.literal("Proxy"),
  spec: z
    .object({
      readinessEndpoints: z.array(z.string()).nullish(),
      trustedCA: z.object({ name: z.string().nullish() }).nullish(),
    })
    .nullish(),
  status: z
    .object({
      httpProxy: z.string().nullish(),
      httpsProxy: z.string().nullish(),
      noProxy: z.string().nullish(),
    })
    .nullish(),
});

/** Reads the file; throws an Error in words that quote no value of it. */
export function readOpenShiftProxy(path: string): OpenShiftProxy {
  const text = readSmallFile(path);
  let value: unknown;
  try {
    value = parse(text);
  } catch (error) {
    // The parser's message quotes the line, which may hold a password.
    throw new Error("is neither YAML nor JSON", { cause: error });
  }
  const parsed = resourceSchema.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const at = issue === undefined || issue.path.length === 0 ? "" : ` (${issue.path.join(".")})`;
    throw new Error(`is not a Proxy resource of config.openshift.io${at}`);
  }
  const { spec, status } = parsed.data;
  const { httpProxy, httpsProxy, noProxy } = status ?? {};
  const name = spec?.trustedCA?.name;
  return {
    ...(httpProxy ? { httpProxy } : {}),
    ...(httpsProxy ? { httpsProxy } : {}),
    ...(noProxy ? { noProxy } : {}),
    readinessEndpoints: spec?.readinessEndpoints ?? [],
    ...(name ? { trustedCaName: name } : {}),
    hasStatus: [httpProxy, httpsProxy, noProxy].some(Boolean),
  };
}

/** What went wrong, in words. */
export function openShiftProblem(error: unknown): string {
  return error instanceof Error && "code" in error
    ? `cannot be read: ${messageOf(error)}`
    : messageOf(error);
}
