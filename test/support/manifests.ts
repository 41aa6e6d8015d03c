/** Kubernetes objects as helm and kustomize render them, and the questions that tests ask about them. */
import { execFileSync } from "node:child_process";
import { parseAllDocuments } from "yaml";

/** Labels of an object, or what selects by them. */
export type Labels = Readonly<Record<string, string>>;

/** A container, as much of it as tests look at. */
export interface Container {
  readonly name: string;
  readonly image?: string;
  readonly args?: readonly string[];
  readonly restartPolicy?: string;
  readonly env?: readonly { readonly name: string; readonly value?: string }[];
  readonly resources?: { readonly limits?: Labels; readonly requests?: Labels };
  readonly securityContext?: {
    readonly runAsUser?: number;
    readonly runAsNonRoot?: boolean;
    readonly allowPrivilegeEscalation?: boolean;
    readonly readOnlyRootFilesystem?: boolean;
    readonly capabilities?: { readonly drop?: string[]; readonly add?: string[] };
  };
  readonly volumeMounts?: readonly { readonly name: string; readonly mountPath: string }[];
}

/** A pod's spec. */
export interface PodSpec {
  readonly automountServiceAccountToken?: boolean;
  readonly runtimeClassName?: string;
  readonly securityContext?: { readonly seccompProfile?: { readonly type: string } };
  readonly initContainers?: readonly Container[];
  readonly containers: readonly Container[];
  readonly volumes?: readonly { readonly name: string }[];
}

/** A rule of a NetworkPolicy. */
export interface PolicyRule {
  readonly from?: readonly Peer[];
  readonly to?: readonly Peer[];
  readonly ports?: readonly { readonly protocol: string; readonly port: number }[];
}

interface Peer {
  readonly podSelector?: { readonly matchLabels: Labels };
  readonly namespaceSelector?: { readonly matchLabels: Labels };
  readonly ipBlock?: { readonly cidr: string };
}

/** The specs of all the kinds that tests look into, as one shape. */
export interface Spec extends Partial<PodSpec> {
  readonly replicas?: number;
  readonly selector?: { readonly matchLabels?: Labels };
  readonly podSelector?: { readonly matchLabels: Labels };
  readonly policyTypes?: readonly string[];
  readonly ingress?: readonly PolicyRule[];
  readonly egress?: readonly PolicyRule[];
  readonly template?: { readonly metadata: { readonly labels: Labels }; readonly spec: PodSpec };
  readonly [key: string]: unknown;
}

/** One object. */
export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Labels;
    readonly annotations?: Labels;
  };
  readonly automountServiceAccountToken?: boolean;
  readonly data?: Labels;
  readonly spec?: Spec;
}

/** Every object of a rendered text; one that is not YAML fails the test. */
export function manifestsOf(text: string): Manifest[] {
  return parseAllDocuments(text).flatMap((document) => {
    if (document.errors.length > 0) throw document.errors[0] ?? new Error("no YAML");
    const value = document.toJS() as Manifest | null;
    return value === null ? [] : [value];
  });
}

/** The objects of one kind. */
export function ofKind(manifests: readonly Manifest[], kind: string): Manifest[] {
  return manifests.filter((manifest) => manifest.kind === kind);
}

/** The one object of that kind whose name ends so. */
export function one(manifests: readonly Manifest[], kind: string, suffix = ""): Manifest {
  const [found, other] = ofKind(manifests, kind).filter(({ metadata }) =>
    metadata.name.endsWith(suffix),
  );
  if (found === undefined || other !== undefined)
    throw new Error(`${other === undefined ? "no" : "more than one"} ${kind} *${suffix}`);
  return found;
}

/** The specs of every pod that would run. */
export function podSpecs(manifests: readonly Manifest[]): PodSpec[] {
  return manifests.flatMap(({ kind, spec }) => {
    if (kind === "Pod" && spec?.containers !== undefined)
      return [{ ...spec, containers: spec.containers }];
    return spec?.template === undefined ? [] : [spec.template.spec];
  });
}

/** Init containers and containers, in the order in which they start. */
export function containersOf(pod: PodSpec): Container[] {
  return [...(pod.initContainers ?? []), ...pod.containers];
}

/** A container's environment; a value from elsewhere is empty. */
export function environmentOf(container: Container | undefined): Record<string, string> {
  return Object.fromEntries((container?.env ?? []).map(({ name, value }) => [name, value ?? ""]));
}

/** Whether a command answers; where it does not, tests that need it are skipped, visibly. */
export function isOnPath(...command: [string, ...string[]]): boolean {
  try {
    execFileSync(command[0], command.slice(1), { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}
