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
