/** What threads and replicas tell each other of questions to persons. */
import { parseJsonObject, isObject } from "../http/json-access.ts";
import type { ShownRequest } from "./canonical.ts";

/** For what a decision holds. */
export const decisionScopes = ["once", "session", "duration", "policy"] as const;

/** One of {@link decisionScopes}. */
export type DecisionScope = (typeof decisionScopes)[number];

/** A question that is open. */
export interface Ask {
  /** Nobody can guess it. */
  readonly id: string;
  /** Of the exact request and the rules that it was judged by. */
  readonly digest: string;
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly expiresAt: number;
  readonly request: ShownRequest;
  /** The plugin instance that asks. */
  readonly plugin: string;
  readonly rule?: string | undefined;
  readonly why: string;
  readonly suggestion?: string | undefined;
  /** The session that the request belongs to, where it is known. */
  readonly session?: string | undefined;
  /** The rules that it was judged by. */
  readonly rules?: string | undefined;
  /** Whose business it is whether they are still there. */
  readonly asker?: Asker | undefined;
}

/** A thread, or what takes its place when it has ended. */
export interface Asker {
  /** The process, where others tell in the same feed. */
  readonly process: string;
  /** From 0. */
  readonly thread: number;
}

/** This thread, of so many. */
export interface OwnPlace extends Asker {
  readonly threads: number;
}

/** What is shown of it: not how it is told apart, nor whose business it is. */
export function shownAsk(asked: Ask): object {
  const { digest: _digest, rules: _rules, asker: _asker, at, expiresAt, ...ask } = asked;
  const times = { asked: new Date(at).toISOString(), expires: new Date(expiresAt).toISOString() };
  return { ...ask, ...times };
}

/** What somebody decided. */
export interface Verdict {
  readonly id: string;
  readonly digest: string;
  readonly decision: "allow" | "deny";
  readonly by: readonly string[];
  readonly scope: DecisionScope;
  /** Milliseconds since the epoch. */
  readonly until: number;
  readonly session?: string | undefined;
  readonly reason?: string | undefined;
  readonly at: number;
}

/** One thing that happened. */
export type Told =
  | { readonly kind: "asked"; readonly ask: Ask }
  /** One of two persons has allowed. */
  | { readonly kind: "voted"; readonly id: string; readonly by: string }
  | { readonly kind: "decided"; readonly verdict: Verdict }
  | { readonly kind: "withdrawn"; readonly id: string; readonly why: string };

/** The question that it is about. */
export function idOf(told: Told): string {
  if (told.kind === "asked") return told.ask.id;
  return told.kind === "decided" ? told.verdict.id : told.id;
}

/** Another version may write more, or something else. */
export function toldOf(text: string): Told | undefined {
  const told = parseJsonObject(text);
  switch (told?.["kind"]) {
    case "asked":
      return isNamed(told["ask"]) ? (told as unknown as Told) : undefined;
    case "decided":
      return isNamed(told["verdict"]) ? (told as unknown as Told) : undefined;
    case "voted":
    case "withdrawn":
      return typeof told["id"] === "string" ? (told as unknown as Told) : undefined;
    default:
      return undefined;
  }
}

function isNamed(value: unknown): boolean {
  return (
    isObject(value) &&
    typeof value["id"] === "string" &&
    typeof value["digest"] === "string" &&
    typeof value["at"] === "number"
  );
}
