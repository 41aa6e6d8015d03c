/** The session store of the process and what fills it, from the blocks `session` and `audit`. */
import { durationMs } from "../duration.ts";
import type { Config } from "../config/presets.ts";
import { sizeBytes } from "../config/size.ts";
import { messageOf } from "../errors.ts";
import { credentialText, WatchedFile } from "../files/watched-file.ts";
import { Attribution } from "../session/attribution.ts";
import { Decisions } from "../session/audit-log.ts";
import { ContentPolicy } from "../session/content.ts";
import { Journal, restoreJournal } from "../session/journal.ts";
import { type Ledger, TurnLedger } from "../session/ledger.ts";
import { LineFile, type LineFileOptions } from "../session/line-file.ts";
import { type EventSink, SessionRecorder } from "../session/recorder.ts";
import { compilePatterns, Redaction } from "../session/redaction.ts";
import { SessionStore } from "../session/store.ts";
import { Usage } from "../session/usage.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { SharedTies } from "../session/shared-ties.ts";
import { receiptProblems } from "./receipts/receipt-signer.ts";
import type { BuildProblem } from "./build-problems.ts";
import { type DecisionLog, makeDecisionLog, signingKeyProblem } from "./receipts/log-parts.ts";
import type { StateParts } from "./state-parts.ts";

/** What sessions consist of; made once, because events are kept over reloads. */
export interface SessionParts {
  /** Absent where `session.enabled` is false and only the decision log is written, and in a thread that tells another one. */
  readonly kept: { readonly store: SessionStore; readonly usage: Usage } | undefined;
  /** Whether plugins may read sessions: not where only the decision log is written. */
  readonly isRead: boolean;
  readonly recorder: SessionRecorder;
  readonly ledger: Ledger;
  /** Absent without `audit`, and in a thread that tells another one. */
  readonly audit?: DecisionLog | undefined;
  /** What clients of the session API have to send; absent where nothing is asked for. */
  readonly apiSecret?: { reveal(): string };
  close(): Promise<void>;
}

/** Where the parts say what became of their files. */
export interface SessionServices {
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly state: StateParts;
  /** Gets every event, whether they are kept or not. */
  readonly events?: EventSink | undefined;
}

/** Undefined where nothing is to be recorded. */
export async function makeSessionParts(
  config: Config,
  services: SessionServices,
): Promise<SessionParts | undefined> {
  const { session, audit: auditFile } = config;
  const { events } = services;
  if (!session.enabled && auditFile === undefined && events === undefined) return undefined;
  const ttlMs = session.ttl === "never" ? Number.POSITIVE_INFINITY : durationMs(session.ttl);
  const journal = session.enabled ? journalOf(session, services) : undefined;
  const kept = session.enabled ? await keptEvents(session, ttlMs, journal, services) : undefined;
  const audit = await auditOf(auditFile, services);
  const ledger = new TurnLedger({
    store: kept?.store ?? unkept,
    ttlMs,
    ties: session.enabled ? sharedTies(session, ttlMs, services) : undefined,
  });
  const { add_traceparent: addTraceparent, header: field } = session;
  const attribution = new Attribution({ ledger, addTraceparent, field });
  const sinks: EventSink[] = kept === undefined ? [] : [kept.store, kept.usage];
  if (events !== undefined) sinks.push(events);
  return {
    kept,
    isRead: kept !== undefined,
    recorder: new SessionRecorder({
      sinks,
      attribution,
      content: await contentOf(session),
      audit: audit && new Decisions((facts) => audit.log.append(facts)),
    }),
    ledger,
    audit,
    ...apiSecret(session.api_secret_file, services.log),
    close: async () => {
      attribution.close();
      kept?.store.close();
      if (audit !== undefined) services.log.info({ ...audit.log.head }, "decision log ends");
      await Promise.all([journal?.close(), audit?.log.close()]);
    },
  };
}

/** What events show of bodies. */
export async function contentOf(session: Config["session"]): Promise<ContentPolicy> {
  // A pattern that is none is a problem of the file; see sessionProblems.
  const { patterns } = await compilePatterns(session.redact);
  return new ContentPolicy({
    bodies: session.bodies,
    maxChars: sizeBytes(session.max_body),
    redaction: new Redaction(patterns),
  });
}

/** Undefined where this process is the only one that has the agents. */
export function sharedTies(
  session: Config["session"],
  ttlMs: number,
  { state, log, metrics }: SessionServices,
): SharedTies | undefined {
  if (!state.isShared) return undefined;
  if (state.sealed === undefined) {
    const message =
      "what users ask stands in clear in the state store, for replicas to know it: set state.encryption_key_file";
    log.warn({}, message);
  }
  return new SharedTies({
    store: state.sealed ?? state.store,
    ttlMs,
    refusesWhenAway: session.ties_when_away === "refuse",
    onResult: (result) => {
      metrics.counters.session_ties_total.of(result).value += 1;
    },
  });
}

/** What is wrong with the block that only trying shows. */
export async function sessionProblems({ session, audit }: Config): Promise<BuildProblem[]> {
  const { problems } = await compilePatterns(session.redact);
  const keyFile = audit?.signing_key_file;
  const message = keyFile === undefined ? undefined : signingKeyProblem(keyFile);
  const keyProblems =
    message === undefined ? [] : [{ path: ["audit", "signing_key_file"], message }];
  const patternProblems = problems.map(({ index, message: why }) => ({
    path: ["session", "redact", index],
    message: `is not a pattern in RE2 syntax: ${why}`,
  }));
  return [...patternProblems, ...keyProblems, ...receiptProblems(audit)];
}

/** The store of a process that keeps no events. */
const unkept = {
  rekey: (): void => undefined,
  intentOf: (): undefined => undefined,
  someIntents: (): [] => [],
};

async function keptEvents(
  session: Config["session"],
  ttlMs: number,
  journal: Journal | undefined,
  { log }: Pick<SessionServices, "log">,
): Promise<NonNullable<SessionParts["kept"]>> {
  const store = new SessionStore({
    ttlMs,
    maxEvents: session.max_events,
    maxSessions: session.max_sessions,
    maxBytes: sizeBytes(session.max_bytes),
    journal,
  });
  const usage = new Usage();
  const { persist } = session;
  if (persist !== undefined) {
    try {
      const found = await restoreJournal(persist.path, persist.max_files, {
        restore: (sequence, event) => {
          store.restore(sequence, event);
          usage.record(event);
        },
        rekey: (from, to, flows) => store.restoreRekey(from, to, flows),
      });
      store.removeExpired();
      log.info({ path: persist.path, ...found }, "events restored");
    } catch (error) {
      log.warn({ path: persist.path, error: messageOf(error) }, "events could not be restored");
    }
  }
  return { store, usage };
}

function journalOf({ persist }: Config["session"], services: SessionServices): Journal | undefined {
  return persist === undefined ? undefined : new Journal(lineFile("events", persist, services));
}

async function auditOf(
  audit: Config["audit"],
  services: SessionServices,
): Promise<DecisionLog | undefined> {
  if (audit === undefined) return undefined;
  return makeDecisionLog(audit, services.log, (name, path, particular) =>
    lineFile(name, { ...audit, path }, services, particular),
  );
}

/** A file that tells of its outages once each, and never stops traffic. */
function lineFile(
  name: "events" | "audit" | "checkpoints",
  bounds: Pick<NonNullable<Config["audit"]>, "path" | "max_file" | "max_files">,
  { log, metrics }: SessionServices,
  particular: Pick<LineFileOptions, "onFull" | "onLines" | "syncs"> = {},
): LineFile {
  const { path } = bounds;
  const file = new LineFile({
    ...particular,
    path,
    maxBytes: sizeBytes(bounds.max_file),
    maxFiles: bounds.max_files,
    onState: (error) => {
      if (error === undefined) log.info({ file: name, path }, "the file is written again");
      else {
        metrics.counters.file_outages_total.of(name).value += 1;
        const why = messageOf(error);
        log.error({ file: name, path, error: why }, "the file cannot be written; traffic goes on");
      }
    },
    onLines: (result, lines) => {
      metrics.counters.file_lines_total.of(name, result).value += lines;
      particular.onLines?.(result, lines);
    },
  });
  // A file of checkpoints that is there has one.
  if (name !== "checkpoints") file.begin();
  return file;
}

/** Until the file can be read, nobody is let in. */
function apiSecret(path: string | undefined, log: Logger): Pick<SessionParts, "apiSecret"> {
  if (path === undefined) return {};
  const file = new WatchedFile({
    path,
    clock: Date,
    parse: credentialText,
    onProblem: (problem) => log.warn({ key: "session.api_secret_file" }, problem),
  });
  file.current();
  return { apiSecret: { reveal: () => file.current() ?? "" } };
}
