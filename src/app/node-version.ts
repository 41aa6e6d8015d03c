/** Which versions of Node.js run the program: `engines.node` of package.json. */

const oldest = [22, 19] as const;

/** What to say when `version` (such as "20.20.2") is too old. */
export function nodeProblem(version: string): string | undefined {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const isEnough = major > oldest[0] || (major === oldest[0] && minor >= oldest[1]);
  return isEnough
    ? undefined
    : `Node.js ${oldest.join(".")} or later is needed, this is ${version}`;
}
