/** Where clients send credentials, besides Authorization. */

/** Fields in which the SDKs and tools of the field send an API key. */
export const keyFields: readonly string[] = [
  "x-api-key",
  "x-goog-api-key",
  "api-key",
  "apikey",
  "xi-api-key",
  "x-auth-token",
  "x-access-token",
  "private-token",
  "x-subscription-token",
  "ocp-apim-subscription-key",
];
