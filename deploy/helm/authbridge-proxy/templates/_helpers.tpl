{{/* Names, labels, images. */}}
{{- define "ab.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "ab.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "ab.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "ab.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "ab.selector" -}}
app.kubernetes.io/name: {{ include "ab.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: proxy
{{- end -}}

{{- define "ab.labels" -}}
app.kubernetes.io/name: {{ include "ab.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* An image reference of { repository, tag, digest }. */}}
{{- define "ab.image" -}}
{{- $image := .image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "ab.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "ab.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "ab.isGateway" -}}
{{- if eq .Values.topology "egress-gateway" -}}true{{- end -}}
{{- end -}}

{{- define "ab.isCooperative" -}}
{{- if eq .Values.egressEnforcement "none" -}}true{{- end -}}
{{- end -}}

{{/* The kernel gives the proxy what others send to the agent's own ports. */}}
{{- define "ab.isInboundCaptured" -}}
{{- if and .Values.inbound.enabled (eq .Values.inbound.interception "transparent") -}}true{{- end -}}
{{- end -}}

{{- define "ab.hasPolicies" -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.managedElsewhere) -}}true{{- end -}}
{{- end -}}

{{- define "ab.hasExample" -}}
{{- if kindIs "invalid" .Values.agentExample.enabled -}}
{{- if not (include "ab.isGateway" .) -}}true{{- end -}}
{{- else if .Values.agentExample.enabled -}}true{{- end -}}
{{- end -}}

{{/* The agents as { "agents": [{ name, namespace, podLabels, certificate }] }, whatever the mode. */}}
{{- define "ab.agents" -}}
{{- $list := list -}}
{{- if eq .Values.mode "shared" -}}
{{- range .Values.agents -}}
{{- $labels := .podLabels | default (dict "authbridge-proxy/agent" .name) -}}
{{- $list = append $list (dict "name" .name "namespace" (default $.Release.Namespace .namespace) "podLabels" $labels "certificate" (default "" .certificate)) -}}
{{- end -}}
{{- else -}}
{{- $labels := .Values.agent.podLabels | default (dict "authbridge-proxy/agent" (include "ab.fullname" .)) -}}
{{- $list = append $list (dict "name" "agent" "namespace" (default .Release.Namespace .Values.agent.namespace) "podLabels" $labels "certificate" "") -}}
{{- end -}}
{{- toJson (dict "agents" $list) -}}
{{- end -}}

{{/* The securityContext of the proxy's container, as YAML. */}}
{{- define "ab.proxySecurity" -}}
{{- $ids := dict -}}
{{- with .Values.proxy.uid }}{{ $ids = dict "runAsUser" (int .) "runAsGroup" (int .) }}{{ end -}}
{{- toYaml (merge $ids (default dict .Values.proxy.securityContext)) -}}
{{- end -}}

{{/* The securityContext of a pod with nothing but the proxy, as YAML. */}}
{{- define "ab.podSecurity" -}}
{{- $ids := dict -}}
{{- with .Values.proxy.uid }}{{ $ids = dict "runAsUser" (int .) "runAsGroup" (int .) "fsGroup" (int .) }}{{ end -}}
{{- toYaml (merge $ids (default dict .Values.gateway.podSecurityContext)) -}}
{{- end -}}

{{/* A restricted container. */}}
{{- define "ab.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Peer of a NetworkPolicy rule: these pods, in that namespace. */}}
{{- define "ab.peer" -}}
{{- if ne .namespace .root.Release.Namespace }}
namespaceSelector:
  matchLabels:
    kubernetes.io/metadata.name: {{ .namespace | quote }}
{{- end }}
podSelector:
  matchLabels:
    {{- toYaml .labels | nindent 4 }}
{{- end -}}

{{/* The annotations of an object without any of its own, as lines of its metadata. */}}
{{- define "ab.commonAnnotations" -}}
{{- with .Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
{{- end -}}
{{- end -}}

{{/* The groups of a PrometheusRule: the alerts of rules/*.yaml but the disabled ones, and the rules that are given. */}}
{{- define "ab.rules" -}}
{{- $given := .Values.metrics.prometheusRule -}}
{{- $known := list -}}
{{- $groups := list -}}
{{- range $path, $_ := .Files.Glob "rules/*.yaml" -}}
{{- range ($.Files.Get $path | fromYaml).groups -}}
{{- $kept := list -}}
{{- range .rules -}}
{{- $known = append $known .alert -}}
{{- if not (has .alert $given.disabled) }}{{ $kept = append $kept . }}{{ end -}}
{{- end -}}
{{- if $kept }}{{ $groups = append $groups (dict "name" .name "rules" $kept) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- range $given.disabled -}}
{{- if not (has . $known) }}{{ fail (printf "metrics.prometheusRule.disabled: there is no alert %s; there are %s" . (join ", " $known)) }}{{ end -}}
{{- end -}}
{{- with $given.extraRules }}{{ $groups = append $groups (dict "name" "authbridge-proxy-extra" "rules" .) }}{{ end -}}
{{- toYaml (dict "groups" $groups) -}}
{{- end -}}
