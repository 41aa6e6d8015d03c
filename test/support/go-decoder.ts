/** Checks a JSON value as Go's decoder would: missing and unknown members are fine, another type is not. */

/** A type: a name, a list of one type, or members by name (`*` stands for every name). */
export type GoType = string | readonly [GoType] | { readonly [member: string]: GoType };

const checks: Readonly<Record<string, (value: unknown) => boolean>> = {
  any: () => true,
  string: (value) => typeof value === "string",
  bool: (value) => typeof value === "boolean",
  int: (value) => Number.isSafeInteger(value),
  float: (value) => typeof value === "number",
  time: (value) =>
    typeof value === "string" && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z$/.test(value),
  direction: (value) => value === "inbound" || value === "outbound",
  phase: (value) => value === "request" || value === "response" || value === "denied",
  action: (value) => /^(?:allow|deny|skip|modify|observe)$/.test(String(value)),
  errorKind: (value) => /^(?:policy|backend_error|blocked)$/.test(String(value)),
};

/** Every place at which the value is not of the type. */
export function mismatches(
  value: unknown,
  type: GoType,
  types: Readonly<Record<string, GoType>>,
  path = "$",
): string[] {
  if (value === undefined || value === null) return [];
  if (typeof type === "string") {
    const named = types[type];
    if (named !== undefined) return mismatches(value, named, types, path);
    const check = checks[type];
    if (check === undefined) throw new Error(`no type ${type}`);
    return check(value) ? [] : [`${path} is no ${type}: ${JSON.stringify(value)}`];
  }
  if (isList(type)) {
    if (!Array.isArray(value)) return [`${path} is no list`];
    return value.flatMap((item, index) => mismatches(item, type[0], types, `${path}[${index}]`));
  }
  if (typeof value !== "object" || Array.isArray(value)) return [`${path} is no object`];
  return Object.entries(value).flatMap(([key, item]) => {
    const member = type[key] ?? type["*"];
    return member === undefined ? [] : mismatches(item, member, types, `${path}.${key}`);
  });
}

function isList(type: GoType): type is readonly [GoType] {
  return Array.isArray(type);
}
