/** `envoy.service.auth.v3.CheckResponse`, as a verdict. */
import { messageOf } from "../../errors.ts";
import {
  bytesOf,
  mapOf,
  messageIn,
  type ProtoField,
  readFields,
  repeatedOf,
  textOf,
  textsOf,
  varintIn,
} from "../../grpc/protobuf.ts";
import type { DecisionDetails } from "../../pipeline/plugin.ts";
import { type FieldAction, type FieldChange, statusFrom, type Verdict } from "./verdict.ts";

/** Fields that one verdict may set. */
const maxFields = 256;
const maxMetadata = 64;
const maxMetadataChars = 1_024;
const maxDepth = 16;

/** Never throws: what is no response of this kind is no verdict. */
export function readCheckResponse(message: Buffer): Verdict {
  try {
    return verdictOf(readFields(message));
  } catch (error) {
    return { kind: "failed", why: `its answer is no CheckResponse: ${messageOf(error)}` };
  }
}

function verdictOf(response: readonly ProtoField[]): Verdict {
  const status = messageIn(response, 1);
  const denied = messageIn(response, 2);
  const ok = messageIn(response, 3);
  if (messageIn(response, 5) !== undefined)
    return { kind: "failed", why: "it answered with error_response" };
  if (denied !== undefined && ok !== undefined) throw new Error("it allows and denies");
  const code = status === undefined ? undefined : (varintIn(status, 1) ?? 0);
  // Nothing at all is what a service sends that has forgotten to decide.
  if (code === undefined && ok === undefined && denied === undefined)
    throw new Error("it says nothing");
  if (denied !== undefined || (code ?? 0) !== 0) return refusalOf(response, denied ?? []);
  const said = ok ?? [];
  return {
    kind: "allowed",
    fields: changesOf(said, 2),
    removed: textsOf(said, 5),
    responseFields: changesOf(said, 6),
    query: {
      set: repeatedOf(said, 7).map((bytes) => {
        const pair = readFields(bytes);
        return [textOf(pair, 1), textOf(pair, 2)] as const;
      }),
      removed: textsOf(said, 8),
    },
    metadata: metadataOf(messageIn(said, 3) ?? messageIn(response, 4)),
  };
}

/** It stays one where what the client is to be told cannot be read: failures may pass, and this is none. */
function refusalOf(response: readonly ProtoField[], denied: readonly ProtoField[]): Verdict {
  try {
    return {
      kind: "denied",
      status: statusFrom(varintIn(messageIn(denied, 1) ?? [], 1) ?? 0, 403),
      fields: changesOf(denied, 2).map(({ name, value }) => [name, value] as const),
      body: bytesOf(denied, 3),
      metadata: metadataOf(messageIn(response, 4)),
    };
  } catch (error) {
    const metadata = { error: messageOf(error) };
    return { kind: "denied", status: 403, fields: [], body: Buffer.alloc(0), metadata };
  }
}

const actions: readonly FieldAction[] = ["append", "add", "overwrite", "overwrite-if-exists"];

/** `repeated HeaderValueOption`. */
function changesOf(fields: readonly ProtoField[], number: number): FieldChange[] {
  const options = repeatedOf(fields, number);
  if (options.length > maxFields) throw new Error(`it sets more than ${maxFields} fields`);
  return options.flatMap((bytes) => {
    const option = readFields(bytes);
    const header = messageIn(option, 1) ?? [];
    const text = textOf(header, 2);
    const value = text === "" ? bytesOf(header, 3).toString("latin1") : text;
    const keepsEmpty = varintIn(option, 4) === 1;
    if (value === "" && !keepsEmpty) return [];
    return [{ name: textOf(header, 1), value, action: actionOf(option) }];
  });
}

/**
 * `append` counts where it is there, as it is older; then `append_action`. Without both, which is what services send that
 * know of neither, the field is replaced: what the client sent under that name must not stand beside it.
 */
function actionOf(option: readonly ProtoField[]): FieldAction {
  const append = messageIn(option, 2);
  if (append !== undefined) return varintIn(append, 1) === 1 ? "append" : "overwrite";
  const number = varintIn(option, 3);
  if (number === undefined) return "overwrite";
  const action = actions[number];
  if (action === undefined) throw new Error(`its append_action ${number} is unknown`);
  return action;
}

/** `google.protobuf.Struct`, one level deep; what is deeper is JSON. */
function metadataOf(struct: readonly ProtoField[] | undefined): DecisionDetails {
  if (struct === undefined) return {};
  const entries = [...mapOf(struct, 1)].slice(0, maxMetadata).map(([name, bytes]) => {
    const value = valueOf(readFields(bytes), 0);
    const isPlain = typeof value === "number" || typeof value === "boolean";
    const text = typeof value === "string" ? value : JSON.stringify(value);
    return [`metadata.${name.slice(0, 128)}`, isPlain ? value : text.slice(0, maxMetadataChars)];
  });
  return Object.fromEntries(entries) as DecisionDetails;
}

/** `google.protobuf.Value`. */
function valueOf(fields: readonly ProtoField[], depth: number): unknown {
  if (depth > maxDepth) throw new Error("its metadata is too deep");
  const field = fields.at(-1);
  if (field === undefined) return null;
  if ("varint" in field) return field.number === 4 ? field.varint === 1 : null;
  if ("double" in field) return field.double;
  switch (field.number) {
    case 3:
      return textOf(fields, 3);
    case 5: {
      const members = [...mapOf(readFields(field.bytes), 1)];
      return Object.fromEntries(
        members.map(([name, bytes]) => [name, valueOf(readFields(bytes), depth + 1)]),
      );
    }
    case 6:
      return repeatedOf(readFields(field.bytes), 1).map((bytes) =>
        valueOf(readFields(bytes), depth + 1),
      );
    default:
      throw new Error("its metadata has a value of an unknown kind");
  }
}
