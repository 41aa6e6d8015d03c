{{/* Rules that more than one policy has. */}}
{{- define "ab.dnsRule" -}}
{{- $dns := .Values.networkPolicy.dns -}}
- to:
    {{- if $dns.podLabels }}
    - namespaceSelector:
        matchLabels:
          {{- toYaml $dns.namespaceLabels | nindent 10 }}
      podSelector:
        matchLabels:
          {{- toYaml $dns.podLabels | nindent 10 }}
    {{- end }}
    {{- range $dns.ipBlocks }}
    - ipBlock: { cidr: {{ . | quote }} }
    {{- end }}
  ports:
    {{- range $dns.ports }}
    - { protocol: UDP, port: {{ . }} }
    - { protocol: TCP, port: {{ . }} }
    {{- end }}
{{- end -}}

{{- define "ab.proxyEgress" -}}
{{- $egress := .Values.networkPolicy.egress -}}
{{- if $egress.internet.enabled }}
- to:
    - ipBlock:
        cidr: 0.0.0.0/0
        {{- with $egress.internet.except }}
        except:
          {{- toYaml . | nindent 10 }}
        {{- end }}
    - ipBlock:
        cidr: ::/0
        {{- with $egress.internet.exceptIPv6 }}
        except:
          {{- toYaml . | nindent 10 }}
        {{- end }}
  ports:
    {{- range $egress.internet.ports }}
    - { protocol: TCP, port: {{ . }} }
    {{- end }}
{{- end }}
{{- with $egress.rules }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "ab.commonIngress" -}}
{{- $policy := .Values.networkPolicy -}}
{{- if .Values.inbound.enabled }}
- ports:
    {{- /* Judged before the pod's own kernel redirects it. */}}
    {{- range ternary .Values.inbound.ports (list .Values.proxy.ports.reverse) (ne (include "ab.isInboundCaptured" .) "") }}
    - { protocol: TCP, port: {{ . }} }
    {{- end }}
  {{- with $policy.ingress.inboundFrom }}
  from:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- if and .Values.metrics.enabled $policy.ingress.metricsFrom }}
- ports:
    - { protocol: TCP, port: {{ .Values.proxy.ports.stats }} }
  from:
    {{- toYaml $policy.ingress.metricsFrom | nindent 4 }}
{{- end }}
# The kubelet's probes come from the node, which no policy shuts out; this port shows nothing of anybody.
- ports:
    - { protocol: TCP, port: {{ .Values.proxy.ports.health }} }
{{- end -}}

{{/* The port of inbound.backend. */}}
{{- define "ab.backendPort" -}}
{{- $url := urlParse .Values.inbound.backend -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- default (ternary "443" "80" (eq $url.scheme "https")) $port -}}
{{- end -}}
