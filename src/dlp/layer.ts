/** Some bytes, as they came or decoded from those of another layer. */

/** One layer; the outermost has no parent. */
export interface Layer {
  readonly bytes: Buffer;
  readonly depth: number;
  readonly via: readonly string[];
  readonly parent?: Layer;
  /** Where escapes were undone: other runs of digits were looked at in the parent. */
  readonly touched?: readonly number[] | undefined;
  /** Escapes that may hide something, in groups: the first and the last of each in turn. */
  readonly escapes: number[];
  /** The place in the parent's bytes that a part of these came from. */
  within?(start: number, end: number): readonly [number, number];
}

/** One without a parent: a text, or a piece of what a stream holds. */
export function rootLayer(
  bytes: Buffer,
  { depth, via, touched }: Pick<Layer, "depth" | "via" | "touched"> = { depth: 0, via: [] },
): Layer {
  return { bytes, depth, via, touched, escapes: [] };
}

/** The part of the outermost bytes that a part of a layer came from. */
export function outermost(layer: Layer, start: number, end: number): readonly [number, number] {
  let span: readonly [number, number] = [start, end];
  for (let at: Layer = layer; at.parent !== undefined; at = at.parent)
    span = at.within?.(...span) ?? span;
  return span;
}
