/** Commands that print the table of commands in another form. */
import { command } from "./command.ts";
import type { Shell } from "./completion.ts";
import * as takes from "./parameter.ts";

/** A part of the table. */
export const shellCommands = {
  completion: command({
    usage: { "completion bash | zsh | fish": "print the completion of a shell" },
    parameters: {
      shell: takes.word(["bash", "zsh", "fish"], "completion needs a shell: bash, zsh or fish"),
    },
    load: async (): Promise<(values: { shell: Shell }) => number> => {
      const { completionScript } = await import("./completion.ts");
      const { rows } = await import("./commands.ts");
      return ({ shell }) => print(completionScript(shell, rows));
    },
  }),
  man: command({
    usage: { man: "print the page of the manual: authbridge-proxy man | man -l -" },
    parameters: {},
    load: async (): Promise<() => number> => {
      const { manualPage } = await import("./manual.ts");
      const { packageVersion } = await import("../version.ts");
      const { rows } = await import("./commands.ts");
      return () => print(manualPage(rows, packageVersion()));
    },
  }),
};

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}
