/** Numbers of Entra ID's refusals: `error_description` begins with them, and they say more than the OAuth code. */
import type { Understood } from "./refusal-kind.ts";

const secret: Understood = {
  meaning: "registration",
  remedy: "set the value (not the id) of a client secret of the application that has not expired",
};
const tenant: Understood = {
  meaning: "registration",
  remedy: "see that token_url names the directory (tenant) of the application",
};
const interaction: Understood = { meaning: "caller-token" };
const refusedCaller: Understood = { meaning: "caller-right" };

const byNumber: ReadonlyMap<string, Understood> = new Map<string, Understood>([
  ["7000215", secret],
  ["7000222", secret],
  ["7000218", secret],
  [
    "700027",
    {
      meaning: "registration",
      remedy:
        "upload the certificate of signing_key_file to the application and set signing_certificate_file",
    },
  ],
  [
    "700024",
    {
      meaning: "registration",
      remedy: "see that this machine's clock is right: the client assertion is out of its time",
    },
  ],
  [
    "70021",
    {
      meaning: "registration",
      remedy:
        "give the application a federated credential with the issuer, subject and audience of the assertion",
    },
  ],
  [
    "700016",
    {
      meaning: "registration",
      remedy: "see that client_id is an application of the directory (tenant) that token_url names",
    },
  ],
  ["90002", tenant],
  ["900023", tenant],
  [
    "500011",
    {
      meaning: "registration",
      remedy: "the directory knows no resource of the name in token_scopes or target_audience",
    },
  ],
  [
    "70011",
    {
      meaning: "registration",
      remedy: "set token_scopes to scopes of one resource, such as api://ID/.default",
    },
  ],
  [
    "70003",
    {
      meaning: "registration",
      remedy: "Entra ID does not take this grant; it has no token exchange of RFC 8693",
    },
  ],
  [
    "65001",
    {
      meaning: "registration",
      remedy: "give consent as an administrator to the API permissions of this client",
    },
  ],
  [
    "501051",
    { meaning: "registration", remedy: "assign this client to a role of the target application" },
  ],
  // The caller's token: for another application, not by this directory, or out of its time.
  [
    "500131",
    {
      meaning: "caller-token",
      remedy:
        "callers need a token for the application of client_id: its audience is another application",
    },
  ],
  ["50013", { meaning: "caller-token" }],
  ["500133", { meaning: "caller-token" }],
  ["50076", interaction],
  ["50079", interaction],
  ["50057", refusedCaller],
  ["50105", refusedCaller],
  ["53003", refusedCaller],
]);

/** What the last number of the description means: older endpoints put a general one before it. */
export function entraMeaning(description: string): Understood | undefined {
  if (!description.startsWith("AADSTS")) return undefined;
  const numbers = [...description.matchAll(/\bAADSTS(\d{4,8})\b/g)].map(
    ([, number = ""]) => number,
  );
  const known = numbers.findLast((number) => byNumber.has(number));
  return known === undefined ? undefined : byNumber.get(known);
}
