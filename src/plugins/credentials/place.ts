/** A place that holds a stand-in, and what tells a stand-in from other text. */
import type { RequestContext } from "../../pipeline/plugin.ts";
import type { PlaceConfig } from "./place-config.ts";

/** Where a text stands. */
export interface Where {
  readonly place: PlaceConfig;
  /** The scheme before it, in a field. */
  readonly scheme?: string | undefined;
}

/** Whether the text is what the client sends in place of a credential. */
export type Recognise = (text: string, where: Where) => boolean;

/** A place that holds a stand-in. */
export interface Place {
  /** For the record, such as `Authorization` or `query key`. */
  readonly shown: string;
  /** The field, where a credential may move from it to another one. */
  readonly field?: string;
  /** Whether it is in the URL. */
  readonly isInUrl?: true;
  /** As the client sent it. */
  readonly standIn: string;
  /** Whether the credential can stand there without being read as something else. */
  fits(value: string): boolean;
  /** Gives the place the credential, as it has to be written there. */
  fill(context: RequestContext, value: string): void;
  /** The form in which the credential is sent where it is encoded, and the stand-in in the same form. */
  encoded?(value: string): readonly [credential: string, standIn: string];
}

/** Looks for stand-ins in one kind of place. */
export type Find = (context: RequestContext, place: PlaceConfig, recognise: Recognise) => Place[];

/** Text of a URL or a form without its percent-encoding; as it came where that is malformed. */
export function decoded(text: string): string {
  try {
    return decodeURIComponent(text.replace(/\+/g, " "));
  } catch {
    return text;
  }
}
