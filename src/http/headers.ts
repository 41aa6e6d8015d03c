/**
 * HTTP header lists as the flat [name, value, …] arrays that messages have here, and what a proxy does to them.
 */

/** Whether the text is a token (RFC 9110 section 5.6.2): a field name, a method, a coding. */
export function isToken(text: string): boolean {
  return /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(text);
}

/** Whether the text may be a field value: no control character but the tab (RFC 9110 section 5.5), nothing above U+00FF. */
export function isFieldValue(text: string): boolean {
  return /^[\t\x20-\x7e\x80-\xff]*$/.test(text);
}

/** Whether two names are the same field; differing lengths decide most comparisons. */
export function isSameName(a: string, b: string): boolean {
  return a.length === b.length && (a === b || a.toLowerCase() === b.toLowerCase());
}

/** Whether a flat list has the field. */
export function hasField(raw: readonly string[], name: string): boolean {
  for (let at = 0; at < raw.length; at += 2) if (isSameName(raw[at] ?? "", name)) return true;
  return false;
}

const ownProperty = { configurable: true, enumerable: true, writable: true };

/** A header section that keeps the spelling, order and duplicates of its fields; look-ups ignore case. */
export class HeaderList {
  readonly #raw: string[];

  /** Takes ownership of the array, which comes from an HTTP parser: its fields are not validated again. */
  constructor(raw: string[] = []) {
    this.#raw = raw;
  }

  /** A list with the fields of an object, validated; an array value becomes one field per item. */
  static fromRecord(
    record: Readonly<Record<string, string | readonly string[] | undefined>>,
  ): HeaderList {
    const list = new HeaderList();
    for (const [name, value] of Object.entries(record)) {
      for (const item of typeof value === "string" ? [value] : (value ?? [])) {
        list.append(name, item);
      }
    }
    return list;
  }

  /** The flat array itself; read it, change it only through the methods. */
  get raw(): readonly string[] {
    return this.#raw;
  }

  /** All values of the field joined by ", " (RFC 9110 section 5.3), or undefined when it is absent. */
  get(name: string): string | undefined {
    let joined: string | undefined;
    for (let at = 0; at < this.#raw.length; at += 2) {
      if (isSameName(this.#raw[at] ?? "", name)) {
        const value = this.#raw[at + 1] ?? "";
        joined = joined === undefined ? value : `${joined}, ${value}`;
      }
    }
    return joined;
  }

  /** The values of the field, one per line; the only lawful way to read Set-Cookie. */
  getAll(name: string): string[] {
    const values: string[] = [];
    for (let at = 0; at < this.#raw.length; at += 2) {
      if (isSameName(this.#raw[at] ?? "", name)) {
        values.push(this.#raw[at + 1] ?? "");
      }
    }
    return values;
  }

  has(name: string): boolean {
    return this.#indexOf(name) !== -1;
  }

  /** Gives the field one value in the place of its first line, and removes its other lines. */
  set(name: string, value: string): void {
    checkField(name, value);
    const first = this.#indexOf(name);
    if (first === -1) {
      this.#raw.push(name, value);
      return;
    }
    this.#raw[first + 1] = value;
    this.#removeFrom(first + 2, name);
  }

  /** Adds one more line at the end. */
  append(name: string, value: string): void {
    checkField(name, value);
    this.#raw.push(name, value);
  }

  /** Removes every line of the field and says whether there was one. */
  delete(name: string): boolean {
    return this.#removeFrom(0, name);
  }

  /** Every line as [name, value], in order. */
  *entries(): Generator<readonly [name: string, value: string]> {
    for (let at = 0; at < this.#raw.length; at += 2) {
      yield [this.#raw[at] ?? "", this.#raw[at + 1] ?? ""];
    }
  }

  [Symbol.iterator](): Generator<readonly [name: string, value: string]> {
    return this.entries();
  }

  clone(): HeaderList {
    return new HeaderList(this.#raw.slice());
  }

  /** Lower-case names, an array where a field has several lines; what every object inherits is no field. */
  toRecord(): Record<string, string | string[]> {
    const record: Record<string, string | string[]> = {};
    for (let at = 0; at < this.#raw.length; at += 2) {
      const key = (this.#raw[at] ?? "").toLowerCase();
      const value = this.#raw[at + 1] ?? "";
      const earlier = Object.hasOwn(record, key) ? record[key] : undefined;
      if (Array.isArray(earlier)) earlier.push(value);
      else if (earlier !== undefined) record[key] = [earlier, value];
      else if (key === "__proto__") Object.defineProperty(record, key, { ...ownProperty, value });
      else record[key] = value;
    }
    return record;
  }

  #indexOf(name: string): number {
    for (let at = 0; at < this.#raw.length; at += 2) {
      if (isSameName(this.#raw[at] ?? "", name)) {
        return at;
      }
    }
    return -1;
  }

  #removeFrom(start: number, name: string): boolean {
    let kept = start;
    for (let at = start; at < this.#raw.length; at += 2) {
      const field = this.#raw[at] ?? "";
      if (!isSameName(field, name)) {
        this.#raw[kept] = field;
        this.#raw[kept + 1] = this.#raw[at + 1] ?? "";
        kept += 2;
      }
    }
    const isChanged = kept < this.#raw.length;
    this.#raw.length = kept;
    return isChanged;
  }
}

function checkField(name: string, value: string): void {
  if (!isToken(name)) {
    throw new TypeError("header name is not a token");
  }
  if (!isFieldValue(value)) {
    // The value stays out of the message: it may be a credential.
    throw new TypeError(`value of header ${name} has a character that a field cannot carry`);
  }
}

/** The fields of one connection (RFC 9110 section 7.6.1), with what older software sends besides. */
export function isHopByHop(name: string): boolean {
  switch (name.length) {
    case 2:
      return isSameName(name, "te");
    case 7:
      return isSameName(name, "trailer") || isSameName(name, "upgrade");
    case 10:
      return isSameName(name, "connection") || isSameName(name, "keep-alive");
    case 14:
      // What h2c began with; HTTP/2 forbids it (RFC 9113 section 3.1).
      return isSameName(name, "http2-settings");
    case 16:
      return isSameName(name, "proxy-connection");
    case 17:
      return isSameName(name, "transfer-encoding");
    case 18:
      return isSameName(name, "proxy-authenticate");
    case 19:
      return isSameName(name, "proxy-authorization");
    case 25:
      return isSameName(name, "proxy-authentication-info");
    default:
      return false;
  }
}

/**
 * Fields that a Connection option cannot remove.
 *
 * A sender must not list end-to-end fields there (RFC 9110 section 7.6.1). One that does is trying to make the next hop
 * see another message than the one that was judged, so the option is ignored.
 */
const keptFields: ReadonlySet<string> = new Set([
  "authorization",
  "cache-control",
  "content-encoding",
  "content-length",
  "content-type",
  "cookie",
  "date",
  "expect",
  "forwarded",
  "host",
  "set-cookie",
  "via",
  "www-authenticate",
  "x-forwarded-for",
  "x-forwarded-host",
  "x-forwarded-proto",
]);

/** What {@link stripHopByHop} leaves in place. */
export interface StripOptions {
  /** Keeps `TE: trailers`, which gRPC needs end to end. */
  readonly keepTrailersTe?: boolean;
}

/** A copy of a flat header array without the fields of this connection and those that its Connection field names. */
export function stripHopByHop(raw: readonly string[], options?: StripOptions): string[] {
  const kept: string[] = [];
  let named: Set<string> | undefined;
  for (let at = 0; at < raw.length; at += 2) {
    const name = raw[at] ?? "";
    const value = raw[at + 1] ?? "";
    if (!isHopByHop(name)) {
      kept.push(name, value);
    } else if (name.length === 10) {
      named = connectionOptions(name, value, named);
    } else if (name.length === 2 && options?.keepTrailersTe === true && acceptsTrailers(value)) {
      kept.push(name, "trailers");
    }
  }
  return named === undefined ? kept : withoutNamed(kept, named);
}

function connectionOptions(
  field: string,
  value: string,
  earlier: Set<string> | undefined,
): Set<string> | undefined {
  if (!isSameName(field, "connection") || isSameName(value, "keep-alive") || value === "close") {
    return earlier;
  }
  const named = earlier ?? new Set<string>();
  for (const option of value.split(",")) {
    const name = option.trim().toLowerCase();
    // Hop-by-hop names are removed already; "te" must stay where `TE: trailers` was kept on purpose.
    if (name !== "" && !keptFields.has(name) && !isHopByHop(name)) {
      named.add(name);
    }
  }
  return named;
}

function withoutNamed(raw: string[], named: ReadonlySet<string>): string[] {
  if (named.size === 0) {
    return raw;
  }
  const kept: string[] = [];
  for (let at = 0; at < raw.length; at += 2) {
    const name = raw[at] ?? "";
    if (!named.has(name.toLowerCase())) {
      kept.push(name, raw[at + 1] ?? "");
    }
  }
  return kept;
}

/** Whether a TE field has the word "trailers" (RFC 9110 section 10.1.4). */
export function acceptsTrailers(value: string): boolean {
  return value.split(",").some((item) => isSameName(item.trim(), "trailers"));
}

/** Adds this proxy to the Via field (RFC 9110 section 7.6.3). */
export function appendVia(headers: HeaderList, httpVersion: string, pseudonym: string): void {
  appendToList(headers, "Via", `${httpVersion} ${pseudonym}`);
}

/** Adds the address of the client to X-Forwarded-For. */
export function appendForwardedFor(headers: HeaderList, address: string): void {
  appendToList(headers, "X-Forwarded-For", address);
}

function appendToList(headers: HeaderList, name: string, item: string): void {
  const earlier = headers.get(name);
  headers.set(name, earlier === undefined || earlier === "" ? item : `${earlier}, ${item}`);
}
