/** The kinds of thing that are looked for, and what was found. */

/** Every detector that comes with the proxy. */
export const detectorNames = [
  "own_secrets",
  "provider_keys",
  "private_keys",
  "jwt",
  "named_secrets",
  "cards",
  "iban",
  "email",
  "phone",
  "us_ssn",
] as const;

/** One of {@link detectorNames}. */
export type DetectorName = (typeof detectorNames)[number];

/** Those that a rule has which names none: what is never meant to leave, and what has a checksum or a format of its own. */
export const standardDetectors: readonly DetectorName[] = [
  "own_secrets",
  "provider_keys",
  "private_keys",
];

/** Something found in some bytes. It never holds what was found. */
export interface Finding {
  /** A detector, or the name of a pattern or list of the file. */
  readonly detector: string;
  /** Finer than the detector: `github`, `visa`. */
  readonly kind?: string | undefined;
  /** In the bytes that were given, also where it was found in something decoded from them. */
  readonly start: number;
  readonly end: number;
  /** What had to be undone to see it, from the outermost: `base64`, `gzip`. */
  readonly via: readonly string[];
  /** Keyed: equal for equal values within one process. */
  readonly hash: string;
}

/** What a scan came to. */
export interface Scan {
  readonly findings: readonly Finding[];
  /** There was more to decode, or to find, than the limits say: what was not seen may hold anything. */
  readonly isCut: boolean;
  /** Bytes that were looked at, in all layers. */
  readonly steps: number;
}
