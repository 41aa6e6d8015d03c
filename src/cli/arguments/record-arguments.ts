/** The arguments of the commands that look at records: `tail` and `verify-audit`. */

/** What `--decision` can ask for. */
export const tailDecisions = ["allow", "deny", "error"] as const;

/** One of {@link tailDecisions}. */
export type TailDecision = (typeof tailDecisions)[number];

/** `tail`: events as they happen. */
export interface TailCommand {
  /** The session API; from the file when absent, else `http://127.0.0.1:9094`. */
  readonly url?: string;
  readonly file?: string;
  readonly lenient: boolean;
  readonly session?: string;
  /** A part of the host. */
  readonly host?: string;
  readonly decision?: TailDecision;
  readonly plugin?: string;
  readonly isJson: boolean;
  readonly secretFile?: string;
  /** Kept events to begin with. */
  readonly limit: number;
}

/** `verify-audit`: is the decision log whole? */
export interface VerifyAuditCommand {
  /** The oldest first. */
  readonly files: readonly string[];
}

/** The options of `tail` as they were written. */
export interface TailValues {
  readonly config?: string | undefined;
  readonly lenient?: boolean | undefined;
  readonly url?: string | undefined;
  readonly session?: string | undefined;
  readonly host?: string | undefined;
  readonly decision?: string | undefined;
  readonly plugin?: string | undefined;
  readonly json?: boolean | undefined;
  readonly "secret-file"?: string | undefined;
  readonly limit?: string | undefined;
}

/** The lines of `--help` about these commands. */
export const recordUsage = {
  commands: `  authbridge-proxy tail [--config FILE | --url URL] [options]
                                                    show what happens in a running proxy
  authbridge-proxy verify-audit FILE …              say whether a decision log is whole, oldest file first
`,
  options: `  --url URL           tail: the session API (default: from the file, else http://127.0.0.1:9094)
  --session ID, --host TEXT, --plugin NAME, --decision allow|deny|error
                      tail: only events of this session, of hosts with this text, of this plugin, of this kind
  --limit N           tail: kept events to begin with (default 20)
  --json              tail: one JSON object per event
  --secret-file FILE  tail: the secret of session.api_secret_file (default: the one of the file)
`,
};

const defaultLimit = "20";

/** The command, or what is wrong with it. */
export function tailCommand(values: TailValues): TailCommand | string {
  const { url, config: file, decision, limit = defaultLimit } = values;
  if (url !== undefined && file !== undefined) return "--url and --config exclude each other";
  if (url !== undefined && !/^https?:\/\/[^/\s@]+\/?$/.test(url))
    return "--url must be a URL such as http://127.0.0.1:9094";
  if (decision !== undefined && !isDecision(decision))
    return `--decision must be one of ${tailDecisions.join(", ")}`;
  if (!/^\d{1,6}$/.test(limit)) return "--limit must be a whole number";
  const texts = {
    url,
    file,
    session: values.session,
    host: values.host?.toLowerCase(),
    plugin: values.plugin,
    secretFile: values["secret-file"],
  };
  if (Object.values(texts).includes("")) return "options of tail must not be empty";
  return {
    ...Object.fromEntries(Object.entries(texts).filter(([, text]) => text !== undefined)),
    ...(decision === undefined ? {} : { decision }),
    lenient: values.lenient ?? false,
    isJson: values.json ?? false,
    limit: Number(limit),
  };
}

function isDecision(text: string): text is TailDecision {
  return (tailDecisions as readonly string[]).includes(text);
}
