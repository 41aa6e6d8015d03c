/** The file of `--demo`: a forward proxy on one developer's machine that opens TLS and records what it sees. */
import type { AnyPluginDefinition } from "../pipeline/plugin.ts";

/** Ports of the demo on 127.0.0.1; the first three are those of the Go program. */
export const demoPorts = { forward: 47_600, sessions: 47_601, stats: 47_602, health: 47_603 };

/** What the Go program's demo puts into its outbound pipeline. */
const parsers = ["inference-parser", "mcp-parser", "a2a-parser"] as const;

/** A demo file, and which parsers this build lacks. */
export interface DemoConfig {
  readonly text: string;
  readonly missing: readonly string[];
}

/** Writes nothing; `directory` is absolute and `definitions` are the plugins of this build. */
export function demoConfig(
  directory: string,
  definitions: readonly AnyPluginDefinition[],
): DemoConfig {
  const isHere = (name: string): boolean =>
    definitions.some((known) => known.name === name && known.unavailable === undefined);
  const present = parsers.filter(isHere);
  const plugins =
    present.length === 0 ? " []" : present.map((name) => `\n      - ${name}`).join("");
  const text = `# Written anew at every start of authbridge-proxy --demo: copy it to keep changes.
listener:
  roles: [forward]
  forward_proxy_addr: ${onLoopback(demoPorts.forward)}
  session_api_addr: ${onLoopback(demoPorts.sessions)}
  health_addr: ${onLoopback(demoPorts.health)}
  # The demo redirects no connections.
  transparent_proxy_addr: "off"

stats:
  address: ${onLoopback(demoPorts.stats)}

pipeline:
  inbound:
    default: deny
  outbound:
    # A demonstration shows traffic and judges none of it.
    default: allow
    plugins:${plugins}

tls_bridge:
  mode: enabled
  ca_dir: ${quote(directory)}
  generate_ca: true
`;
  return { text, missing: parsers.filter((name) => !isHere(name)) };
}

function onLoopback(port: number): string {
  return `"127.0.0.1:${port}"`;
}

/** A JSON string is a YAML string; an escaped dollar sign is none that the loader would expand. */
function quote(value: string): string {
  return JSON.stringify(value).replaceAll("$", "\\u0024");
}
