/** `envoy.service.auth.v3.CheckRequest`, as Envoy fills it in. */
import { doubleField, fieldOf, mapField, minusOneField, numberField } from "../../grpc/protobuf.ts";
import { isObject } from "../../http/json-access.ts";
import type { Attributes, Peer } from "./attributes.ts";

/** `anonymous`: without what is another one for every request, as the key of a verdict that is kept. */
export function writeCheckRequest(of: Attributes, anonymous = false): Buffer {
  return fieldOf(
    1,
    Buffer.concat([
      fieldOf(1, peerMessage(of.source, anonymous)),
      fieldOf(2, peerMessage(of.destination, false)),
      fieldOf(4, requestMessage(of, anonymous)),
      mapField(10, Object.entries(of.contextExtensions)),
      fieldOf(11, mapField(1, [["authbridge", structMessage(of.metadata)]])),
      ...(of.sni === undefined ? [] : [fieldOf(12, fieldOf(1, of.sni))]),
    ]),
  );
}

function peerMessage(peer: Peer, anonymous: boolean): Buffer {
  const { address, port, principal, certificate, labels } = peer;
  const socketAddress = [fieldOf(2, address), numberField(3, anonymous ? 0 : port)];
  return Buffer.concat([
    fieldOf(1, fieldOf(1, Buffer.concat(socketAddress))),
    mapField(3, Object.entries(labels)),
    ...(principal === undefined ? [] : [fieldOf(4, principal)]),
    ...(certificate === undefined ? [] : [fieldOf(5, certificate)]),
  ]);
}

function requestMessage(of: Attributes, anonymous: boolean): Buffer {
  const seconds = Math.floor(of.startedAt / 1_000);
  const time = [numberField(1, seconds), numberField(2, (of.startedAt % 1_000) * 1_000_000)];
  return Buffer.concat([
    ...(anonymous ? [] : [fieldOf(1, Buffer.concat(time))]),
    fieldOf(2, httpMessage(of, anonymous)),
  ]);
}

/** Fields that are others for every request and say nothing about it. */
const momentary = new Set(["traceparent", "tracestate", "x-request-id"]);

function httpMessage(of: Attributes, anonymous: boolean): Buffer {
  const { body } = of;
  const fields = of.fields.filter(([name]) => !anonymous || !momentary.has(name));
  return Buffer.concat([
    ...(anonymous ? [] : [fieldOf(1, of.id)]),
    fieldOf(2, of.method),
    ...(of.rawFields
      ? [fieldOf(13, Buffer.concat(fields.map((one) => fieldOf(1, rawHeader(one)))))]
      : [mapField(3, joined(fields))]),
    fieldOf(4, of.path),
    fieldOf(5, of.host),
    fieldOf(6, of.scheme),
    fieldOf(7, of.query),
    of.size === undefined ? minusOneField(9) : numberField(9, of.size),
    fieldOf(10, of.protocol),
    ...(body === undefined ? [] : [fieldOf(of.bodyAsBytes ? 12 : 11, body)]),
  ]);
}

function rawHeader([name, value]: readonly [string, string]): Buffer {
  return Buffer.concat([fieldOf(1, name), fieldOf(3, Buffer.from(value, "latin1"))]);
}

/** Lines of one field are joined with ",", as Envoy does. */
function joined(fields: Attributes["fields"]): Map<string, string> {
  const map = new Map<string, string>();
  for (const [name, value] of fields) {
    const earlier = map.get(name);
    map.set(name, earlier === undefined ? value : `${earlier},${value}`);
  }
  return map;
}

/** `google.protobuf.Struct`. */
function structMessage(value: Readonly<Record<string, unknown>>): Buffer {
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  return mapField(
    1,
    members.map(([name, member]) => [name, valueMessage(member)]),
  );
}

/** `google.protobuf.Value`. */
function valueMessage(value: unknown): Buffer {
  if (typeof value === "number") return doubleField(2, value);
  if (typeof value === "string") return fieldOf(3, value);
  if (typeof value === "boolean") return numberField(4, value ? 1 : 0);
  if (Array.isArray(value))
    return fieldOf(6, Buffer.concat(value.map((one) => fieldOf(1, valueMessage(one)))));
  return isObject(value) ? fieldOf(5, structMessage(value)) : numberField(1, 0);
}
