/** Parents from the file's spelling, with their secrets. */
import { readSmallFile } from "../../files/watched-file.ts";
import type { FileConfig } from "../../config/schema.ts";
import type { KeyPath } from "../../yaml/problem.ts";
import { messageOf } from "../../errors.ts";
import { parseAuthority, type Scheme } from "../../net/destination.ts";
import { Secret } from "../../secret.ts";
import type {
  ParentCredentials,
  ParentKind,
  ParentProxy,
} from "../../upstream/parent/parent-proxy.ts";
import type { Remark } from "../../yaml/schema-remarks.ts";

/** The block as it was checked. */
export type UpstreamProxyConfig = NonNullable<FileConfig["upstream_proxy"]>;
/** A parent as it is written: a URL or a mapping. */
type WrittenParent = NonNullable<UpstreamProxyConfig["http_proxy"]>;

/** Variables of the process. */
export type Variables = Readonly<Record<string, string | undefined>>;

/** What a parent is made with besides its own text. */
export interface ParentContext {
  readonly env: Variables;
  readonly connectBy: "address" | "name";
  readonly problems: Remark[];
}

interface Kind {
  readonly kind: ParentKind;
  readonly scheme: Scheme;
  /** The default port of the scheme, as in Go; curl takes 1080 for every proxy. */
  readonly defaultPort: number;
}

const kinds: Readonly<Record<string, Kind>> = {
  "http:": { kind: "http", scheme: "http", defaultPort: 80 },
  "https:": { kind: "https", scheme: "https", defaultPort: 443 },
  "socks5h:": { kind: "socks5", scheme: "tcp", defaultPort: 1080 },
  "socks5:": { kind: "socks5", scheme: "tcp", defaultPort: 1080 },
};

/** The longest user name and password of RFC 1929. */
const maxSocksBytes = 255;

/** Makes a parent; the text of a URL is in no message, because it may hold a password. */
export function makeParent(
  written: WrittenParent,
  path: KeyPath,
  context: ParentContext,
): ParentProxy | undefined {
  const shape = typeof written === "string" ? { url: written } : written;
  const urlPath = typeof written === "string" ? path : [...path, "url"];
  const refuse = (message: string, at: KeyPath = urlPath): undefined => {
    context.problems.push({ path: at, message });
  };
  const url = parseUrl(shape.url);
  if (url === undefined) return refuse("must be a URL such as http://proxy.example:3128");
  const kind = kinds[url.protocol];
  if (kind === undefined) return refuse("must start with http://, https:// or socks5h://");
  if (!/^\/?$/.test(url.pathname) || url.search !== "" || url.hash !== "")
    return refuse("must end after host and port; encode / ? # in a password");
  let destination;
  try {
    destination = parseAuthority(url.host, kind.scheme, kind.defaultPort);
  } catch (error) {
    return refuse(`its host cannot be used: ${messageOf(error)}`);
  }
  const before = context.problems.length;
  const credentials = credentialsOf(shape, url, path, context);
  if (context.problems.length > before) return undefined;
  if (kind.kind === "socks5" && credentials !== undefined && !fitsSocks(credentials))
    return refuse("user name and password of SOCKS5 have 1 to 255 bytes", path);
  const scheme = kind.kind === "socks5" ? "socks5h" : kind.scheme;
  return {
    kind: kind.kind,
    destination,
    connectBy: shape.connect_by ?? context.connectBy,
    credentials,
    label: `${scheme}://${destination.authority}`,
  };
}

function parseUrl(text: string): URL | undefined {
  // Without a scheme curl and Go read http://, and so do the variables of most sites.
  const full = /^[a-z][a-z\d+.-]*:\/\//i.test(text) ? text : `http://${text}`;
  return URL.canParse(full) ? new URL(full) : undefined;
}

type Shape = Exclude<WrittenParent, string>;

function credentialsOf(
  shape: Shape,
  url: URL,
  path: KeyPath,
  { env, problems }: ParentContext,
): ParentCredentials | undefined {
  const problem = (key: string, message: string): undefined => {
    problems.push({ path: [...path, key], message });
  };
  const { password, password_file: file, password_env: variable } = shape;
  const sources = [password, file, variable].filter((source) => source !== undefined);
  if (sources.length > 1)
    return problem("password", "give one of password, password_file and password_env");
  const inUrl = decoded(url.username);
  const passwordInUrl = decoded(url.password);
  if (inUrl === undefined || passwordInUrl === undefined)
    return problem("url", "has a % in its credentials that encodes nothing; write it as %25");
  if (sources.length > 0 && passwordInUrl !== "")
    return problem("url", "has a password, and the mapping has another one");
  const username = shape.username ?? inUrl;
  if (username === "") {
    return sources.length === 0 && passwordInUrl === ""
      ? undefined
      : problem("username", "is required with a password");
  }
  if (username.includes(":") || !/^[^\p{Cc}]*$/u.test(username))
    return problem("username", "must hold no colon and no control character (RFC 7617)");
  let value = password ?? passwordInUrl;
  if (variable !== undefined) {
    const found = env[variable];
    if (found === undefined) return problem("password_env", "names a variable that is not set");
    value = found;
  } else if (file !== undefined) {
    try {
      value = readSmallFile(file).replace(/\r?\n$/, "");
    } catch (error) {
      return problem("password_file", `cannot be read: ${messageOf(error)}`);
    }
  }
  return { username, password: new Secret(value) };
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

function fitsSocks({ username, password }: ParentCredentials): boolean {
  return [username, password.reveal()].every((text) => {
    const bytes = Buffer.byteLength(text);
    return bytes > 0 && bytes <= maxSocksBytes;
  });
}
