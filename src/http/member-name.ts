/** Names of JSON members, as decoders that do not regard case compare them. */

/**
 * The form in which two names are one to such a decoder: `Params`, and `paramſ` as well, because Go's encoding/json
 * folds U+017F to s and U+212A to k.
 */
export function foldedName(name: string): string {
  return name.toUpperCase().toLowerCase();
}
