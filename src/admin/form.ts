/** The form that a request to an operator surface brings. */
import type { IncomingMessage } from "node:http";

/** Why there is none, as the response says it. */
export interface NoForm {
  readonly status: number;
  readonly error: string;
  readonly message: string;
}

const maxBytes = 65_536;

/** What a route takes; nothing without `takesForm`. */
interface Takes {
  readonly takesForm?: boolean;
  readonly takesJson?: boolean;
  readonly takesRaw?: boolean;
}

/** What was posted, as the route wants it. */
export async function readPosted(
  request: IncomingMessage,
  { takesForm, takesJson, takesRaw }: Takes,
): Promise<
  | { readonly form?: URLSearchParams }
  | { readonly raw: string; field(name: string): string | undefined }
  | NoForm
> {
  if (takesForm !== true) return {};
  if (takesRaw !== true) {
    const form = await readForm(request, takesJson);
    return "error" in form ? form : { form };
  }
  const raw = await readText(request);
  if (typeof raw !== "string") return raw;
  const field = (name: string): string | undefined => {
    const value = request.headers[name];
    return typeof value === "string" ? value : undefined;
  };
  return { raw, field };
}

/** Reads it whole; the members of a JSON object count as fields where the route takes JSON. */
async function readForm(
  request: IncomingMessage,
  takesJson = false,
): Promise<URLSearchParams | NoForm> {
  const type = request.headers["content-type"]?.split(";", 1)[0]?.trim().toLowerCase();
  const isJson = takesJson && type === "application/json";
  if (!isJson && type !== "application/x-www-form-urlencoded") {
    return {
      status: 415,
      error: "request.unsupported-content",
      message: `a form${takesJson ? ", or JSON," : ""} is expected here`,
    };
  }
  const text = await readText(request);
  if (typeof text !== "string") return text;
  return isJson ? fieldsOf(text) : new URLSearchParams(text);
}

async function readText(request: IncomingMessage): Promise<string | NoForm> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  // What is left of a form that is too large must not take the response with it.
  const body: AsyncIterable<Buffer> = request.iterator({ destroyOnReturn: false });
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > maxBytes) {
      return { status: 413, error: "request.body-too-large", message: "the form is too large" };
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** The members of a JSON object as fields of a form. */
function fieldsOf(text: string): URLSearchParams | NoForm {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
  const members = isObject ? Object.entries(value as object) : [];
  if (!isObject || members.some(([, member]) => typeof member === "object")) {
    const message = "the JSON is no object of texts";
    return { status: 400, error: "request.malformed", message };
  }
  return new URLSearchParams(
    members.map(([name, member]): [string, string] => [name, String(member)]),
  );
}
