/** What a policy says of a connection or of a request, and why. */
import type { AddressSet } from "../net/address.ts";
import type { Inspection } from "./endpoint.ts";

/** Why a policy decided as it did; a closed set, fit for metrics and for tests. */
export type DecisionCode =
  | "allowed"
  | "empty-policy"
  | "endpoint-not-allowed"
  | "caller-not-allowed"
  | "binary-not-allowed"
  | "identity-unresolved"
  | "malformed"
  | "path-outside-endpoints"
  | "encoded-slash"
  | "ambiguous-path"
  | "uninspected"
  | "protocol-error"
  | "body-too-large"
  | "deny-rule"
  | "not-permitted"
  /** A person has to approve the connection. */
  | "approval-of-host"
  /** A person has to approve the request. */
  | "approval-of-request";

/** What an allowed connection may do. */
export interface Grant {
  /** Keys of the entries that admit it, in byte order. */
  readonly entries: readonly string[];
  /** Requests must be judged one by one: a connection that cannot be read must not pass. */
  readonly inspect: boolean;
  readonly tls: "auto" | "skip";
  /** The ranges that the address dialled must be in; undefined is no constraint. */
  readonly allowedIps: AddressSet | undefined;
  /** Some entry names this very host. */
  readonly isExactHost: boolean;
}

/** A decision. `audit` is a violation that the file says to let through and record, `ask` what a person decides. */
export interface PolicyDecision {
  readonly effect: "allow" | "ask" | "audit" | "deny";
  readonly code: DecisionCode;
  /** For operators and for the client; names hosts, entries and rules. */
  readonly reason: string;
  /** Key of the entry that decided. */
  readonly entry?: string | undefined;
  /** The endpoint or rule within the entry, e.g. `endpoints[0].rules[2]`. */
  readonly rule?: string | undefined;
  readonly grant?: Grant;
  /** The settings that apply to the request, when requests are judged here. */
  readonly inspection?: Inspection;
  /** Of a request on a connection that a person decides on: the violation that is recorded where the person lets it through. */
  readonly audited?: PolicyDecision;
}
