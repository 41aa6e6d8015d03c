/** Where in a message a finding is, in words that hold nothing of what was found. */

const maxShown = 120;

/** The path of the value at an offset of a JSON text: `$.messages[0].content`. */
export function jsonPlace(bytes: Buffer, offset: number): string {
  const stack: (string | number)[] = [];
  let key = "";
  for (let at = 0; at < offset && at < bytes.length; at += 1) {
    const byte = bytes[at];
    if (byte === 0x22) {
      const end = quoteEnd(bytes, at + 1);
      if (end >= offset) break;
      if (typeof stack.at(-1) === "string")
        key = bytes.toString("latin1", at + 1, Math.min(end, at + 65));
      at = end;
    } else if (byte === 0x3a && typeof stack.at(-1) === "string")
      stack[stack.length - 1] = `.${key}`;
    else if (byte === 0x7b) stack.push("");
    else if (byte === 0x5b) stack.push(0);
    else if (byte === 0x7d || byte === 0x5d) stack.pop();
    else if (byte === 0x2c) {
      const last = stack.at(-1);
      stack[stack.length - 1] = typeof last === "number" ? last + 1 : "";
    }
  }
  const path = stack.map((step) => (typeof step === "number" ? `[${step}]` : step)).join("");
  return `$${path.slice(0, maxShown)}`;
}

function quoteEnd(bytes: Buffer, from: number): number {
  let at = from;
  while (at < bytes.length && bytes[at] !== 0x22) at += bytes[at] === 0x5c ? 2 : 1;
  return at;
}

/** The parameter of a form or a query at an offset. */
export function parameterPlace(bytes: Buffer, offset: number): string {
  const start = Math.max(bytes.lastIndexOf("&", offset), bytes.lastIndexOf("?", offset)) + 1;
  const equals = bytes.indexOf("=", start);
  if (equals === -1 || equals >= offset) return "";
  return bytes.toString("latin1", start, Math.min(equals, start + 64));
}

/** The part of a multipart body at an offset. */
export function partPlace(bytes: Buffer, offset: number): string {
  const before = bytes.toString("latin1", Math.max(0, offset - 4_096), offset);
  const names = [
    ...before.matchAll(/content-disposition:[^\r\n]{0,200}?\bname="?([^"\r\n;]{1,64})/gi),
  ];
  return names.at(-1)?.[1] ?? "";
}
