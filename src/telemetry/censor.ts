/** Hides values under names that hold secrets, for whoever logs one by accident. */

const hidden = "[secret]";
const secretName =
  /(?:authorization|cookie|token|secret|password|assertion|credentials?|api[-_]?key|private[-_]?key)$/i;
const maxDepth = 4;
const maxRemembered = 2_048;
const verdicts = new Map<string, boolean>();

type Fields = Record<string, unknown>;

/** What is shown of a value under a secret's name; numbers and booleans there are counts and flags. */
export function hide(value: unknown): unknown {
  const isHidden = typeof value === "string" ? value !== "" : typeof value === "object";
  return isHidden && value !== null ? hidden : value;
}

/** The same object when it hides nothing, else a copy without the secrets. Looks four levels deep. */
export function censor(fields: Fields): Fields {
  return censored(fields, 0);
}

function censored(fields: Fields, depth: number): Fields {
  let copy: Fields | undefined;
  for (const key in fields) {
    const value = fields[key];
    if (typeof value !== "string" && (typeof value !== "object" || value === null)) continue;
    const safe = isSecretName(key) ? hide(value) : looked(value, depth);
    if (safe === value) continue;
    copy ??= { ...fields };
    copy[key] = safe;
  }
  return copy ?? fields;
}

function looked(value: string | object, depth: number): unknown {
  if (typeof value === "string" || depth >= maxDepth) return value;
  if (Array.isArray(value)) {
    let copy: unknown[] | undefined;
    for (const [index, item] of value.entries()) {
      const safe: unknown =
        typeof item === "object" && item !== null ? looked(item, depth + 1) : item;
      if (safe === item) continue;
      copy ??= [...value];
      copy[index] = safe;
    }
    return copy ?? value;
  }
  // Classes (errors, secrets, buffers) say themselves how they are written.
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null
    ? censored(value as Fields, depth + 1)
    : value;
}

/** Names repeat in every line, so the expression runs once per name. */
function isSecretName(name: string): boolean {
  const known = verdicts.get(name);
  if (known !== undefined) return known;
  const verdict = secretName.test(name);
  if (verdicts.size < maxRemembered) verdicts.set(name, verdict);
  return verdict;
}
