/** How whoever reads a hint calls this program: as it was called itself. */
export function invocation(env: NodeJS.ProcessEnv = process.env): string {
  // npm sets it for what `npx` and `npm exec` start, and then the bare name is on nobody's path.
  return env["npm_command"] === "exec" ? "npx authbridge-proxy" : "authbridge-proxy";
}
