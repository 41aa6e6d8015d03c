/** Where clients usually put a credential: what a stand-in is looked for in while the file names no places. */
import { keyFields } from "../credentials/key-fields.ts";
import type { PlaceConfig } from "../credentials/place-config.ts";

/** Groups of places, as `placeholder_in` names them. */
export const usualPlaces = ["authorization", "header", "query", "path"] as const;

/** One of {@link usualPlaces}. */
export type UsualPlace = (typeof usualPlaces)[number];

/** Parameters in which they send it; others, such as a search term, are what servers like to repeat. */
const keyParameters = [
  "key",
  "api_key",
  "api-key",
  "apikey",
  "token",
  "access_token",
  "auth_token",
  "private_token",
];

/** The places of these groups, with a field of the file's own in front. */
export function placesOf(
  groups: readonly UsualPlace[],
  ownField: string | undefined,
): readonly PlaceConfig[] {
  const own = ownField === undefined ? [] : [ownField.toLowerCase()];
  const fields = [...new Set([...own, ...keyFields])].filter((name) => name !== "authorization");
  const all: Readonly<Record<UsualPlace, readonly PlaceConfig[]>> = {
    authorization: [{ header: "authorization" }, { basic: "user" }, { basic: "password" }],
    header: fields.map((header) => ({ header })),
    query: keyParameters.map((query) => ({ query })),
    path: [{ path_segment: "*" }, { path_segment: "bot*" }],
  };
  return usualPlaces.filter((group) => groups.includes(group)).flatMap((group) => all[group]);
}
