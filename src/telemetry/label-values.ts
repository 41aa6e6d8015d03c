/** Values of labels, all of them closed sets. Some are the words of rooms that stand above this one. */
export const directions = ["inbound", "outbound"] as const;
export const transports = ["http", "connect", "bridge", "transparent"] as const;
export const outcomes = ["ok", "denied", "unavailable", "error", "cancelled"] as const;
export const phases = ["pipeline", "connect", "tls", "first_byte", "response"] as const;
export const results = ["ok", "failed"] as const;
/** The hops of upstream/hop-fault.ts. */
export const hops = ["dns", "tcp", "tls", "auth", "connect", "http"] as const;
/** Classes of status, by the first digit. */
export const statusClasses = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"] as const;
/** Why a tunnel ended. */
export const tunnelEnds = [
  "closed",
  "idle",
  "aborted",
  "error",
  "crowded",
  "revoked",
  "killed",
  "refused",
] as const;
/** The items of spiffe/workload/agent.ts. */
export const spiffeItems = ["x509_svid", "x509_bundle", "jwt_svid", "jwt_bundle"] as const;
/** The reasons of mtls/peer-trust.ts. */
export const peerReasons = [
  "no-svid",
  "plain",
  "silent",
  "no-certificate",
  "untrusted",
  "expired",
  "not-spiffe",
  "not-allowed",
  "handshake",
] as const;
/** Why a client was refused before there was a flow. */
export const refusals = [
  "connections",
  "tunnels",
  "buffer",
  "draining",
  "malformed",
  "timeout",
  "caller",
] as const;

/** What becomes of questions to persons, and of the requests that wait for an answer. */
export const approvalEvents = [
  "asked",
  "joined",
  "allowed",
  "denied",
  "expired",
  "withdrawn",
  "passed",
  "refused",
  "too_many",
  "nobody",
  "cancelled",
] as const;

/** What the dialogue of a SOCKS client came to; what it asked for is a flow. */
export const socksOutcomes = ["requested", "refused", "caller", "timeout", "closed"] as const;
