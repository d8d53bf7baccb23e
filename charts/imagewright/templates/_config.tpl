{{/* The operator's configuration file; the ConfigMap holds it, the Deployment its checksum. */}}
{{- define "imagewright.config" -}}
pools:
  {{- range .Values.pools }}
  - name: {{ .name | quote }}
    {{- with omit . "name" "tls" "service" }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with .service }}
    service:
      name: {{ .name | quote }}
      namespace: {{ .namespace | default $.Release.Namespace | quote }}
      port: {{ .port | default "buildkit" | quote }}
    {{- end }}
    {{- if (.tls).secretName }}
    tls:
      ca: /etc/imagewright/tls/{{ .name }}/ca.crt
      cert: /etc/imagewright/tls/{{ .name }}/tls.crt
      key: /etc/imagewright/tls/{{ .name }}/tls.key
      serverName: {{ .tls.serverName | default "" | quote }}
    {{- end }}
  {{- end }}
{{- with .Values.gateway }}
{{- if .enabled }}
gateway:
  host: "0.0.0.0"
  port: {{ .port }}
  pool: {{ .pool | quote }}
  ca: /etc/imagewright/gateway/ca.crt
  cert: /etc/imagewright/gateway/tls.crt
  key: /etc/imagewright/gateway/tls.key
  waiting: {{ .waiting }}
  waitingPerTenant: {{ .waitingPerTenant }}
  waitSeconds: {{ .waitSeconds }}
  idleSeconds: {{ .idleSeconds }}
{{- end }}
{{- end }}
registries:
  plainHttp: {{ toJson .Values.registries.plainHttp }}
  {{- if .Values.registries.caSecretName }}
  ca: /etc/imagewright/registry-ca/ca.crt
  {{- end }}
sources:
  folder: /var/cache/imagewright
  maxUsedSpace: {{ .Values.sources.maxUsedSpace | quote }}
  maxAgeSeconds: {{ .Values.sources.maxAgeSeconds }}
namespaces: {{ toJson .Values.watchNamespaces }}
lease:
  name: {{ include "imagewright.fullname" . | quote }}
  namespace: {{ .Release.Namespace | quote }}
  seconds: {{ .Values.leaseSeconds }}
prunes: {{ .Values.prunes }}
drainSeconds: {{ .Values.drainSeconds }}
stallSeconds: {{ .Values.stallSeconds }}
ops:
  host: "0.0.0.0"
  port: {{ .Values.ops.port }}
events:
  perSecond: {{ .Values.events.perSecond }}
  burst: {{ .Values.events.burst }}
logFormat: {{ .Values.logFormat }}
{{- end -}}
