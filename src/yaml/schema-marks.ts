/** What is known of a schema besides what it checks. */
import type { z } from "zod";
import type { SchemaDef } from "./schema-keys.ts";

type Schema = z.core.$ZodType;

/** One kind of mark. A marked schema that is described, refined or wrapped afterwards is another object, and has the mark still. */
export class SchemaMarks<Mark> {
  readonly #marks = new WeakMap<Schema, Mark>();

  set(schema: Schema, mark: Mark): void {
    this.#marks.set(schema, mark);
  }

  get(schema: Schema | undefined): Mark | undefined {
    if (schema === undefined) return undefined;
    const { parent, def } = schema._zod;
    return this.#marks.get(schema) ?? this.get(parent) ?? this.get((def as SchemaDef).innerType);
  }
}
