{{/* What pods and containers of all roles have in common. */}}

{{/* Fields of a pod's spec. Takes root, component, and "pod": the component's values. */}}
{{- define "mobula.pod" -}}
{{- with .root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .pod.terminationGracePeriodSeconds }}
terminationGracePeriodSeconds: {{ . }}
{{- end }}
{{- range $key := list "priorityClassName" "runtimeClassName" "schedulerName" }}
{{- with get $.pod $key }}
{{ $key }}: {{ . }}
{{- end }}
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "initContainers" "resourceClaims" }}
{{- with get $.pod $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- if .pod.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml .pod.topologySpreadConstraints | nindent 2 }}
{{- else if hasKey .pod "topologySpreadConstraints" }}
topologySpreadConstraints:
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "mobula.selector" $ | nindent 8 }}
        {{- range $label, $value := $.alike | default dict }}
        {{ $label }}: {{ $value }}
        {{- end }}
    {{- with $.revision }}
    matchLabelKeys: [{{ . }}]
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Image and security of a container with our binary. Takes root, and "pod": a worker group may
   have an image of its own. A tag of its own is not overruled by everybody's digest. */}}
{{- define "mobula.container" -}}
{{- $own := get (.pod | default dict) "image" | default dict }}
{{- $image := mergeOverwrite (deepCopy .root.Values.image) (deepCopy $own) }}
{{- if and $own.tag (not $own.digest) }}
{{- $image = set $image "digest" "" }}
{{- end -}}
image: {{ include "mobula.image" (dict "root" .root "image" $image "tag" .root.Chart.AppVersion) | quote }}
imagePullPolicy: {{ $image.pullPolicy }}
securityContext:
  {{- toYaml .root.Values.containerSecurityContext | nindent 2 }}
{{- end }}

{{/* The three probes over HTTP. Takes "probes", "port", and "scheme" if it is HTTPS. Alive, and started, is the process
   alone: waiting for etcd, the head or models is no reason to restart it. */}}
{{- define "mobula.probes" -}}
{{- range $kind, $path := dict "startup" "/livez" "readiness" "/readyz" "liveness" "/livez" }}
{{- $probe := get $.probes $kind | default dict }}
{{- $handlers := pick $probe "httpGet" "tcpSocket" "exec" "grpc" }}
{{- if not $handlers }}
{{- $get := dict "path" $path "port" $.port }}
{{- with $.scheme }}{{ $get = set $get "scheme" . }}{{ end }}
{{- $probe = merge (dict "httpGet" $get) $probe }}
{{- end }}
{{ $kind }}Probe:
  {{- toYaml $probe | nindent 2 }}
{{- end }}
{{- end }}

{{/* Environment. Takes root, "maps" (later ones count), "lists" (appended), and "from". */}}
{{- define "mobula.env" -}}
{{- $all := dict }}
{{- range .maps }}
{{- $all = mergeOverwrite $all (deepCopy (. | default dict)) }}
{{- end }}
env:
  - name: MOBULA_LOG
    value: {{ .root.Values.log.level | quote }}
  - name: MOBULA_LOG_FORMAT
    value: {{ .root.Values.log.format | quote }}
  {{- range $name, $value := $all }}
  - name: {{ $name }}
    value: {{ $value | toString | quote }}
  {{- end }}
  {{- range .lists }}
  {{- with . }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- end }}
{{- $from := list }}
{{- range .from }}{{ $from = concat $from (. | default list) }}{{ end }}
{{- with $from }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Flags of whoever joins the cluster, as lines of YAML lists. Takes root. */}}
{{- define "mobula.accessArgs" -}}
- --join-token-file=/etc/mobula/auth/join-token
{{- if .root.Values.tls.existingSecret }}
- --tls-cert=/etc/mobula/tls/tls.crt
- --tls-key=/etc/mobula/tls/tls.key
- --tls-ca=/etc/mobula/tls/ca.crt
{{- end }}
{{- end }}

{{/* Mounts and volumes of the secrets. Volumes take "tokens": which tokens this role may read. Mode 288
   is octal 440, written so that every YAML parser reads it alike. */}}
{{- define "mobula.accessMounts" -}}
- {name: auth, mountPath: /etc/mobula/auth, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if .root.Values.tls.existingSecret }}
- {name: tls, mountPath: /etc/mobula/tls, readOnly: true}
{{- end }}
{{- end }}

{{/* How a client reaches the admin API, as lines of YAML lists: flags, and mounts. Take root. */}}
{{- define "mobula.adminClientArgs" -}}
- --address={{ ternary "https" "http" (not (empty .root.Values.adminTls.existingSecret)) }}://{{ include "mobula.headService" .root }}:{{ .root.Values.head.service.port }}
- --token-file=/etc/mobula/auth/admin-token
{{- if .root.Values.adminTls.existingSecret }}
- --ca-file=/etc/mobula/admin-tls/ca.crt
{{- end }}
{{- end }}

{{- define "mobula.adminClientMounts" -}}
- {name: auth, mountPath: /etc/mobula/auth, readOnly: true}
{{- if .root.Values.adminTls.existingSecret }}
- {name: admin-tls, mountPath: /etc/mobula/admin-tls, readOnly: true}
{{- end }}
{{- end }}

{{- define "mobula.accessVolumes" -}}
- name: auth
  secret:
    secretName: {{ include "mobula.authSecret" .root }}
    defaultMode: 288
    items:
      {{- if has "join" .tokens }}
      - {key: {{ .root.Values.auth.joinTokenKey }}, path: join-token}
      {{- end }}
      {{- if has "admin" .tokens }}
      - {key: {{ .root.Values.auth.adminTokenKey }}, path: admin-token}
      {{- end }}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
{{- if and .root.Values.adminTls.existingSecret (has "admin" .tokens) }}
- name: admin-tls
  secret:
    secretName: {{ .root.Values.adminTls.existingSecret }}
    defaultMode: 288
    {{- /* Clients need to know whom to believe, and not the key. */}}
    {{- if not (has "join" .tokens) }}
    items:
      - {key: ca.crt, path: ca.crt}
    {{- end }}
{{- end }}
{{- if and .root.Values.tls.existingSecret (has "join" .tokens) }}
- name: tls
  {{- if .root.Values.tls.caConfigMap }}
  projected:
    defaultMode: 288
    sources:
      - secret:
          name: {{ .root.Values.tls.existingSecret }}
          items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
      - configMap:
          name: {{ .root.Values.tls.caConfigMap }}
          items: [{key: ca.crt, path: ca.crt}]
  {{- else }}
  secret:
    secretName: {{ .root.Values.tls.existingSecret }}
    defaultMode: 288
  {{- end }}
{{- end }}
{{- end }}
