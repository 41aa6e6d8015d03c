/**
 * The one automaton of all glob dialects, matched in time linear in pattern × text.
 *
 * A dialect reads its patterns into nodes; these become states that are walked side by side, so that no pattern can
 * make the matcher try the same position twice, whatever the text.
 */

/** Characters by their code points. */
interface CharacterSet {
  readonly negated: boolean;
  readonly ranges: readonly (readonly [number, number])[];
}

/** One element of a pattern: a character that stands for itself, or a sign. */
export type GlobNode =
  | string
  | ({ readonly kind: "one" } & CharacterSet)
  /** Any run of characters but this one; of all characters if it is empty. */
  | { readonly kind: "many"; readonly but: string }
  | { readonly kind: "either"; readonly branches: readonly (readonly GlobNode[])[] };

/** Whether a text matches as a whole. */
export type Matches = (text: string) => boolean;

interface State {
  /** A state that reads nothing is a fork, or the end if nothing follows. */
  readonly reads: boolean;
  readonly negated: boolean;
  /** First and last code point of each range. */
  readonly bounds: readonly number[];
  readonly repeats: boolean;
  readonly next: State | undefined;
  /** The other way out of a fork. */
  readonly other: State | undefined;
  /** The last position at which it was entered. */
  enteredAt: number;
}

/** One character but the given one; any character if that is empty. */
export function oneBut(character: string): GlobNode & CharacterSet {
  return { kind: "one", negated: true, ranges: character === "" ? [] : rangesOf(character) };
}

/** What the literal ends of a pattern decide never reaches the automaton. */
export function compileNodes(nodes: readonly GlobNode[]): Matches {
  const isSign = (node: GlobNode): boolean => typeof node !== "string";
  const from = nodes.findIndex(isSign);
  if (from === -1) {
    const whole = literal(nodes);
    return (text) => text === whole;
  }
  const to = nodes.findLastIndex(isSign) + 1;
  const prefix = literal(nodes.slice(0, from));
  const suffix = literal(nodes.slice(to));
  const shortest = prefix.length + suffix.length;
  const matches = compileMiddle(nodes.slice(from, to));
  return (text) =>
    text.length >= shortest &&
    text.startsWith(prefix) &&
    text.endsWith(suffix) &&
    matches(text, prefix.length, text.length - suffix.length);
}

function literal(nodes: readonly GlobNode[]): string {
  return nodes.filter((node) => typeof node === "string").join("");
}

/** Whether a part of a text matches; a single run needs no automaton. */
function compileMiddle(
  nodes: readonly GlobNode[],
): (text: string, from: number, to: number) => boolean {
  const [first] = nodes;
  if (nodes.length === 1 && typeof first === "object" && first.kind === "many") {
    const { but } = first;
    if (but === "") return () => true;
    return (text, from, to) => {
      const at = text.indexOf(but, from);
      return at === -1 || at >= to;
    };
  }
  const end = fork(undefined, undefined);
  const matches = automaton(linked(nodes, end), end);
  return (text, from, to) => matches(text.slice(from, to));
}

function rangesOf(character: string): CharacterSet["ranges"] {
  const code = character.codePointAt(0) ?? 0;
  return [[code, code]];
}

function reading({ negated, ranges }: CharacterSet, next: State, repeats = false): State {
  const bounds = ranges.flat();
  return { reads: true, negated, bounds, repeats, next, other: undefined, enteredAt: 0 };
}

function fork(next: State | undefined, other: State | undefined): State {
  return { reads: false, negated: false, bounds: [], repeats: false, next, other, enteredAt: 0 };
}

/** The state in which the nodes begin (Thompson's construction, from the end). */
function linked(nodes: readonly GlobNode[], end: State): State {
  let next = end;
  for (const node of nodes.toReversed()) {
    if (typeof node === "string") next = reading({ negated: false, ranges: rangesOf(node) }, next);
    else if (node.kind === "one") next = reading(node, next);
    else if (node.kind === "many") next = reading(oneBut(node.but), next, true);
    else {
      const after = next;
      next = node.branches.map((branch) => linked(branch, after)).reduce(fork);
    }
  }
  return next;
}

/** Scratch space is kept between texts: matching is synchronous. */
function automaton(start: State, end: State): Matches {
  let current: State[] = [];
  let following: State[] = [];
  const pending: State[] = [];
  let position = 0;
  return (text) => {
    following.length = 0;
    position += 1;
    enter(start, position, following, pending);
    for (let index = 0; index < text.length;) {
      if (following.length === 0) return false;
      const code = text.codePointAt(index) ?? 0;
      index += code > 0xff_ff ? 2 : 1;
      [current, following] = [following, current];
      following.length = 0;
      position += 1;
      for (const state of current) {
        if (!holds(state, code)) continue;
        const next = state.repeats ? state : state.next;
        if (next !== undefined) enter(next, position, following, pending);
      }
    }
    return end.enteredAt === position;
  };
}

/** Adds a state and all that it reaches without reading; each state at most once per position. */
function enter(first: State, position: number, into: State[], pending: State[]): void {
  let state: State | undefined = first;
  while (state !== undefined) {
    const isNew = state.enteredAt !== position;
    state.enteredAt = position;
    if (isNew && state.reads) into.push(state);
    if (isNew && state.other !== undefined) pending.push(state.other);
    state = isNew && (state.repeats || !state.reads) ? state.next : pending.pop();
    if (state === undefined) state = pending.pop();
  }
}

function holds({ negated, bounds }: State, code: number): boolean {
  for (let at = 0; at < bounds.length; at += 2) {
    if (code >= (bounds[at] ?? 0) && code <= (bounds[at + 1] ?? 0)) return !negated;
  }
  return negated;
}
