/** Decisions in the Open Cybersecurity Schema Framework: HTTP Activity, API Activity for tools, else Network Activity. */
import { parseAddress } from "../net/address.ts";

/** The version of the schema whose names are used. */
const schemaVersion = "1.3.0";

const httpActivities: Readonly<Record<string, number>> = {
  CONNECT: 1,
  DELETE: 2,
  GET: 3,
  HEAD: 4,
  OPTIONS: 5,
  POST: 6,
  PUT: 7,
  TRACE: 8,
  PATCH: 9,
};
const other = 99;
/** Of Network Activity: a connection that was opened, or refused. */
const networkActivities = { allow: 1, exempt: 1, deny: 5 } as const;
const dispositions = { allow: 1, deny: 2, exempt: 16 } as const;

/** A line of the decision log, as far as the mapping reads it. */
interface Decision {
  readonly sequence?: number;
  readonly hash?: string;
  readonly at?: string;
  readonly decision?: string;
  readonly direction?: string;
  readonly session?: string;
  readonly request?: string;
  readonly client?: string;
  readonly binary?: string;
  readonly subject?: string;
  readonly clientId?: string;
  readonly host?: string;
  readonly method?: string;
  readonly path?: string;
  readonly status?: number;
  readonly code?: string;
  readonly reason?: string;
  readonly steps?: readonly Step[];
}

interface Step {
  readonly plugin?: string;
  readonly action?: string;
  readonly reason?: string;
  readonly details?: Readonly<Record<string, unknown>>;
}

/** The event of one decision; undefined where the text is no decision. */
export function ocsfOf(line: string, version: string): object | undefined {
  const decision = parsed(line);
  const verdict = decision?.decision;
  if (decision === undefined || !isVerdict(verdict)) return undefined;
  const { at = "", sequence, hash, session, request, host = "", code, reason, status } = decision;
  const isDenied = verdict === "deny";
  const time = Date.parse(at);
  if (Number.isNaN(time)) return undefined;
  const activity = activityOf(decision, verdict);
  return {
    ...activity,
    type_uid: activity.class_uid * 100 + activity.activity_id,
    time,
    severity_id: isDenied ? 2 : 1,
    action_id: isDenied ? 2 : 1,
    disposition_id: dispositions[verdict],
    status_id: isDenied ? 2 : 1,
    ...(code === undefined ? {} : { status_code: code }),
    ...(reason === undefined ? {} : { status_detail: reason, message: reason }),
    metadata: {
      version: schemaVersion,
      product: { name: "authbridge-proxy", vendor_name: "authbridge-proxy", version },
      profiles: ["security_control", "host"],
      log_name: "audit",
      original_time: at,
      sequence,
      uid: hash,
      ...(session === undefined ? {} : { correlation_uid: session }),
    },
    ...actorOf(decision, activity),
    ...(decision.client === undefined ? {} : { src_endpoint: endpointOf(decision.client) }),
    ...(host === "" ? {} : { dst_endpoint: endpointOf(host) }),
    ...(decision.method === undefined || decision.method === ""
      ? {}
      : { http_request: requestOf(decision, request) }),
    ...(status === undefined ? {} : { http_response: { code: status } }),
    ...ruleOf(decision, verdict),
    unmapped: { decision: verdict, direction: decision.direction },
  };
}

type Verdict = keyof typeof dispositions;

function isVerdict(text: string | undefined): text is Verdict {
  return text !== undefined && Object.hasOwn(dispositions, text);
}

function parsed(line: string): Decision | undefined {
  try {
    return JSON.parse(line) as Decision;
  } catch {
    return undefined;
  }
}

interface Activity {
  readonly class_uid: number;
  readonly category_uid: number;
  readonly activity_id: number;
  readonly activity_name?: string;
  readonly api?: object;
}

/** A call of a tool is an API's; a connection without a request is the network's. */
function activityOf({ method, host, request, path, steps }: Decision, verdict: Verdict): Activity {
  if (method === undefined || method === "") {
    return { class_uid: 4001, category_uid: 4, activity_id: networkActivities[verdict] };
  }
  const call = steps?.find(
    ({ plugin, details }) => plugin === "tool-policy" && details?.["server"],
  );
  if (call === undefined) {
    const known = httpActivities[method];
    const activity =
      known === undefined ? { activity_id: other, activity_name: method } : { activity_id: known };
    return { class_uid: 4002, category_uid: 4, ...activity };
  }
  const { tool, method: rpc, server } = call.details ?? {};
  const operation = [tool, rpc, path].find((it) => typeof it === "string") ?? method;
  const api = { operation, service: { name: server ?? host }, request: { uid: request } };
  return { class_uid: 6003, category_uid: 6, activity_id: other, activity_name: "Call", api };
}

/** An actor has to be somebody, and a call of an API has to have one. */
function actorOf(
  { subject, clientId, binary, session }: Decision,
  { api }: Activity,
): { readonly actor?: object } {
  const file = binary === undefined ? {} : { path: binary, name: nameOf(binary), type_id: 1 };
  const actor = {
    ...(subject === undefined ? {} : { user: { name: subject, uid: subject } }),
    ...(clientId === undefined ? {} : { app_uid: clientId }),
    ...(binary === undefined ? {} : { process: { file } }),
  };
  if (Object.keys(actor).length > 0) return { actor };
  if (api === undefined) return {};
  return { actor: session === undefined ? { app_name: "unknown" } : { session: { uid: session } } };
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** A host, or an address of IPv4 or IPv6, with or without a port. */
function endpointOf(authority: string): Endpoint {
  const bare = parseAddress(authority) !== undefined;
  const [, host = authority, port] = bare ? [] : (/^(.*?)(?::(\d+))?$/.exec(authority) ?? []);
  const plain = host.replace(/^\[(.*)\]$/, "$1");
  return {
    ...(parseAddress(plain) === undefined ? { hostname: plain } : { ip: plain }),
    ...(port === undefined ? {} : { port: Number(port) }),
  };
}

interface Endpoint {
  readonly hostname?: string;
  readonly ip?: string;
  readonly port?: number;
}

function requestOf({ method, host, path }: Decision, uid: string | undefined): object {
  const { hostname, ip, port } = endpointOf(host ?? "");
  const url = { hostname: hostname ?? ip, ...(port === undefined ? {} : { port }), path };
  return { http_method: method, url, uid };
}

/** The step that decided, as the rule of a control. */
function ruleOf({ steps }: Decision, verdict: Verdict): object {
  const step = steps?.findLast(({ action }) => action === verdict);
  if (step === undefined) return {};
  const { plugin, reason, details } = step;
  const name = [details?.["entry"], details?.["rule"]].filter((it) => typeof it === "string");
  return {
    firewall_rule: { name: [plugin, ...name].join("/"), type: plugin, desc: reason },
  };
}
