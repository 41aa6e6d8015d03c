/** The status of every code of a denial that the Go program knows. */
export const denialCodes = [
  ["auth.missing-token", 401],
  ["auth.invalid-token", 401],
  ["auth.audience-mismatch", 401],
  ["auth.unauthorized", 401],
  ["policy.forbidden", 403],
  ["policy.content-blocked", 403],
  ["policy.rate-limited", 429],
  ["upstream.unreachable", 503],
  ["upstream.token-exchange-failed", 503],
  ["upstream.timeout", 504],
  ["pipeline.cancelled", 499],
] as const;
