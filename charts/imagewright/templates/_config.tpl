{{/* The operator's configuration file; the ConfigMap holds it, the Deployment its checksum. */}}
{{- define "imagewright.config" -}}
pool:
  name: {{ .Values.pool.name | quote }}
  slots: {{ .Values.pool.slots }}
  workers: {{- toYaml .Values.pool.workers | nindent 4 }}
  {{- with .Values.pool.tls }}
  {{- if .secretName }}
  tls:
    ca: /etc/imagewright/tls/ca.crt
    cert: /etc/imagewright/tls/tls.crt
    key: /etc/imagewright/tls/tls.key
    serverName: {{ .serverName | quote }}
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
prunes: {{ .Values.prunes }}
drainSeconds: {{ .Values.drainSeconds }}
ops:
  host: "0.0.0.0"
  port: {{ .Values.ops.port }}
logFormat: {{ .Values.logFormat }}
{{- end -}}
