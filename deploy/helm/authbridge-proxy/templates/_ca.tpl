{{/* The bridge's authority. */}}
{{- define "ab.isBridged" -}}
{{- with .Values.ca -}}
{{- if or .existingSecret .certManager.enabled .selfSigned .ephemeral -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* The Secret with tls.crt, tls.key and ca.crt. */}}
{{- define "ab.caSecret" -}}
{{- default (printf "%s-ca" (include "ab.fullname" .)) .Values.ca.existingSecret -}}
{{- end -}}

{{/* ca.crt as PEM where helm can know it; else nothing, and agents mount it from the Secret. */}}
{{- define "ab.caCertificate" -}}
{{- $ca := .Values.ca -}}
{{- if $ca.certificate -}}
{{- $ca.certificate -}}
{{- else if $ca.selfSigned -}}
{{- index (fromJson (include "ab.selfSigned" .)) "ca.crt" | b64dec -}}
{{- else if $ca.existingSecret -}}
{{- $secret := lookup "v1" "Secret" .Release.Namespace $ca.existingSecret -}}
{{- if $secret }}{{ index $secret.data "ca.crt" | default "" | b64dec }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* Made once per rendering, and taken over from the cluster on an upgrade. */}}
{{- define "ab.selfSigned" -}}
{{- if not (hasKey .Values "_selfSigned") -}}
{{- $name := include "ab.caSecret" . -}}
{{- $old := lookup "v1" "Secret" .Release.Namespace $name -}}
{{- if and $old $old.data (index $old.data "tls.key") -}}
{{- $_ := set .Values "_selfSigned" (pick $old.data "tls.crt" "tls.key" "ca.crt") -}}
{{- else -}}
{{- $pair := genCA (printf "authbridge-trial-ca %s" (include "ab.fullname" .)) 365 -}}
{{- $_ := set .Values "_selfSigned" (dict "tls.crt" (b64enc $pair.Cert) "tls.key" (b64enc $pair.Key) "ca.crt" (b64enc $pair.Cert)) -}}
{{- end -}}
{{- end -}}
{{- toJson .Values._selfSigned -}}
{{- end -}}

{{- define "ab.hasTrustConfigMap" -}}
{{- if include "ab.caCertificate" . -}}true{{- end -}}
{{- end -}}

{{/* The volume with ca.crt and ca-bundle.crt for agents; never the key. */}}
{{- define "ab.trustVolume" -}}
name: authbridge-trust
{{- if include "ab.hasTrustConfigMap" . }}
configMap:
  name: {{ include "ab.fullname" . }}-trust
{{- else }}
secret:
  secretName: {{ include "ab.caSecret" . }}
  items:
    - { key: ca.crt, path: ca.crt }
    - { key: ca.crt, path: ca-bundle.crt }
{{- end }}
{{- end -}}
