/** Tokens to exchange in the places that the file opens, besides the Authorization field: which one, and where the issued one goes. */
import {
  type Decision,
  deny,
  type PluginDeps,
  type RequestContext,
} from "../../pipeline/plugin.ts";
import type { Secret } from "../../secret.ts";
import type { Place, Where } from "../credentials/place.ts";
import { placeholderPrefix } from "../credentials/placeholder.ts";
import { fillPlaces } from "../credentials/places.ts";

const b64token = /^[\w\-.~+/]+=*$/;
const jwt = /^eyJ[\w-]+\.[\w-]+\.[\w-]+$/;

function isPlain(text: string): boolean {
  return text.startsWith(placeholderPrefix) || jwt.test(text);
}

/** Whether the text could be a token: in a path, where anything may stand, only what is one for certain. */
export function couldBeToken(text: string, { place, scheme }: Where): boolean {
  if (scheme !== undefined && scheme.toLowerCase() !== "bearer") return false;
  return place.path_segment === undefined ? b64token.test(text) : isPlain(text);
}

/** The token that a message brings, and the places that have it. */
export interface Brought {
  readonly token: string;
  readonly places: readonly Place[];
}

/** What is exchanged of what was found: handles and JWTs before anything else that could be a token. */
export function broughtIn(found: readonly Place[]): Brought | Decision | undefined {
  const plain = found.filter(({ standIn }) => isPlain(standIn));
  const places = plain.length > 0 ? plain : found;
  const [token, another] = new Set(places.map(({ standIn }) => standIn));
  if (token === undefined) return undefined;
  if (another === undefined) return { token, places };
  const message = "the places of the token hold different tokens";
  return deny("ambiguous_token", { code: "auth.unauthorized", message });
}

/** Puts the issued token where the other one was; the refusal where it cannot stand there. */
export function putInto(
  context: RequestContext,
  { places }: Brought,
  deps: PluginDeps,
): (token: Secret) => Decision | undefined {
  return (token) => {
    const value = token.reveal();
    const tight = places.find((place) => !place.fits(value));
    if (tight !== undefined) {
      const message = `the issued token cannot stand in its place (${tight.shown})`;
      return deny("unsafe_value", { code: "upstream.token-exchange-failed", message });
    }
    fillPlaces(context, places, value, {
      isConcealed: () => true,
      onFound: () => deps.count("echo_removed"),
    });
    return undefined;
  };
}
