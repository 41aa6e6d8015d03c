/** Tries a candidate chain against its readiness endpoints, before anything depends on it. */
import { type ErrorCode, messageOf, ProxyError } from "../../errors.ts";
import type { KeyPath } from "../../yaml/problem.ts";
import { OperatorClient } from "../../upstream/operator-client.ts";
import { type NetworkBase, originTrust, proxyChain, type Trial } from "./network.ts";
import type { ChainPlan, ReadinessEndpoint } from "./plan.ts";

/** An endpoint that could not be reached, and the hop at which it failed. */
export interface ProbeFailure {
  readonly endpoint: string;
  readonly path: KeyPath;
  readonly hop: string;
  readonly message: string;
}

/** A body of any kind up to this size is good enough; it is discarded. */
const maxBodyBytes = 16 * 1024 * 1024;
/** The time-out of a hop ends before that of the whole probe, so that the hop is named. */
const slackMs = 1_000;

/** Asks all endpoints at once; resolves with those that failed. */
export async function probeChain(
  plan: ChainPlan,
  base: NetworkBase,
): Promise<readonly ProbeFailure[]> {
  const trial: Trial = { limitMs: plan.readinessTimeoutMs };
  const chain = proxyChain(base, plan, trial);
  const client = new OperatorClient(chain, originTrust(base, plan, trial));
  try {
    const results = await Promise.all(
      plan.endpoints.map((endpoint) => probe(client, endpoint, plan.readinessTimeoutMs)),
    );
    return results.filter((result) => result !== undefined);
  } finally {
    await client.close();
  }
}

async function probe(
  client: OperatorClient,
  { url, path }: ReadinessEndpoint,
  limitMs: number,
): Promise<ProbeFailure | undefined> {
  const failure = (hop: string, message: string): ProbeFailure => ({
    endpoint: url,
    path,
    hop,
    message,
  });
  try {
    const { status } = await client.fetchFor([url])(url, {
      headers: { accept: "*/*", "user-agent": "authbridge-proxy" },
      timeoutMs: limitMs + slackMs,
      maxBytes: maxBodyBytes,
    });
    // A redirect is a response of the endpoint, too; it is not followed.
    return status < 400 ? undefined : failure("http", `answered with status ${status}`);
  } catch (error) {
    return failure(hopOf(error), messageOf(error));
  }
}

const hopsOfCodes: Partial<Readonly<Record<ErrorCode, string>>> = {
  "upstream.unresolvable": "dns",
  "upstream.address-forbidden": "dns",
  "upstream.refused": "tcp",
  "upstream.tls": "tls",
};

function hopOf(error: unknown): string {
  if (!(error instanceof ProxyError)) return "http";
  return error.hop ?? hopsOfCodes[error.code] ?? "http";
}

/** The failure as one line. */
export function failureText({ hop, message }: Pick<ProbeFailure, "hop" | "message">): string {
  return `cannot be reached by this configuration; the hop that failed is ${hop}: ${message}`;
}
