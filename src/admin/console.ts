/** The console: a page, its sheet and its modules, read when first asked for. They hold no data of anybody. */
import { readdirSync, readFileSync } from "node:fs";
import { extname } from "node:path";
import { failure, type AdminReply, type AdminRoute } from "./server.ts";

const folder = new URL("console/", import.meta.url);

const contentTypes: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
};

/** Nothing but this origin's own files runs, is loaded or is asked, and nobody may frame the page. */
const headers = {
  "Content-Security-Policy": [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    // Rows are placed by the script, through the style object, which this does not concern.
    "connect-src 'self'",
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
  ].join("; "),
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Resource-Policy": "same-origin",
} as const;

/** Relative, so that it holds behind a prefix as well. */
const toThePage: AdminReply = {
  status: 308,
  contentType: "text/plain; charset=utf-8",
  body: "",
  headers: { ...headers, Location: "./" },
};

/**
 * Routes of the console: `/`, the files below `/console/`, and `/console` itself, which leads to the page.
 *
 * They are open where the data wants a secret: the page asks for it.
 */
export function consoleRoutes(): readonly AdminRoute[] {
  let files: ReadonlyMap<string, AdminReply> | undefined;
  const missing = failure(404, "request.not-found", "no such file");
  const file = (name: string): AdminReply => (files ??= readFiles()).get(name) ?? missing;
  return [
    { path: "/", isOpen: true, handle: () => file("index.html") },
    { path: "/console", isOpen: true, handle: () => toThePage },
    { path: "/console/", isOpen: true, handle: ({ rest }) => file(rest) },
  ];
}

function readFiles(): ReadonlyMap<string, AdminReply> {
  const files = new Map<string, AdminReply>();
  for (const name of readdirSync(folder)) {
    const contentType = contentTypes[extname(name)];
    if (contentType === undefined) continue;
    const body = readFileSync(new URL(name, folder), "utf8");
    files.set(name, { status: 200, contentType, body, headers });
  }
  return files;
}
