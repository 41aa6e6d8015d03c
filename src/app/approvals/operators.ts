/** Who may decide, and their secrets. */
import { anyOperator, type NamedSecret } from "../../admin/secrets.ts";
import { type Decided, decide, type Order } from "../../approval/deciding.ts";
import type { Desk } from "../../approval/desk.ts";
import type { Config } from "../../config/presets.ts";
import type { Logger } from "../../telemetry/log.ts";
import { decidingRules } from "./desk-parts.ts";
import { secretIn } from "./secret-file.ts";

/** The operators of the file. Until a file can be read, its operator is not let in. */
export function operatorsOf({ approval }: Config, log: Logger): readonly NamedSecret[] {
  return approval.operators.map(({ name, secret_file: path }) => ({
    name,
    ...secretIn(path, `approval.operators ${name}`, log),
  }));
}

/** Follows orders; where operators have secrets of their own, the common one decides nothing. */
export function deciderOf(config: Config, desk: Desk): (order: Order) => Promise<Decided> {
  const rules = decidingRules(config);
  const isNamed = config.approval.operators.length > 0;
  return async (order) => {
    if (isNamed && order.by === anyOperator) {
      const message = "operators have secrets of their own (approval.operators): use yours";
      return { kind: "wrong", message };
    }
    return decide(desk, rules, order);
  };
}
