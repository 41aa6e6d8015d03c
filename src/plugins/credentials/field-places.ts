/** Places in the fields of a request. */
import { FieldNames, foldedName } from "../../http/field-names.ts";
import { isSameName, isToken } from "../../http/headers.ts";
import type { RequestContext } from "../../pipeline/plugin.ts";
import { shownPlace } from "./place-config.ts";
import type { Find, Place } from "./place.ts";

const schemed = /^([!#$%&'*+\-.^`|~\w]+) +(\S+)$/;

/** The value of a field, or what follows the scheme in it. */
export const findHeader: Find = ({ headers }, place, recognise) => {
  const field = place.header ?? "";
  const [value, ...more] = headers.getAll(field);
  if (value === undefined || value === "" || more.length > 0) return [];
  const text = value.trim();
  const [, scheme, parameter] = schemed.exec(text) ?? [];
  const isBasic = scheme?.toLowerCase() === "basic";
  if (parameter !== undefined && !isBasic && recognise(parameter, { place, scheme }))
    return [fieldPlace(field, parameter, (credential) => `${scheme} ${credential}`)];
  if (!recognise(text, { place })) return [];
  return [fieldPlace(field, text, (credential) => credential)];
};

/** A field that the operator names, with the credential as it stands there. */
export function namedPlace(field: string, standIn: string): Place {
  const isAuthorization = foldedName(field) === "authorization";
  const write = (credential: string) => (isAuthorization ? `Bearer ${credential}` : credential);
  return fieldPlace(field, standIn, write);
}

/** The field is removed in every spelling before it is set: a recipient that folds names would see two credentials. */
function fieldPlace(field: string, standIn: string, write: (credential: string) => string): Place {
  return {
    shown: isSameName(field, "authorization") ? "Authorization" : field,
    field,
    standIn,
    fits: () => true,
    fill: ({ headers }, value) => setAlone(headers, field, write(value)),
  };
}

function setAlone(headers: RequestContext["headers"], field: string, value: string): void {
  new FieldNames([field]).removeFrom(headers);
  headers.set(field, value);
}

type Pair = readonly [user: string, password: string];

/** RFC 7617: git and pip send a token as the user or as the password. */
export const findBasic: Find = ({ headers }, place, recognise) => {
  const came = readBasic(headers);
  if (came === undefined) return [];
  const side = place.basic === "user" ? 0 : 1;
  if (!recognise(came[side], { place })) return [];
  const written = (pair: Pair, value: string): string =>
    Buffer.from((side === 0 ? [value, pair[1]] : [pair[0], value]).join(":"), "latin1").toString(
      "base64",
    );
  return [
    {
      shown: "Authorization",
      field: "authorization",
      standIn: came[side],
      // A colon ends the user: the rest of the credential would be read as the password.
      fits: (value) => side === 1 || !value.includes(":"),
      // The other half may have been filled before.
      fill: (to, value) => {
        const pair = readBasic(to.headers) ?? came;
        setAlone(to.headers, "Authorization", `Basic ${written(pair, value)}`);
      },
      encoded: (value) => [written(came, value), written(came, came[side])],
    },
  ];
};

function readBasic(headers: RequestContext["headers"]): Pair | undefined {
  const [value = "", ...more] = headers.getAll("authorization");
  const [, scheme, encoded = ""] = schemed.exec(value.trim()) ?? [];
  if (more.length > 0 || scheme?.toLowerCase() !== "basic") return undefined;
  const pair = Buffer.from(encoded, "base64").toString("latin1");
  const colon = pair.indexOf(":");
  return colon === -1 ? undefined : [pair.slice(0, colon), pair.slice(colon + 1)];
}

const protocolField = "sec-websocket-protocol";

/** One of the subprotocols that a WebSocket offers (RFC 6455 section 4.1). */
export const findProtocol: Find = (context, place, recognise) => {
  if (context.upgrade?.toLowerCase() !== "websocket") return [];
  const [before = "", after = ""] = (place.websocket_protocol ?? "").split("*");
  const isEncoded = place.encoded === "base64url";
  const read = (offered: string): string | undefined => {
    if (offered.length < before.length + after.length) return undefined;
    if (!offered.startsWith(before) || !offered.endsWith(after)) return undefined;
    const text = offered.slice(before.length, offered.length - after.length);
    return isEncoded ? Buffer.from(text, "base64url").toString("latin1") : text;
  };
  const write = (value: string): string =>
    isEncoded ? Buffer.from(value, "latin1").toString("base64url") : value;
  const standIn = offersOf(context)
    .map(read)
    .find((text) => text !== undefined && recognise(text, { place }));
  if (standIn === undefined) return [];
  return [
    {
      shown: shownPlace(place),
      standIn,
      fits: (value) => isToken(write(value)),
      fill: (to, value) => {
        const offers = offersOf(to).map((offer) =>
          read(offer) === standIn ? `${before}${write(value)}${after}` : offer,
        );
        to.headers.set("Sec-WebSocket-Protocol", offers.join(", "));
      },
      ...(isEncoded && { encoded: (value) => [write(value), write(standIn)] as const }),
    },
  ];
};

function offersOf({ headers }: RequestContext): string[] {
  return (headers.get(protocolField) ?? "").split(",").map((offer) => offer.trim());
}
